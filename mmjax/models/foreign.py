"""Presets read from the configuration files of open_clip and of transformers."""

from collections.abc import Mapping
from typing import Any

from mmjax.core.errors import ConfigError, WeightsError
from mmjax.models.presets import (
    OPENAI_MEAN,
    OPENAI_STD,
    Activation,
    Preset,
    TextPreset,
    VisionPreset,
)

# keys that change what the towers compute, with the values that our towers are made for
_OPEN_CLIP_VISION = {
    "layers", "width", "head_width", "mlp_ratio", "patch_size", "image_size",
}  # fmt: skip
_OPEN_CLIP_TEXT = {
    "context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio",
}  # fmt: skip
_HARMLESS: dict[str, tuple[Any, ...]] = {
    "pool_type": ("tok", "argmax"),
    "output_dim": (None,),
    "hf_tokenizer_name": (None, ""),
    "tokenizer_kwargs": (None, {}),
    "patch_dropout": (0, 0.0),
    "drop_path": (None, 0, 0.0),
}


def from_open_clip(config: Mapping[str, Any], name: str) -> Preset:
    """Returns the preset that an `open_clip_config.json` describes.

    Raises:
      WeightsError: it asks for something that CLIP's own towers do not have.
    """
    model = config.get("model_cfg", config)
    preprocess = config.get("preprocess_cfg", {})
    try:
        vision, text = dict(model["vision_cfg"]), dict(model["text_cfg"])
        _refuse_unknown("vision_cfg", vision, _OPEN_CLIP_VISION)
        _refuse_unknown("text_cfg", text, _OPEN_CLIP_TEXT)
        _refuse_unknown("model_cfg", model, {"embed_dim", "vision_cfg", "text_cfg", "quick_gelu"})
        if preprocess.get("resize_mode", "shortest") != "shortest":
            raise WeightsError(
                f"open_clip_config.json: resize_mode {preprocess['resize_mode']!r} is not "
                "supported; wanted 'shortest'"
            )
        size = vision.get("image_size", 224)
        layers = vision.get("layers", 12)
        width = vision.get("width", 768)
        return Preset(
            name=name,
            embed_dim=model["embed_dim"],
            vision=VisionPreset(
                image_size=size if isinstance(size, int) else _square(size),
                width=width,
                layers=layers if isinstance(layers, int) else tuple(layers),
                patch_size=(vision.get("patch_size") or 16) if isinstance(layers, int) else 0,
                head_width=vision.get("head_width", 64),
                mlp_ratio=vision.get("mlp_ratio", 4.0),
            ),
            text=TextPreset(
                width=text.get("width", 512),
                heads=text.get("heads", 8),
                layers=text.get("layers", 12),
                vocab_size=text.get("vocab_size", 49_408),
                context_length=text.get("context_length", 77),
                mlp_ratio=text.get("mlp_ratio", 4.0),
            ),
            activation="quick_gelu" if model.get("quick_gelu", False) else "gelu",
            mean=_triple(preprocess.get("mean"), OPENAI_MEAN),
            std=_triple(preprocess.get("std"), OPENAI_STD),
        )
    except (KeyError, TypeError, ValueError, ConfigError) as error:
        raise WeightsError(f"open_clip_config.json is not a CLIP model's: {_say(error)}") from error


def open_clip_config(preset: Preset) -> dict[str, Any]:
    """The `model_cfg` that open_clip has for `preset`."""
    vision, text = preset.vision, preset.text
    return {
        "embed_dim": preset.embed_dim,
        "quick_gelu": preset.activation == "quick_gelu",
        "vision_cfg": {
            "image_size": vision.image_size,
            "layers": vision.layers if isinstance(vision.layers, int) else list(vision.layers),
            "width": vision.width,
            "head_width": vision.head_width,
            "patch_size": vision.patch_size or None,
        },
        "text_cfg": {
            "context_length": text.context_length,
            "vocab_size": text.vocab_size,
            "width": text.width,
            "heads": text.heads,
            "layers": text.layers,
        },
    }


def from_transformers(
    config: Mapping[str, Any], preprocessor: Mapping[str, Any], name: str
) -> Preset:
    """Returns the preset that a CLIPModel's `config.json` describes (missing keys: its defaults).

    Raises:
      WeightsError: it is not a CLIPModel's, or asks for what CLIP's own towers do not have.
    """
    if config.get("model_type") != "clip":
        raise WeightsError(
            f"config.json has model_type {config.get('model_type')!r}; wanted 'clip' (a CLIPModel)"
        )
    try:
        vision = dict(config.get("vision_config") or {})
        text = dict(config.get("text_config") or {})
        vocab = text.get("vocab_size", 49_408)
        end = text.get("eos_token_id", vocab - 1)
        if end not in (2, vocab - 1):  # 2 is what OpenAI's own configs say; they pool at argmax
            raise WeightsError(
                f"config.json: eos_token_id is {end}; the towers pool at the largest id {vocab - 1}"
            )
        vision_width, text_width = vision.get("hidden_size", 768), text.get("hidden_size", 512)
        heads = vision.get("num_attention_heads", 12)
        return Preset(
            name=name,
            embed_dim=config.get("projection_dim", 512),
            vision=VisionPreset(
                image_size=vision.get("image_size", 224),
                width=vision_width,
                layers=vision.get("num_hidden_layers", 12),
                patch_size=vision.get("patch_size", 32),
                head_width=vision_width // heads,
                mlp_ratio=vision.get("intermediate_size", 3072) / vision_width,
            ),
            text=TextPreset(
                width=text_width,
                heads=text.get("num_attention_heads", 8),
                layers=text.get("num_hidden_layers", 12),
                vocab_size=vocab,
                context_length=text.get("max_position_embeddings", 77),
                mlp_ratio=text.get("intermediate_size", 2048) / text_width,
            ),
            activation=_activation(vision, text),
            mean=_triple(preprocessor.get("image_mean"), OPENAI_MEAN),
            std=_triple(preprocessor.get("image_std"), OPENAI_STD),
        )
    except (KeyError, TypeError, ValueError, ZeroDivisionError, ConfigError) as error:
        raise WeightsError(f"config.json is not a CLIPModel's: {_say(error)}") from error


def _activation(vision: Mapping[str, Any], text: Mapping[str, Any]) -> Activation:
    names = {tower.get("hidden_act", "quick_gelu") for tower in (vision, text)}
    if names == {"gelu"}:
        return "gelu"
    if names == {"quick_gelu"}:
        return "quick_gelu"
    raise WeightsError(
        f"config.json: hidden_act must be 'quick_gelu' or 'gelu' in both towers, got {names}"
    )


def _refuse_unknown(where: str, found: Mapping[str, Any], known: set[str]) -> None:
    for key, value in found.items():
        if key in known or value in (_HARMLESS.get(key, (None, False))):
            continue
        raise WeightsError(
            f"open_clip_config.json: {where}.{key} = {value!r} is not supported; CLIP's own "
            f"towers have {', '.join(sorted(known))}"
        )


def _square(size: Any) -> int:
    height, width = size
    if height != width:
        raise WeightsError(f"open_clip_config.json: image_size {size} is not square")
    return int(height)


def _triple(values: Any, default: tuple[float, float, float]) -> tuple[float, float, float]:
    if values is None:
        return default
    red, green, blue = (float(value) for value in values)
    return red, green, blue


def _say(error: Exception) -> str:
    return f"no {error}" if isinstance(error, KeyError) else str(error)
