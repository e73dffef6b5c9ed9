"""Captions of scenes: templates with synonyms that mention a varying part of what is seen."""

from typing import Final, NamedTuple

import numpy as np

NOUNS: Final[dict[str, tuple[str, ...]]] = {
    "boat": ("boat", "sailboat", "sailing boat"),
    "car": ("car", "automobile"),
    "cat": ("cat", "kitty"),
    "cup": ("cup", "mug"),
    "flower": ("flower", "blossom"),
    "hat": ("hat", "top hat"),
    "house": ("house", "cottage"),
    "ice cream": ("ice cream", "ice cream cone"),
    "lamp": ("lamp", "table lamp"),
    "moon": ("moon", "crescent moon"),
    "mushroom": ("mushroom", "toadstool"),
    "rabbit": ("rabbit", "bunny"),
    "rocket": ("rocket", "spaceship"),
}
"""Synonyms of the classes that have some; the others are called by their name."""

SIZE_WORDS: Final[dict[str, tuple[str, ...]]] = {
    "small": ("small", "little", "tiny"),
    "medium": ("", "", "medium-sized"),
    "large": ("large", "big", "huge"),
}

PLACE_WORDS: Final[dict[str, tuple[str, ...]]] = {
    "centre": ("in the middle", "in the centre", "at the center"),
    "left": ("on the left", "on the left side", "at the left"),
    "right": ("on the right", "on the right side", "at the right"),
    "top": ("at the top", "near the top", "up high"),
    "bottom": ("at the bottom", "near the bottom", "down low"),
    "top left": ("in the top left corner", "in the upper left"),
    "top right": ("in the top right corner", "in the upper right"),
    "bottom left": ("in the bottom left corner", "in the lower left"),
    "bottom right": ("in the bottom right corner", "in the lower right"),
}

ONE_OBJECT: Final = (
    "{a_thing} {place} over {a_ground}",
    "{a_thing} {place}",
    "{a_thing} on {a_ground}",
    "{a_thing}",
    "photo of {a_thing}",
    "a photo of {a_thing} {place}",
    "a picture of {a_thing} against {a_ground}",
    "there is {a_thing} {place}",
    "{place} there is {a_thing}",
    "{a_ground} with {a_thing} {place}",
    "an image showing {a_thing} in front of {a_ground}",
    "we can see {a_thing} {place}, behind it {a_ground}",
    "a drawing of {a_thing}",
    "this is {a_thing} placed {place}",
    "one {thing} {place} and {a_ground}",
    "{a_quality} {medium} of {a_thing}",
    "{a_quality} {medium} of the {thing}",
    "{a_quality} {medium} of {a_thing} {place}",
    "this {medium} of {a_thing} is {quality}",
    "my {medium} of {a_thing}",
    "here is the {thing}",
    "{a_thing} in {a_quality} {medium}",
    "a {medium} that shows {a_thing}",
)
QUALITIES: Final = (
    "good", "bad", "nice", "plain", "old", "new", "sharp", "blurred", "grainy", "noisy", "faded",
    "bright", "dark", "clean", "dirty", "funny", "strange", "cropped", "simple", "close",
)  # fmt: skip
MEDIA: Final = ("photo", "picture", "image", "snapshot", "photograph", "painting", "sketch", "view")
"""Words that say nothing of what is shown, as captions are full of."""

ASIDES: Final = (
    "taken with flash", "taken from above", "taken from behind", "taken last year",
    "seen from the side", "seen from below", "seen from far away", "in daylight", "in soft light",
    "at night", "in the rain", "indoors", "outdoors", "with strong contrast", "with low contrast",
    "with a frame", "without a frame", "that is partly hidden", "that is easy to make out",
    "that is hard to make out", "that is hard to see", "on a computer screen", "on a postcard",
    "on an old poster", "made of paper", "made of wood", "from my album", "for sale", "for you",
    "as we know it",
)  # fmt: skip
"""Ends of captions that say nothing of what is shown either; true or not, as on the web."""
ASIDE: Final = 0.25
"""Share of captions with one."""

TWO_OBJECTS: Final = (
    "{a_thing} and {another}",
    "{a_thing} {relation} {another}",
    "{a_thing} {relation} {another} over {a_ground}",
    "photo of {a_thing} and {another}",
    "a picture of {a_thing} with {another} on {a_ground}",
    "there are two things, {a_thing} and {another}",
    "{a_ground} behind {a_thing} and {another}",
    "{another} together with {a_thing}",
    "{a_thing} is {relation} {another}",
)
RELATIONS: Final[dict[tuple[str, str], tuple[str, ...]]] = {
    ("left", "right"): ("next to", "beside", "to the left of"),
    ("right", "left"): ("next to", "beside", "to the right of"),
    ("top", "bottom"): ("above", "on top of", "over"),
    ("bottom", "top"): ("below", "under", "beneath"),
}
"""What the first object's place is to the second's."""

GROUND_NOUNS: Final = ("background", "backdrop", "wall", "surface")


class SceneObject(NamedTuple):
    """One object of a scene: a key of `DRAWINGS`, and words of the tables for the rest."""

    name: str
    colour: str
    size: str
    place: str


def _choose(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    return options[int(rng.random() * len(options))]


def _with_article(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def _describe(thing: SceneObject, rng: np.random.Generator) -> str:
    """The object with or without its size (5 of 10) and its colour (5 of 10)."""
    size = _choose(rng, SIZE_WORDS[thing.size]) if rng.random() < 0.5 else ""
    colour = thing.colour if rng.random() < 0.5 else ""
    noun = _choose(rng, NOUNS.get(thing.name, (thing.name,)))
    return " ".join(word for word in (size, colour, noun) if word)


def write_caption(things: tuple[SceneObject, ...], ground: str, rng: np.random.Generator) -> str:
    """Writes one caption.

    Args:
        things: the scene's one or two objects.
        ground: words for the background, without article or noun ("striped green").
        rng: source of every choice.

    Returns:
        Lower-case English of 2 to about 25 words that names every object.
    """
    first = _describe(things[0], rng)
    quality = _choose(rng, QUALITIES)
    words = {
        "quality": quality,
        "a_quality": _with_article(quality),
        "medium": _choose(rng, MEDIA),
        "thing": first,
        "a_thing": _with_article(first),
        "place": _choose(rng, PLACE_WORDS[things[0].place]),
        "a_ground": _with_article(f"{ground} {_choose(rng, GROUND_NOUNS)}"),
    }
    if len(things) == 1:
        caption = _choose(rng, ONE_OBJECT).format(**words)
    else:
        words["another"] = _with_article(_describe(things[1], rng))
        words["relation"] = _choose(rng, RELATIONS[things[0].place, things[1].place])
        caption = _choose(rng, TWO_OBJECTS).format(**words)
    return f"{caption} {_choose(rng, ASIDES)}" if rng.random() < ASIDE else caption
