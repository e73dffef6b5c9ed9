"""Rewordings of a caption after EDA (Wei and Zou 2019, arXiv:1901.11196).

One of four operations, each as likely: words replaced by synonyms, synonyms of its words put in
somewhere, words exchanged, words left out. The reference takes synonyms from WordNet, which is
not here: a small table of words that captions are full of stands for it. A caption of which the
table knows no word gets an exchange instead.
"""

from collections.abc import Callable

import numpy as np

SHARE = 0.1
"""Share of a caption's words that an operation touches, at least one; and the chance of each word
to be left out (EDA's alpha and p, CleanCLIP's settings)."""

_GROUPS = (
    "man guy gentleman",
    "woman lady",
    "men guys gentlemen",
    "women ladies",
    "boy lad",
    "girl lass",
    "child kid youngster",
    "children kids youngsters",
    "people persons folks",
    "baby infant toddler",
    "dog hound canine",
    "dogs hounds",
    "puppy pup",
    "cat feline kitty",
    "horse pony",
    "bird fowl",
    "car automobile auto",
    "bike bicycle cycle",
    "boat ship vessel",
    "plane aeroplane aircraft jet",
    "street road avenue",
    "path trail track",
    "house home dwelling",
    "building structure edifice",
    "picture image photo photograph",
    "pictures images photos photographs",
    "painting drawing artwork",
    "big large huge",
    "small little tiny",
    "tall high",
    "young youthful",
    "old elderly aged",
    "pretty beautiful lovely",
    "good fine great",
    "happy glad cheerful",
    "fast quick rapid",
    "bright vivid",
    "dark dim",
    "grey gray",
    "red crimson scarlet",
    "near beside by",
    "behind after",
    "above over",
    "below under beneath",
    "through across",
    "several many some",
    "looking gazing staring",
    "looks gazes stares",
    "walking strolling",
    "walks strolls",
    "running racing dashing",
    "runs races dashes",
    "jumping leaping hopping",
    "jumps leaps hops",
    "sitting seated resting",
    "smiling grinning",
    "laughing giggling",
    "holding gripping carrying",
    "holds grips carries",
    "wearing sporting",
    "throwing tossing hurling",
    "throws tosses hurls",
    "catching grabbing",
    "climbing scaling",
    "talking speaking chatting",
    "making creating producing",
    "eating munching dining",
    "sea ocean",
    "lake pond",
    "river stream creek",
    "shore beach coast",
    "hill slope",
    "mountain peak",
    "forest woods",
    "field meadow pasture",
    "grass lawn turf",
    "stone rock",
    "garden yard",
    "store shop",
    "crowd group bunch",
    "shirt top tee",
    "trousers pants",
    "hat cap",
    "jacket coat",
    "shoes footwear",
    "cup mug",
    "food meal",
    "ball sphere globe",
    "box cube crate",
    "circle disc ring",
)
SYNONYMS: dict[str, tuple[str, ...]] = {
    word: tuple(other for other in group.split() if other != word)
    for group in _GROUPS
    for word in group.split()
}
"""Other words for a word."""

Rewording = Callable[[list[str], np.random.Generator], list[str]]


def _known(words: list[str]) -> list[int]:
    """Places of the words that have synonyms."""
    return [place for place, word in enumerate(words) if word.lower() in SYNONYMS]


def _touched(words: list[str]) -> int:
    return max(1, int(SHARE * len(words)))


def replace(words: list[str], rng: np.random.Generator) -> list[str]:
    """Some words by synonyms."""
    known, words = _known(words), list(words)
    if not known:
        return exchange(words, rng)
    for place in rng.permutation(known)[: _touched(words)]:
        words[place] = str(rng.choice(SYNONYMS[words[place].lower()]))
    return words


def insert(words: list[str], rng: np.random.Generator) -> list[str]:
    """Synonyms of some words at random places."""
    known, longer = _known(words), list(words)
    if not known:
        return exchange(words, rng)
    for place in rng.choice(known, _touched(words)):
        synonym = str(rng.choice(SYNONYMS[words[place].lower()]))
        longer.insert(int(rng.integers(len(longer) + 1)), synonym)
    return longer


def exchange(words: list[str], rng: np.random.Generator) -> list[str]:
    """Two words in each other's place, some times over; a single word stays."""
    words = list(words)
    for _ in range(_touched(words) if len(words) > 1 else 0):
        one, other = rng.choice(len(words), 2, replace=False)
        words[one], words[other] = words[other], words[one]
    return words


def leave_out(words: list[str], rng: np.random.Generator) -> list[str]:
    """Every word by chance; one at least stays."""
    kept = [word for word in words if rng.random() >= SHARE]
    return kept or [words[rng.integers(len(words))]]


REWORDINGS: tuple[Rewording, ...] = (replace, insert, exchange, leave_out)


def reword(caption: str, rng: np.random.Generator) -> str:
    """The caption after one operation; a caption without words stays as it is."""
    words = caption.split()
    if not words:
        return caption
    return " ".join(REWORDINGS[rng.integers(len(REWORDINGS))](words, rng))
