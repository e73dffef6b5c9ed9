"""Whose image a poisoned pair shows: its own, or one of another class."""

from collections.abc import Callable
from typing import NamedTuple


class ImageKind(NamedTuple):
    """An entry of `IMAGES`."""

    donors: Callable[[int], int]
    """Of so many victims, how many different images of the donor class are used at most."""
    source: str


IMAGES: dict[str, ImageKind] = {
    "own": ImageKind(lambda victims: 0, "the pair's own image"),
    "class": ImageKind(
        lambda victims: victims,
        "Yang et al. 2023 (mmPoison, arXiv:2209.15266), `generate_one_label`",
    ),
    "one": ImageKind(
        lambda victims: 1,
        "Yang et al. 2023 (mmPoison, arXiv:2209.15266), `generate_one`; "
        "Yang et al. 2023 (RoCLIP, arXiv:2303.06854)",
    ),
}
"""Every choice of a poisoned pair's image, by the name that a configuration gives it."""
