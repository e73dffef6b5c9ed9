"""A pool of embeddings, first in, first out, and its nearest to a query (RoCLIP, NNCLR).

The pool is an array [slots, b, k, d]: a slot holds one batch. Split over the batch's axis it takes
a batch in where its rows already lie: nothing moves between devices. Cost of the nearest among n
entries to b queries: 2 b n d FLOPs and b n float32, both divided by the number of devices.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float, Int


@jax.jit
def put(
    pool: Float[Array, "s b k d"], batch: Float[Array, "b k d"], turn: Int[Array, ""]
) -> Float[Array, "s b k d"]:
    """The pool after its batch number `turn` (from 0) has taken the oldest one's place."""
    return pool.at[turn % pool.shape[0]].set(batch)


@jax.jit
def nearest_entries(
    queries: Float[Array, "b d"], pool: Float[Array, "s p k d"]
) -> Float[Array, "b d"]:
    """For every query the entry of the largest inner product; of equal ones any.

    Args:
        queries: unit-norm.
        pool: unit-norm.
    """
    return _best(queries, pool)[1]


@partial(jax.jit, static_argnames="mesh")
def sharded_nearest_entries(
    queries: Float[Array, "b d"], pool: Float[Array, "s p k d"], *, mesh: Mesh
) -> Float[Array, "b d"]:
    """`nearest_entries` of queries and a pool that are split over the mesh axis `data`.

    Every device finds the best of its own entries. Collectives: all-gathers of b x d and of b, a
    reduce-scatter of b x d.
    """
    split, by_row = PartitionSpec("data"), PartitionSpec(None, "data")

    @partial(jax.shard_map, mesh=mesh, in_specs=(split, by_row), out_specs=split)
    def body(queries: Float[Array, "r d"], pool: Float[Array, "s p k d"]) -> Float[Array, "r d"]:
        value, entry = _best(lax.all_gather(queries, "data", tiled=True), pool)
        winner = jnp.argmax(lax.all_gather(value, "data"), axis=0)
        won = winner == lax.axis_index("data")
        return lax.psum_scatter(jnp.where(won[:, None], entry, 0), "data", tiled=True)

    return body(queries, pool)


def _best(
    queries: Float[Array, "b d"], pool: Float[Array, "s p k d"]
) -> tuple[Float[Array, " b"], Float[Array, "b d"]]:
    entries = pool.reshape(-1, pool.shape[-1])
    products = jnp.matmul(queries, entries.T, precision=lax.Precision.HIGHEST)
    place = jnp.argmax(products, axis=1)
    return jnp.max(products, axis=1), entries[place]
