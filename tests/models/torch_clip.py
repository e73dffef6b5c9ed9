"""open_clip's model classes without torchvision, which cannot be imported beside this torch.

open_clip's model files need one name of torchvision (FrozenBatchNorm2d, for frozen training). It is
stubbed while they are imported, and the package's `__init__`, which imports the transforms, is
left out.
"""

import importlib
import importlib.machinery
import importlib.util
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import CLIPConfig, CLIPModel

from mmjax.models.presets import Preset
from tests.models.tiny import direction, fill_values, open_clip_config, transformers_config

_STUBS = ("torchvision", "torchvision.ops", "torchvision.ops.misc")


def _import_open_clip() -> types.ModuleType:
    spec = importlib.util.find_spec("open_clip")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("open_clip: pip install --no-deps open-clip-torch")
    package = types.ModuleType("open_clip")
    package.__path__ = [str(Path(spec.origin).parent)]
    package.__spec__ = importlib.machinery.ModuleSpec("open_clip", None, is_package=True)
    stubs = {name: types.ModuleType(name) for name in _STUBS}
    for name in _STUBS[:-1]:
        stubs[name].__path__ = []
    stubs[_STUBS[-1]].FrozenBatchNorm2d = type("FrozenBatchNorm2d", (torch.nn.Module,), {})
    sys.modules.update({"open_clip": package, **stubs})
    try:
        return importlib.import_module("open_clip.model")
    finally:
        for name in _STUBS:
            del sys.modules[name]


_MODEL = _import_open_clip()


def open_clip_model(preset: Preset) -> torch.nn.Module:
    """Returns open_clip's torch model of `preset`, in inference mode."""
    return _MODEL.CLIP(**open_clip_config(preset)).eval()


def fill(model: torch.nn.Module, seed: int) -> dict[str, np.ndarray]:
    """Overwrites a torch model's state by `fill_values` and returns it as float32 arrays."""
    state = model.state_dict()
    shapes = {
        name: tuple(tensor.shape) for name, tensor in state.items() if tensor.is_floating_point()
    }
    values = fill_values(shapes, seed)
    with torch.no_grad():
        for name, value in values.items():
            state[name].copy_(torch.from_numpy(value))
    return values


def outputs(
    encode_image: Callable[[torch.Tensor], torch.Tensor],
    encode_text: Callable[[torch.Tensor], torch.Tensor],
    preset: Preset,
    images: np.ndarray,
    tokens: np.ndarray,
) -> dict[str, np.ndarray]:
    """Returns unit-norm embeddings and the gradient of <image embedding, direction> by pixels.

    In float64: in float32 torch's own gradient of a ResNet is off by up to 1e-3 of its largest
    value, a thousand times what ours is.
    """
    pixels = torch.from_numpy(images.astype(np.float64)).requires_grad_()
    mean, std = (torch.tensor(each, dtype=torch.float64) for each in (preset.mean, preset.std))
    normal = (pixels / 255 - mean) / std
    image = torch.nn.functional.normalize(encode_image(normal.permute(0, 3, 1, 2)), dim=-1)
    (image * torch.from_numpy(direction(preset, len(images))).double()).sum().backward()
    with torch.no_grad():
        text = torch.nn.functional.normalize(encode_text(torch.from_numpy(tokens).long()), dim=-1)
    return {
        "image": image.detach().float().numpy(),
        "text": text.float().numpy(),
        "gradient": pixels.grad.float().numpy(),
    }


def open_clip_outputs(
    preset: Preset, images: np.ndarray, tokens: np.ndarray, seed: int
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Returns (state, outputs) of open_clip's model of `preset`."""
    model = open_clip_model(preset)
    state = fill(model, seed)
    model = model.double()
    return state, outputs(model.encode_image, model.encode_text, preset, images, tokens)


def transformers_outputs(
    preset: Preset, images: np.ndarray, tokens: np.ndarray, seed: int
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], dict[str, Any]]:
    """Returns (state, outputs, config.json) of transformers' CLIPModel of `preset` (a ViT)."""
    config = CLIPConfig(**transformers_config(preset))
    model = CLIPModel(config).eval()
    state = fill(model, seed)
    model = model.double()
    found = outputs(
        lambda pixels: model.visual_projection(model.vision_model(pixels).pooler_output),
        lambda ids: model.text_projection(model.text_model(ids).pooler_output),
        preset,
        images,
        tokens,
    )
    return state, found, config.to_dict()
