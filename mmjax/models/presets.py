"""The shapes of the CLIP models that mmjax builds: OpenAI's, and small ones for CPUs."""

import dataclasses
from typing import Literal

from mmjax.core.errors import ConfigError

Activation = Literal["quick_gelu", "gelu"]

OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclasses.dataclass(frozen=True)
class VisionPreset:
    """The image tower: `layers` is a number for a ViT and a tuple of stages for a ResNet.

    `head_width` is the width of one attention head (of a ResNet: in its attention pool).
    `patch_size` is of no meaning to a ResNet, which halves the image five times.
    """

    image_size: int
    width: int
    layers: int | tuple[int, ...]
    patch_size: int = 0
    head_width: int = 64
    mlp_ratio: float = 4.0

    @property
    def kind(self) -> Literal["vit", "resnet"]:
        """Which image tower this is."""
        return "vit" if isinstance(self.layers, int) else "resnet"

    @property
    def grid(self) -> int:
        """Side of the grid of patches (ViT) or of the last feature map (ResNet)."""
        return self.image_size // (self.patch_size if self.kind == "vit" else 32)


@dataclasses.dataclass(frozen=True)
class TextPreset:
    """The text tower: a causal Transformer, pooled at the end-of-text token."""

    width: int
    heads: int
    layers: int
    vocab_size: int = 49_408
    context_length: int = 77
    mlp_ratio: float = 4.0


@dataclasses.dataclass(frozen=True)
class Preset:
    """A CLIP model's shape; change one with `dataclasses.replace`.

    Raises:
      ConfigError: if sizes do not divide as the towers need.
    """

    name: str
    embed_dim: int
    vision: VisionPreset
    text: TextPreset
    activation: Activation = "quick_gelu"
    mean: tuple[float, float, float] = OPENAI_MEAN
    std: tuple[float, float, float] = OPENAI_STD

    def __post_init__(self):
        """Checks the divisions that the towers rely on."""
        vision, text = self.vision, self.text
        last = vision.width * (1 if vision.kind == "vit" else 32)
        unit = vision.patch_size if vision.kind == "vit" else 32
        if unit <= 0 or vision.image_size % unit:
            raise ConfigError(
                f"{self.name}: image_size {vision.image_size} must be a multiple of {unit}"
            )
        if last % vision.head_width:
            raise ConfigError(
                f"{self.name}: vision width {last} must be a multiple of head_width "
                f"{vision.head_width}"
            )
        if text.width % text.heads:
            raise ConfigError(
                f"{self.name}: text width {text.width} must be a multiple of heads {text.heads}"
            )


def _openai(name: str, embed: int, vision: VisionPreset, text_width: int = 512) -> Preset:
    text = TextPreset(width=text_width, heads=text_width // 64, layers=12)
    return Preset(name=name, embed_dim=embed, vision=vision, text=text)


_ALL = (
    _openai("RN50", 1024, VisionPreset(224, 64, (3, 4, 6, 3))),
    _openai("RN101", 512, VisionPreset(224, 64, (3, 4, 23, 3))),
    _openai("RN50x4", 640, VisionPreset(288, 80, (4, 6, 10, 6)), text_width=640),
    _openai("ViT-B-32", 512, VisionPreset(224, 768, 12, patch_size=32)),
    _openai("ViT-B-16", 512, VisionPreset(224, 768, 12, patch_size=16)),
    _openai("ViT-L-14", 768, VisionPreset(224, 1024, 24, patch_size=14), text_width=768),
    Preset(
        name="demo",
        embed_dim=128,
        vision=VisionPreset(64, 16, (1, 1, 1, 1), head_width=64),
        text=TextPreset(width=64, heads=2, layers=2, vocab_size=1024, context_length=32),
    ),
    Preset(
        name="vit-tiny-64",
        embed_dim=64,
        vision=VisionPreset(64, 64, 2, patch_size=16, head_width=32),
        text=TextPreset(width=48, heads=1, layers=1, context_length=32),
    ),
    Preset(
        name="vit-small-64",
        embed_dim=256,
        vision=VisionPreset(64, 256, 6, patch_size=16),
        text=TextPreset(width=128, heads=2, layers=2),
    ),
    Preset(
        name="resnet-small-96",
        embed_dim=256,
        vision=VisionPreset(96, 16, (1, 1, 1, 1), head_width=64),
        text=TextPreset(width=128, heads=2, layers=2),
    ),
)

PRESETS: dict[str, Preset] = {preset.name: preset for preset in _ALL}
"""Every model that has a name, OpenAI's (`RN50` ... `ViT-L-14`) and the small ones for CPUs."""


def preset(name: str) -> Preset:
    """Returns the preset called `name`; raises ConfigError that lists the known ones."""
    if name not in PRESETS:
        raise ConfigError(f"no model is called {name!r}; known: {', '.join(PRESETS)}")
    return PRESETS[name]
