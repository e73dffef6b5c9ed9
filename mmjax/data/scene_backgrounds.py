"""Textured backgrounds of scenes: two tones of one colour, and a pattern that mixes them."""

import functools
from collections.abc import Callable
from typing import Final

import numpy as np
from jaxtyping import Float32, UInt8

Pattern = Callable[[np.random.Generator, int], Float32[np.ndarray, "side side"]]


@functools.lru_cache(maxsize=8)
def _grid(side: int) -> tuple[Float32[np.ndarray, "1 side"], Float32[np.ndarray, "side 1"]]:
    """The x and y of the pixel centres, in [0, 1]."""
    centres = ((np.arange(side) + 0.5) / side).astype(np.float32)
    return centres[None, :], centres[:, None]


def _plain(rng: np.random.Generator, side: int) -> Float32[np.ndarray, "side side"]:
    return np.zeros((side, side), np.float32)


def _gradient(rng: np.random.Generator, side: int) -> Float32[np.ndarray, "side side"]:
    x, y = _grid(side)
    turn = rng.uniform(0, 2 * np.pi)
    return np.clip(
        0.5 + np.float32(np.cos(turn)) * (x - 0.5) + np.float32(np.sin(turn)) * (y - 0.5), 0, 1
    )


def _stripes(rng: np.random.Generator, side: int) -> Float32[np.ndarray, "side side"]:
    x, y = _grid(side)
    turn, count = rng.uniform(0, np.pi), rng.uniform(4, 8)
    phase = np.float32(np.cos(turn) * count) * x + np.float32(np.sin(turn) * count) * y
    return ((phase % 1) < 0.5).astype(np.float32)


def _checks(rng: np.random.Generator, side: int) -> Float32[np.ndarray, "side side"]:
    x, y = _grid(side)
    count, shift = rng.integers(5, 10), rng.uniform(0, 1)
    rows, columns = np.floor(y * count + shift), np.floor(x * count + shift)
    return ((rows + columns) % 2).astype(np.float32)


def _noise(rng: np.random.Generator, side: int) -> Float32[np.ndarray, "side side"]:
    grain = side // 2
    coarse = rng.random((grain, grain), np.float32)
    return (
        np.repeat(np.repeat(coarse, 2, 0), 2, 1)[:side, :side]
        if side % 2 == 0
        else rng.random((side, side), np.float32)
    )


def _dots(rng: np.random.Generator, side: int) -> Float32[np.ndarray, "side side"]:
    x, y = _grid(side)
    count, shift = rng.integers(5, 9), rng.uniform(0, 1)
    dx, dy = (x * count + shift) % 1 - 0.5, (y * count + shift) % 1 - 0.5
    return (dx * dx + dy * dy < 0.09).astype(np.float32)


def _waves(rng: np.random.Generator, side: int) -> Float32[np.ndarray, "side side"]:
    x, y = _grid(side)
    count, shift = rng.uniform(4, 7), rng.uniform(0, 1)
    phase = y * np.float32(count) + np.float32(0.35) * np.sin(x * 12 + np.float32(shift * 6))
    return ((phase + np.float32(shift)) % 1 < 0.5).astype(np.float32)


def _bricks(rng: np.random.Generator, side: int) -> Float32[np.ndarray, "side side"]:
    x, y = _grid(side)
    count = rng.integers(5, 8)
    row = np.floor(y * count)
    along = (x * count / 2 + (row % 2) / 2) % 1
    return ((along < 0.1) | (y * count % 1 < 0.2)).astype(np.float32)


PATTERNS: Final[dict[str, tuple[Pattern, tuple[str, ...]]]] = {
    "plain": (_plain, ("plain {}", "solid {}", "{}")),
    "gradient": (_gradient, ("smooth {}", "shaded {}", "gradient {}")),
    "stripes": (_stripes, ("striped {}", "{} striped", "lined {}")),
    "checks": (_checks, ("checked {}", "{} checkered", "chequered {}")),
    "noise": (_noise, ("noisy {}", "grainy {}", "speckled {}")),
    "dots": (_dots, ("dotted {}", "{} polka dot", "spotted {}")),
    "waves": (_waves, ("wavy {}", "{} rippled")),
    "bricks": (_bricks, ("{} brick", "brick-like {}")),
}
"""Every pattern, and the ways a caption speaks of it, `{}` being the colour."""


def paint_background(
    pattern: str,
    light: tuple[int, int, int],
    dark: tuple[int, int, int],
    rng: np.random.Generator,
    side: int,
) -> UInt8[np.ndarray, "side side 3"]:
    """Paints a square background with a little sensor noise (at most 6 levels).

    Args:
        pattern: a key of `PATTERNS`.
        light: the colour where the pattern is 0.
        dark: the colour where the pattern is 1.
        rng: source of the pattern's phase, direction and scale.
        side: pixels of the square.
    """
    share = PATTERNS[pattern][0](rng, side)[:, :, None]
    low = np.asarray(light, np.float32)[None, None]
    high = np.asarray(dark, np.float32)[None, None]
    noise = rng.integers(-6, 7, (side, side, 1), dtype=np.int8)
    return np.clip(low + share * (high - low) + noise, 0, 255).astype(np.uint8)
