"""AutoAugment's policy for ImageNet, on the host: pairs of random operations on an image.

Cubuk et al. 2019 (arXiv:1805.09501), table 9, with torchvision's magnitudes: of ten steps, the
number in the table. Geometric operations take the nearest pixel and fill with black.
"""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageEnhance, ImageOps

Operation = Callable[[Image.Image, int, bool], Image.Image]
"""(image, magnitude of 0 to 9, whether it is turned the other way) -> image."""


class Step(NamedTuple):
    """One operation of a sub-policy: its name, how probable it is, its magnitude of 0 to 9."""

    name: str
    probability: float
    magnitude: int = 0


def _signed(magnitude: int, most: float, turned: bool) -> float:
    return (-1 if turned else 1) * most * magnitude / 9


def _rotate(image: Image.Image, magnitude: int, turned: bool) -> Image.Image:
    return image.rotate(_signed(magnitude, 30.0, turned))


def _shear(image: Image.Image, magnitude: int, turned: bool) -> Image.Image:
    slant = _signed(magnitude, 0.3, turned)
    return image.transform(image.size, Image.Transform.AFFINE, (1, slant, 0, 0, 1, 0))


def _posterize(image: Image.Image, magnitude: int, turned: bool) -> Image.Image:
    return ImageOps.posterize(image, 8 - round(4 * magnitude / 9))


def _solarize(image: Image.Image, magnitude: int, turned: bool) -> Image.Image:
    return ImageOps.solarize(image, math.ceil(255 * (9 - magnitude) / 9))


def _enhanced(kind: Callable[[Image.Image], ImageEnhance._Enhance]) -> Operation:
    return lambda image, magnitude, turned: kind(image).enhance(1 + _signed(magnitude, 0.9, turned))


def _plain(operation: Callable[[Image.Image], Image.Image]) -> Operation:
    return lambda image, magnitude, turned: operation(image)


OPERATIONS: dict[str, Operation] = {
    "autocontrast": _plain(ImageOps.autocontrast),
    "colour": _enhanced(ImageEnhance.Color),
    "contrast": _enhanced(ImageEnhance.Contrast),
    "equalize": _plain(ImageOps.equalize),
    "invert": _plain(ImageOps.invert),
    "posterize": _posterize,
    "rotate": _rotate,
    "sharpness": _enhanced(ImageEnhance.Sharpness),
    "shear": _shear,
    "solarize": _solarize,
}
"""The ten operations that the policy uses, by name."""

POLICY: tuple[tuple[Step, Step], ...] = (
    (Step("posterize", 0.4, 8), Step("rotate", 0.6, 9)),
    (Step("solarize", 0.6, 5), Step("autocontrast", 0.6)),
    (Step("equalize", 0.8), Step("equalize", 0.6)),
    (Step("posterize", 0.6, 7), Step("posterize", 0.6, 6)),
    (Step("equalize", 0.4), Step("solarize", 0.2, 4)),
    (Step("equalize", 0.4), Step("rotate", 0.8, 8)),
    (Step("solarize", 0.6, 3), Step("equalize", 0.6)),
    (Step("posterize", 0.8, 5), Step("equalize", 1.0)),
    (Step("rotate", 0.2, 3), Step("solarize", 0.6, 8)),
    (Step("equalize", 0.6), Step("posterize", 0.4, 6)),
    (Step("rotate", 0.8, 8), Step("colour", 0.4, 0)),
    (Step("rotate", 0.4, 9), Step("equalize", 0.6)),
    (Step("equalize", 0.0), Step("equalize", 0.8)),
    (Step("invert", 0.6), Step("equalize", 1.0)),
    (Step("colour", 0.6, 4), Step("contrast", 1.0, 8)),
    (Step("rotate", 0.8, 8), Step("colour", 1.0, 2)),
    (Step("colour", 0.8, 8), Step("solarize", 0.8, 7)),
    (Step("sharpness", 0.4, 7), Step("invert", 0.6)),
    (Step("shear", 0.6, 5), Step("equalize", 1.0)),
    (Step("colour", 0.4, 0), Step("equalize", 0.6)),
    (Step("equalize", 0.4), Step("solarize", 0.2, 4)),
    (Step("solarize", 0.6, 5), Step("autocontrast", 0.6)),
    (Step("invert", 0.6), Step("equalize", 1.0)),
    (Step("colour", 0.6, 4), Step("contrast", 1.0, 8)),
    (Step("equalize", 0.8), Step("equalize", 0.6)),
)
"""The 25 sub-policies; an image gets one of them, each step of it by its own chance."""


def autoaugment(
    images: UInt8[np.ndarray, "b s s 3"], rngs: Sequence[np.random.Generator], *, workers: int = 1
) -> UInt8[np.ndarray, "b s s 3"]:
    """One augmentation of every image.

    Args:
        images: pixels in [0, 255].
        rngs: a generator an image, which alone decides what is done to it.
        workers: threads; they change nothing.
    """
    with ThreadPoolExecutor(workers, thread_name_prefix="autoaugment") as pool:
        return np.stack(list(pool.map(_augmented, images, rngs)))


def _augmented(
    pixels: UInt8[np.ndarray, "s s 3"], rng: np.random.Generator
) -> UInt8[np.ndarray, "s s 3"]:
    image = Image.fromarray(pixels)
    for step in POLICY[rng.integers(len(POLICY))]:
        happens, turned = rng.random() < step.probability, bool(rng.integers(2))
        if happens:
            image = OPERATIONS[step.name](image, step.magnitude, turned)
    return np.asarray(image)
