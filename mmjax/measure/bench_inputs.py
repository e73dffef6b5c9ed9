"""What all formulations of a case are given: models, images, captions, of the same seed."""

import functools

import jax
import numpy as np
from jaxtyping import Float32, Int, Int32, UInt8

from mmjax.core import keys
from mmjax.models.clip import Towers, Variables, build
from mmjax.models.presets import TextPreset, preset

RESNET = {"tiny": "demo", "small": "RN50", "full": "RN50"}
VIT = {"tiny": "vit-tiny-64", "small": "ViT-B-32", "full": "ViT-B-32"}
BATCH = {"tiny": 4, "small": 16, "full": 64}
SCALE = 20.0
"""The inverse temperature of losses."""

FLICKR8K = {
    3: 2, 4: 13, 5: 42, 6: 185, 7: 502, 8: 1146, 9: 2437, 10: 3202, 11: 3626, 12: 4152, 13: 4264,
    14: 4108, 15: 3729, 16: 3203, 17: 2611, 18: 1999, 19: 1500, 20: 1070, 21: 817, 22: 572, 23: 400,
    24: 256, 25: 189, 26: 130, 27: 96, 28: 71, 29: 43, 30: 33, 31: 14, 32: 9, 33: 10, 34: 8, 35: 6,
    36: 4, 37: 3, 38: 1, 39: 1, 42: 1,
}  # fmt: skip
"""How many of Flickr8k's 40,455 captions have so many of CLIP's tokens, both ends counted."""


@functools.lru_cache(maxsize=2)  # what is compared has the same weights
def model(name: str) -> tuple[Towers, Variables]:
    """Towers and random weights of a preset."""
    towers = build(preset(name))
    return towers, towers.init(jax.random.key(0))


def images(n: int, size: int) -> UInt8[np.ndarray, "n s s 3"]:
    """Images of 8 x 8 squares in random colours; of mere noise all embeddings are alike."""
    squares = keys.host(0, "bench").integers(0, 256, (n, 8, 8, 3), dtype=np.uint8)
    return squares.repeat(size // 8, axis=1).repeat(size // 8, axis=2)


def real_lengths(n: int, most: int) -> Int[np.ndarray, " n"]:
    """Lengths spread as Flickr8k's are, of at most `most` tokens, in random order."""
    every = np.repeat(list(FLICKR8K), list(FLICKR8K.values()))
    quantiles = every[((np.arange(n) + 0.5) / n * len(every)).astype(int)]
    return keys.host(0, "bench", "lengths").permutation(np.minimum(quantiles, most))


def captions(
    text: TextPreset, lengths: Int[np.ndarray, " n"], width: int
) -> Int32[np.ndarray, "n w"]:
    """Captions of random tokens between the two ends, zeros behind them up to `width`."""
    drawn = keys.host(0, "bench", "captions")
    ids = drawn.integers(1, text.vocab_size - 2, (len(lengths), width)).astype(np.int32)
    ids[:, 0] = text.vocab_size - 2
    ids[np.arange(width)[None] >= lengths[:, None]] = 0
    ids[np.arange(len(lengths)), lengths - 1] = text.vocab_size - 1
    return ids


def unit_rows(n: int, d: int) -> Float32[np.ndarray, "n d"]:
    """Random rows of length 1."""
    rows = keys.host(0, "bench").normal(size=(n, d)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)
