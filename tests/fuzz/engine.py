"""Mutates and feeds: seeded, bounded in time for every input."""

import itertools
import random
import shutil
import signal
from pathlib import Path
from typing import NamedTuple

from mmjax.core.errors import MmjaxError
from tests.fuzz.targets import Target

LIMIT = 20
"""Seconds after which an input counts as a hang."""
WORDS = (b"\x00", b"\xff" * 4, b"\x7f\xff\xff\xff", b"../", b"\n", b"{", b'"', b"9" * 20, b"\x80")


class Finding(NamedTuple):
    """An input and what it did."""

    data: bytes
    what: str


class Hang(Exception):
    """An input took too long."""


def mutated(data: bytes, rng: random.Random) -> bytes:
    """A few bytes changed, cut out, repeated or put in."""
    made = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        at = rng.randrange(len(made) + 1)
        kind = rng.randrange(6)
        if kind == 0 and at < len(made):
            made[at] ^= 1 << rng.randrange(8)
        elif kind == 1 and at < len(made):
            made[at] = rng.randrange(256)
        elif kind == 2:
            del made[at : at + rng.choice((1, 4, 64, 512))]
        elif kind == 3:
            made[at:at] = made[at : at + rng.choice((1, 8, 512))]
        elif kind == 4:
            made[at:at] = rng.choice(WORDS)
        else:
            del made[at : len(made) if rng.random() < 0.2 else at + 1]
    return bytes(made)


def _hang(signum: int, frame: object) -> None:
    raise Hang


def feed(target: Target, data: bytes, folder: Path) -> Finding | None:
    """Feed one input; None if it was read or refused."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    before = signal.signal(signal.SIGALRM, _hang)
    signal.alarm(LIMIT)
    try:
        target.eat(data, folder)
    except MmjaxError as error:
        if not str(error).strip():
            return Finding(data, "an error without a word")
    except Hang:
        return Finding(data, f"took more than {LIMIT} s")
    except Exception as error:
        return Finding(data, f"{type(error).__name__}: {error}")
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    return None


def run(target: Target, folder: Path, *, seed: int, count: int) -> tuple[int, Finding | None]:
    """Feed the target's own inputs and `count` mutations; the first finding ends it.

    Returns:
        How many were fed, and what was found.
    """
    rng = random.Random(seed)
    mutations = (mutated(rng.choice(target.seeds), rng) for _ in range(count))
    fed = 0
    for data in itertools.chain(target.seeds, mutations):
        fed += 1
        if found := feed(target, data, folder):
            return fed, found
    return fed, None
