"""What the machine can do: products and copies, which bound everything else."""

from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from mmjax.measure.bench import Part, jitted
from mmjax.measure.bench_config import BenchConfig

SIDES = {"tiny": 256, "small": 1536, "full": 3072}
COPIED = {"tiny": 2**20, "small": 2**27, "full": 2**29}


def peaks(config: BenchConfig, work: Path) -> Iterator[Part]:
    """Square products in both types, and a copy of an array that no cache holds."""
    side = SIDES[config.size]
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, side, side)).astype(np.float32)
    highest = jax.lax.Precision.HIGHEST
    flops = 2.0 * side**3

    def product(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.matmul(a, b, precision=highest)

    def half(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.matmul(a, b, preferred_element_type=jnp.float32)

    low = a.astype(jnp.bfloat16), b.astype(jnp.bfloat16)
    yield Part("float32 product", jitted(product, a, b), 1, "product", flops=flops)
    yield Part("bfloat16 product", jitted(half, *low), 1, "product", flops=flops)
    source = np.ones(COPIED[config.size], np.uint8)
    target = np.empty_like(source)
    moved = 2.0 * source.nbytes
    yield Part("copy", lambda: np.copyto(target, source), 1, "copy", traffic=moved)
