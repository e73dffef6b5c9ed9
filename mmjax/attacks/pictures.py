"""Whose image a poisoned pair shows: its own, or one of another class.

A class is what captions name. Captions stay where they are, so their multiset does, and a donor's
own pairs stay too. Every image of the class is used as often as the others, give or take one.
Each pair is a victim of its own; the reference, whose rows hold an image with all its captions,
moves those together.
"""

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
