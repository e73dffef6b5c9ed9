"""What is left of a photo's protection after what happens to pictures on the web; its quality."""

import io
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from mmjax.ops.quality import ssim
from mmjax.protect.guard import Guard, losses, square_of

_TILE, _TILES = 256, 8
_LEAST = 0.05
"""Nats of a decrease that is worth a percentage."""


def _jpeg(quality: int) -> Callable[[Image.Image], Image.Image]:
    def change(image: Image.Image) -> Image.Image:
        out = io.BytesIO()
        image.save(out, "JPEG", quality=quality)
        with Image.open(out, formats=("JPEG",)) as saved:
            return saved.convert("RGB")

    return change


def _half(image: Image.Image) -> Image.Image:
    size = (max(1, image.width // 2), max(1, image.height // 2))
    return image.resize(size, Image.Resampling.LANCZOS)


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "as it is": lambda image: image,
    "JPEG 90": _jpeg(90),
    "JPEG 75": _jpeg(75),
    "JPEG 50": _jpeg(50),
    "half size": _half,
    "grey-scale": lambda image: image.convert("L").convert("RGB"),
}
"""What a photo goes through, by name; the first leaves it."""


class Survival(NamedTuple):
    """Losses on the surrogate, and what is left of their decrease.

    Fields:
        before: of the original with the protected caption, in nats.
        after: of the protected photo.
        left: by change, (before - after) of the changed photos over that of the unchanged ones;
            None where it is below 0.05 nats. Above 1 where the change itself helps.
    """

    before: float
    after: float
    left: dict[str, float | None]


def measure_survival(
    guard: Guard, original: Image.Image, protected: Image.Image, caption: str
) -> Survival:
    """Compare original and protected photo, each as it is and after every change.

    Args:
        guard: the surrogate.
        original: at full size, RGB.
        protected: as its file is read.
        caption: the protected one, for both: what is measured is the picture's part.
    """
    views = [
        square_of(change(image), guard)
        for image in (original, protected)
        for change in CHANGES.values()
    ]
    before, after = losses(guard, np.stack(views), caption).astype(float).reshape(2, len(CHANGES))
    gained = before[0] - after[0]
    left = {
        name: float((before[i] - after[i]) / gained) if gained > _LEAST else None
        for i, name in enumerate(CHANGES)
        if i
    }
    return Survival(float(before[0]), float(after[0]), left)


class Quality(NamedTuple):
    """How far a protected photo is from the original.

    Fields:
        psnr: in dB; None where nothing differs.
        ssim: mean over tiles of 256 px that cover the photo.
        largest: greatest difference of a channel, in grey levels.
    """

    psnr: float | None
    ssim: float
    largest: int


def measure_quality(
    original: UInt8[np.ndarray, "h w 3"], protected: UInt8[np.ndarray, "h w 3"]
) -> Quality:
    """Compare at full size; a photo below a tile's size is mirrored at its borders."""
    largest, squares = 0, 0.0
    for x, y in zip(original, protected, strict=True):  # row by row: photos are large
        difference = x.astype(np.int32) - y
        largest = max(largest, int(np.abs(difference).max()))
        squares += float(np.sum(difference**2))
    mean = squares / original.size
    psnr = float(10 * np.log10(255**2 / mean)) if mean else None
    return Quality(psnr, _tiled_ssim(original, protected), largest)


def _tiled_ssim(x: UInt8[np.ndarray, "h w 3"], y: UInt8[np.ndarray, "h w 3"]) -> float:
    """SSIM by tiles, a fixed number at a time: one program for photos of every size."""
    after = [(0, max(0, _TILE - side)) for side in x.shape[:2]]
    x, y = (np.pad(image, [*after, (0, 0)], mode="symmetric") for image in (x, y))
    rows, columns = (
        np.unique(np.append(np.arange(0, side - _TILE, _TILE), side - _TILE))
        for side in x.shape[:2]
    )
    places = [(row, column) for row in rows for column in columns]
    found: list[Float[np.ndarray, " t"]] = []
    for start in range(0, len(places), _TILES):
        part = places[start : start + _TILES]
        padded = part + [part[0]] * (_TILES - len(part))
        tiles = [
            np.stack([image[r : r + _TILE, c : c + _TILE] for r, c in padded]) for image in (x, y)
        ]
        found.append(np.asarray(_ssim_of_bytes(*tiles))[: len(part)])
    return float(np.mean(np.concatenate(found)))


@jax.jit
def _ssim_of_bytes(
    x: UInt8[jax.Array, "t h w 3"], y: UInt8[jax.Array, "t h w 3"]
) -> Float[jax.Array, " t"]:
    return ssim(x.astype(jnp.float32) / 255, y.astype(jnp.float32) / 255)
