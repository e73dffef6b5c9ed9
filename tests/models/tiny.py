"""Tiny models, and values for them that are the same on every machine and in every framework."""

import dataclasses
import math
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from mmjax.models.presets import Preset, TextPreset, VisionPreset

VIT = Preset(
    name="tiny-vit",
    embed_dim=16,
    vision=VisionPreset(32, 32, 2, patch_size=8, head_width=16),
    text=TextPreset(width=32, heads=2, layers=2, vocab_size=96, context_length=20),
)
RESNET = dataclasses.replace(
    VIT, name="tiny-resnet", vision=VisionPreset(64, 8, (1, 2, 1, 1), head_width=64)
)
GELU = dataclasses.replace(VIT, name="tiny-vit-gelu", activation="gelu")
PRESETS = {preset.name: preset for preset in (VIT, RESNET, GELU)}


def uniform(shape: tuple[int, ...], *seed: int) -> np.ndarray:
    """Float32 numbers of mean 0 and deviation 1, from the raw bits that NumPy promises to keep."""
    count = math.prod(shape)
    raw = np.random.PCG64(np.random.SeedSequence(seed)).random_raw(count)
    unit = (raw >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return ((unit - 0.5) * math.sqrt(12)).astype(np.float32).reshape(shape)


def fill_values(shapes: Mapping[str, tuple[int, ...]], seed: int) -> dict[str, np.ndarray]:
    """Values for a state dict of open_clip or transformers, none of them left at 0 or 1."""
    values = {}
    for name, shape in shapes.items():
        noise = uniform(shape, seed, zlib.crc32(name.encode()))
        if name.endswith("running_var"):
            value = 1 + 0.3 * noise
        elif name == "logit_scale":
            value = np.float32(math.log(20)) + 0 * noise
        elif name.endswith("bn3.weight"):  # small, as in trained ones: the sum of blocks stays tame
            value = 0.3 + 0.1 * noise
        elif name.endswith("weight") and len(shape) == 1:
            value = 1 + 0.2 * noise
        elif len(shape) <= 1:
            value = 0.2 * noise
        elif len(shape) == 4:  # keeps a ReLU network from forgetting its input
            value = noise * math.sqrt(2 / math.prod(shape[1:]))
        else:
            value = noise / math.sqrt(math.prod(shape[1:]))
        values[name] = np.asarray(value, np.float32)
    return values


def images_of(preset: Preset, count: int = 3, seed: int = 0) -> np.ndarray:
    """Random uint8 images of the size that `preset` reads: coloured tiles under noise."""
    size = preset.vision.image_size
    tiles = uniform((count, 2, 2, 3), seed, 1)
    noise = tiles.repeat(size // 2, axis=1).repeat(size // 2, axis=2)
    noise = noise + uniform((count, size, size, 3), seed, 2)
    return np.clip(np.round(127 + 50 * noise), 0, 255).astype(np.uint8)


def tokens_of(preset: Preset, count: int = 3, seed: int = 0) -> np.ndarray:
    """Random captions of 3, 4, ... tokens: the largest id ends each, zeros follow."""
    text = preset.text
    raw = np.random.PCG64(np.random.SeedSequence((seed, 4))).random_raw(count * text.context_length)
    tokens = (raw % np.uint64(text.vocab_size - 1)).astype(np.int32).reshape(count, -1)
    for row, ids in enumerate(tokens):
        end = 2 + row % (text.context_length - 2)
        ids[end] = text.vocab_size - 1
        ids[end + 1 :] = 0
    return tokens


def direction(preset: Preset, count: int) -> np.ndarray:
    """What embeddings are multiplied with to get the one number whose gradient is compared."""
    return uniform((count, preset.embed_dim), 3)


def transformers_config(preset: Preset) -> dict[str, Any]:
    """The `config.json` that transformers has for `preset`, defaults left out."""
    vision, text = preset.vision, preset.text
    return {
        "model_type": "clip",
        "projection_dim": preset.embed_dim,
        "vision_config": {
            "image_size": vision.image_size,
            "num_hidden_layers": vision.layers,
            "hidden_size": vision.width,
            "intermediate_size": 4 * vision.width,
            "num_attention_heads": vision.width // vision.head_width,
            "patch_size": vision.patch_size,
            "hidden_act": preset.activation,
        },
        "text_config": {
            "max_position_embeddings": text.context_length,
            "vocab_size": text.vocab_size,
            "hidden_size": text.width,
            "intermediate_size": 4 * text.width,
            "num_attention_heads": text.heads,
            "num_hidden_layers": text.layers,
            "hidden_act": preset.activation,
            "bos_token_id": text.vocab_size - 2,
            "eos_token_id": text.vocab_size - 1,
        },
    }
