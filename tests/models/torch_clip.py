"""What torch's open_clip and transformers compute, for parity tests and goldens."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from transformers import CLIPConfig, CLIPModel

from mmjax.measure.torch_clip import open_clip_model
from mmjax.models.presets import Preset
from tests.models.tiny import direction, fill_values, transformers_config


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
