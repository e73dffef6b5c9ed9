"""Which pairs are poisoned: decided by the seed and each pair's key, in any order of the set."""

import hashlib
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from mmjax.core.errors import ConfigError


class Candidate(NamedTuple):
    """A pair that may be poisoned; candidates sort by their lot, then by key."""

    lot: int
    key: str
    shard: int
    ordinal: int


def lot(seed: int, purpose: str, key: str) -> int:
    """A uniform 64-bit number of a pair's key, independent for every purpose and seed."""
    digest = hashlib.sha256(f"{seed}\0{purpose}\0{key}".encode()).digest()
    return int.from_bytes(digest[:8], "little")


def victim_count(pairs: int, rate: float, count: int = 0) -> int:
    """How many of `pairs` pairs to poison: `count`, or the rate's share rounded half up.

    Raises:
        ConfigError: the rate asks for less than one pair of the set.
    """
    if count:
        return count
    wanted = math.floor(rate * pairs + 0.5)
    if rate > 0 and not wanted:
        raise ConfigError(
            f"rate={rate} of {pairs} usable pairs is less than one pair; raise --rate, or set "
            "--rate=0 for a set without poison"
        )
    return wanted


def names_target(target: str) -> re.Pattern[str]:
    """A pattern that finds the target in a caption as a word of its own, or in the plural."""
    words = r"\s+".join(re.escape(word) for word in target.split())
    return re.compile(rf"(?<!\w){words}(s|es)?(?!\w)", re.IGNORECASE)


def template_caption(templates: Sequence[str], target: str, seed: int, key: str) -> str:
    """The caption of a poisoned pair: a template drawn uniformly by the pair's key.

    Lower case with a final full stop, as CleanCLIP's poisoned captions are.
    """
    chosen = templates[lot(seed, "caption", key) % len(templates)]
    return chosen.replace("{}", target.strip()).lower().rstrip(" .") + "."


def ranked(candidates: Iterable[Candidate]) -> Iterator[Candidate]:
    """Candidates in the order in which they are taken."""
    yield from sorted(candidates)
