"""Exact nearest neighbours and neighbour counts by cosine, for sets of any size.

    nearest(q)      = the k keys of the largest <q, t>
    count_above(q)  = |{t : <q, t> > tau}| for each tau

Products are formed a block of queries by a block of keys at a time and folded at once, so that
memory is O((q + n) d + q k) and never q x n; cost 2 q n d FLOP. Over a mesh, queries and keys are
split over `data` and the keys go round the ring of devices: one collective-permute a hop, n d
values through each link in all. The blocks are cut the same whatever the number of devices, and
folding does not depend on their order: the same answer, bit by bit, on any mesh.

`mmjax bench neighbours` compares the speed with that of a bare matrix product
(docs/results/performance.md).
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding
from jaxtyping import Array, Bool, Float, Int

from mmjax.core.mesh import DATA

Fold = Callable[[Any, Array, Array], Any]


class Neighbours(NamedTuple):
    """The k nearest keys of every query, nearest first, a tie going to the lower row.

    Where there are fewer than k keys, `rows` is -1 and `cosine` -inf.
    """

    rows: Int[Array, "q k"]
    cosine: Float[Array, "q k"]


class Blocks(NamedTuple):
    """Largest blocks of queries and of keys whose products are held at a time."""

    queries: int = 512
    keys: int = 32768


USUAL = Blocks()


class Keys(NamedTuple):
    """Keys in blocks, padded with zeros that are not `valid`, as `place` lays them out."""

    rows: Float[Array, "blocks size d"]
    valid: Bool[Array, "blocks size"]


def place(
    keys: Float[np.ndarray, "n d"],
    valid: Bool[np.ndarray, " n"] | None = None,
    *,
    blocks: Blocks = USUAL,
    mesh: Mesh | None = None,
) -> Keys:
    """Keys where they are searched: every device of the mesh holds its part, and only that.

    For many searches in the same keys, or keys that are too many for one device.

    Args:
        keys: as in `nearest`, on the host.
        valid: as in `nearest`.
        blocks: those of the searches.
        mesh: that of the searches.
    """
    n, devices = keys.shape[0], 1 if mesh is None else mesh.shape[DATA]
    number, size = _layout(n, blocks.keys, devices)
    where = SingleDeviceSharding(jax.local_devices()[0])
    if mesh is not None:
        where = NamedSharding(mesh, PartitionSpec(DATA))

    def spread(values: np.ndarray) -> Array:
        def part(index: tuple[slice, ...] | None) -> np.ndarray:
            low, high, _ = (index or (slice(None),))[0].indices(number)
            here = values[low * size : high * size]
            shape = (high - low, size, *values.shape[1:])
            missing = (high - low) * size - here.shape[0]
            if missing:
                here = np.pad(here, [(0, missing)] + [(0, 0)] * (here.ndim - 1))
            return here.reshape(shape)

        return jax.make_array_from_callback((number, size, *values.shape[1:]), where, part)

    return Keys(spread(keys), spread(np.ones(n, bool) if valid is None else valid))


@partial(jax.jit, static_argnames=("k", "blocks", "mesh"))
def nearest(
    queries: Float[Array, "q d"],
    keys: Float[Array, "n d"] | Keys,
    own: Int[Array, " q"] | None = None,
    valid: Bool[Array, " n"] | None = None,
    *,
    k: int,
    blocks: Blocks = USUAL,
    mesh: Mesh | None = None,
) -> Neighbours:
    """The k keys of the largest cosine to each query.

    Args:
        queries: unit-norm rows; half precision is widened block by block.
        keys: unit-norm rows, or what `place` made of them for the same blocks and mesh.
        own: the row of each query among the keys, which is then no neighbour of it; -1 for none.
        valid: keys that count; None = all, or as `place` was told.
        k: how many, >= 1.
        blocks: sizes; they may change the last bit of a cosine.
        mesh: splits the work over its axis `data`; None = one device.
    """
    placed = _placed(keys, valid, blocks, mesh)
    once = placed.valid.shape[0] == 1

    def fold(best: tuple[Array, Array], cosine: Array, first: Array) -> tuple[Array, Array]:
        found = min(k, cosine.shape[1])
        values, at = _top(cosine, found)
        rows = jnp.where(values > -jnp.inf, first + at, -1)
        if once:  # nothing to merge with
            return best[0].at[:, :found].set(-values), best[1].at[:, :found].set(rows)
        # blocks arrive in the order of the ring: ties are settled by the row, not by the order
        both = jnp.concatenate([best[0], -values], 1), jnp.concatenate([best[1], rows], 1)
        distance, rows = lax.sort(both, dimension=1, num_keys=2)
        return distance[:, :k], rows[:, :k]

    shape = (queries.shape[0], k)
    empty = jnp.full(shape, jnp.inf, jnp.float32), jnp.full(shape, -1, jnp.int32)
    distance, rows = _sweep(fold, empty, queries, placed, own, blocks, mesh)
    return Neighbours(rows, -distance)


@partial(jax.jit, static_argnames=("blocks", "mesh"))
def count_above(
    queries: Float[Array, "q d"],
    keys: Float[Array, "n d"] | Keys,
    thresholds: Float[Array, " t"],
    own: Int[Array, " q"] | None = None,
    valid: Bool[Array, " n"] | None = None,
    *,
    blocks: Blocks = USUAL,
    mesh: Mesh | None = None,
) -> Int[Array, "q t"]:
    """How many keys have a larger cosine to each query than each threshold.

    Args:
        queries: as in `nearest`.
        keys: as in `nearest`.
        thresholds: cosines.
        own: as in `nearest`.
        valid: as in `nearest`.
        blocks: as in `nearest`.
        mesh: as in `nearest`.
    """

    def fold(counts: Array, cosine: Array, first: Array) -> Array:
        del first
        return counts + jnp.sum(cosine[:, None, :] > thresholds[None, :, None], axis=2, dtype="i4")

    empty = jnp.zeros((queries.shape[0], thresholds.shape[0]), jnp.int32)
    placed = _placed(keys, valid, blocks, mesh)
    return _sweep(fold, empty, queries, placed, own, blocks, mesh)


def _sweep(
    fold: Fold,
    empty: Any,
    queries: Float[Array, "q d"],
    placed: Keys,
    own: Int[Array, " q"] | None,
    blocks: Blocks,
    mesh: Mesh | None,
) -> Any:
    """Fold the products of every block of queries with every block of keys, from `empty`."""
    q = queries.shape[0]
    devices = 1 if mesh is None else mesh.shape[DATA]
    keys, counts = placed
    columns = counts.shape[1]
    itself = jnp.full(q, -1, jnp.int32) if own is None else own.astype(jnp.int32)
    state = jax.tree.map(lambda x: _blocked(x, blocks.queries, devices), empty)
    queries = _blocked(queries, blocks.queries, devices)
    itself = _blocked(itself, blocks.queries, devices)

    def visit(state: Any, queries: Array, own: Array, keys: Array, valid: Array, hop: Array) -> Any:
        """All queries of this device against the keys that it holds now."""
        starts = (hop * keys.shape[0] + jnp.arange(keys.shape[0])) * columns

        def per_queries(given: tuple[Any, Array, Array]) -> Any:
            state, queries, own = given
            wide = queries.astype(jnp.float32)

            def per_keys(state: Any, given: tuple[Array, Array, Array]) -> tuple[Any, None]:
                keys, valid, start = given
                cosine = jnp.matmul(
                    wide, keys.astype(jnp.float32).T, precision=lax.Precision.HIGHEST
                )
                others = start + jnp.arange(columns)[None, :] != own[:, None]
                cosine = jnp.where(valid[None, :] & others, cosine, -jnp.inf)
                return fold(state, cosine, start), None

            return lax.scan(per_keys, state, (keys, valid, starts))[0]

        return lax.map(per_queries, (state, queries, own))

    if mesh is None:
        state = visit(state, queries, itself, keys, counts, jnp.int32(0))
    else:
        split = PartitionSpec(DATA)
        ring = [(device, (device - 1) % devices) for device in range(devices)]

        @partial(jax.shard_map, mesh=mesh, in_specs=split, out_specs=split)
        def body(state: Any, queries: Array, own: Array, keys: Array, valid: Array) -> Any:
            def hop(carry: Any, step: Array) -> tuple[Any, None]:
                state, keys, valid = carry
                # sent on before they are used, so that sending and multiplying may overlap
                passed = lax.ppermute((keys, valid), DATA, ring)
                owner = (lax.axis_index(DATA) + step) % devices
                return (visit(state, queries, own, keys, valid, owner), *passed), None

            return lax.scan(hop, (state, keys, valid), jnp.arange(devices))[0][0]

        state = body(state, queries, itself, keys, counts)
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:q], state)


def _placed(
    keys: Float[Array, "n d"] | Keys,
    valid: Bool[Array, " n"] | None,
    blocks: Blocks,
    mesh: Mesh | None,
) -> Keys:
    if isinstance(keys, Keys):
        if valid is not None:
            raise ValueError("`place` was told which keys are valid")
        return keys
    devices = 1 if mesh is None else mesh.shape[DATA]
    counts = jnp.ones(keys.shape[0], bool) if valid is None else valid
    return Keys(_blocked(keys, blocks.keys, devices), _blocked(counts, blocks.keys, devices))


def _layout(n: int, most: int, devices: int) -> tuple[int, int]:
    """Of n rows: the number of blocks, a multiple of the devices, and the rows of each."""
    size = max(min(most, n), 1)
    return max(-(-n // (size * devices)), 1) * devices, size


def _blocked(x: Array, most: int, devices: int) -> Array:
    """[n, ...] as [blocks, size, ...], padded with zeros.

    Zero is False for `valid`: padded keys are nobody's neighbours.
    """
    number, size = _layout(x.shape[0], most, devices)
    padding = [(0, number * size - x.shape[0])] + [(0, 0)] * (x.ndim - 1)
    return jnp.pad(x, padding).reshape(number, size, *x.shape[1:])


def _top(values: Float[Array, "q n"], k: int) -> tuple[Float[Array, "q k"], Int[Array, "q k"]]:
    """`lax.top_k` in two steps: the k groups of the largest maxima hold the k largest values.

    An element outside them has k others before it, one in each, also when ties go to the lower
    column. About sqrt(n / k) elements a group make n / group + k group the least.
    """
    q, n = values.shape
    group = 1 << max((n // k).bit_length() // 2, 1)
    if n % group or 2 * k * group > n:
        best, row = lax.top_k(values, k)
        return best, row
    grouped = values.reshape(q, n // group, group)
    chosen = jnp.sort(lax.top_k(jnp.max(grouped, axis=2), k)[1], axis=1)
    candidates = jnp.take_along_axis(grouped, chosen[:, :, None], axis=1).reshape(q, k * group)
    best, at = lax.top_k(candidates, k)
    row = jnp.take_along_axis(chosen, at // group, axis=1) * group + at % group
    return best, row
