"""Tiny models that the tests of this folder share: compiled once a session."""

import dataclasses

import jax
import numpy as np
import pytest

from mmjax.models.presets import Preset, TextPreset, VisionPreset

TEXT = TextPreset(width=32, heads=2, layers=2, vocab_size=96, context_length=20)

TINY_VIT = Preset(
    name="tiny-vit",
    embed_dim=16,
    vision=VisionPreset(32, 32, 2, patch_size=8, head_width=16),
    text=TEXT,
)
TINY_RESNET = dataclasses.replace(
    TINY_VIT,
    name="tiny-resnet",
    vision=VisionPreset(64, 8, (1, 2, 1, 1), head_width=64),
)
TINY = {"vit": TINY_VIT, "resnet": TINY_RESNET}


@pytest.fixture(scope="session", params=sorted(TINY))
def tiny(request) -> Preset:
    """Each kind of image tower in turn."""
    return TINY[request.param]


def images_of(preset: Preset, count: int = 3, seed: int = 0) -> np.ndarray:
    """Random images as the towers read them."""
    size = preset.vision.image_size
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def tokens_of(preset: Preset, count: int = 3, seed: int = 0) -> np.ndarray:
    """Random captions of 3 to 8 tokens, the largest id at the end, zeros behind it."""
    generator = np.random.default_rng(seed)
    text = preset.text
    tokens = np.zeros((count, text.context_length), np.int32)
    for row in tokens:
        length = generator.integers(3, 9)
        row[:length] = generator.integers(0, text.vocab_size - 1, length)
        row[length - 1] = text.vocab_size - 1
    return tokens


def randomised(variables, seed: int = 0):
    """Variables with no zeros or ones left, so that no parameter can be forgotten unseen."""
    generator = np.random.default_rng(seed)

    def shake(path, leaf):
        noise = generator.normal(size=leaf.shape).astype(np.float32)
        if path[-1].key == "var":
            return 1 + 0.3 * np.tanh(noise)
        return np.asarray(leaf) + 0.1 * noise

    return jax.tree_util.tree_map_with_path(shake, variables)
