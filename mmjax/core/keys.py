"""Named streams of randomness: a stream depends on the seed and its names, never on call order."""

import hashlib

import jax
import numpy as np


def _number(name: str | int) -> int:
    """A stable 32-bit number of a name (Python's own `hash` differs between processes)."""
    return int.from_bytes(hashlib.sha256(str(name).encode()).digest()[:4], "little")


def stream(key: jax.Array, *names: str | int) -> jax.Array:
    """The key of a named stream, e.g. `stream(key, "victims", step)`."""
    for name in names:
        key = jax.random.fold_in(key, _number(name))
    return key


def host(seed: int, *names: str | int) -> np.random.Generator:
    """A NumPy generator for host-side draws, e.g. `host(0, "scenes", index)`."""
    return np.random.default_rng([seed, *map(_number, names)])
