"""Which pairs are poisoned: decided by the seed and each pair alone, in any order of the set."""

import hashlib
import heapq
import math
import re
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from mmjax.core.errors import ConfigError


class Candidate(NamedTuple):
    """A pair that may be poisoned. Candidates are taken in ascending order."""

    lot: int
    shard: int
    ordinal: int
    attacks: int = 1
    """Bit i: whether the i-th attack of a mixture may take it."""


def identity(key: str, caption: str) -> str:
    """What a pair's draws depend on. Keys alone may repeat from shard to shard."""
    return f"{key}\0{caption}"


def lot(seed: int, purpose: str, identity: str) -> int:
    """A uniform 64-bit number of a pair, independent for every purpose and seed."""
    digest = hashlib.sha256(f"{seed}\0{purpose}\0{identity}".encode()).digest()
    return int.from_bytes(digest[:8], "little")


def victim_count(pairs: int, rate: float, count: int = 0) -> int:
    """How many of `pairs` pairs to poison: `count`, or the rate's part rounded half up.

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


def choose(
    candidates: Iterable[Candidate],
    count: int,
    usable: Callable[[Sequence[Candidate]], Sequence[bool]],
) -> list[Candidate]:
    """The first `count` usable candidates in ascending order, or all there are.

    Args:
        candidates: all of them, in any order.
        count: how many are wanted.
        usable: tells of some candidates whether each can be poisoned (its image decodes); asked
            only about those that may be taken.
    """
    waiting = list(candidates)
    heapq.heapify(waiting)
    taken: list[Candidate] = []
    while len(taken) < count and waiting:
        asked = [heapq.heappop(waiting) for _ in range(min(count - len(taken), len(waiting)))]
        answers = usable(asked)
        taken += [one for one, answer in zip(asked, answers, strict=True) if answer]
    return taken
