"""Where a run's arrays live on the mesh: batches split over `data`, the state by a rule table."""

import re
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from mmjax.core.errors import ConfigError
from mmjax.core.mesh import DATA, batch_sharding, replicated

PyTree = Any
Rules = Sequence[tuple[str, PartitionSpec]]
"""(pattern, spec) by priority: the first pattern that is found in an array's path decides."""


def put_batch(batch: PyTree, mesh: Mesh) -> PyTree:
    """Place host arrays on the mesh, their first axis split over `data`.

    Args:
        batch: NumPy arrays that share the first axis: the rows of the global batch that this
            process feeds (all of them when there is one process).
        mesh: mesh with an axis `data`.

    Raises:
        ConfigError: the rows do not divide evenly among this process's devices.
    """
    sharding = batch_sharding(mesh)
    shards = max(1, mesh.shape[DATA] // jax.process_count())

    def put(array: np.ndarray) -> jax.Array:
        if array.shape[0] % shards:
            raise ConfigError(
                f"a batch of {array.shape[0]} rows does not divide among {shards} devices; "
                "choose a batch_size that is a multiple of mesh.data"
            )
        return jax.make_array_from_process_local_data(sharding, array)

    return jax.tree.map(put, batch)


def own_rows(batch: PyTree) -> PyTree:
    """Of arrays that share the first axis, the rows that this process feeds (`put_batch`)."""
    number, count = jax.process_index(), jax.process_count()

    def part(array: np.ndarray) -> np.ndarray:
        rows = array.shape[0]
        return array[number * rows // count : (number + 1) * rows // count]

    return jax.tree.map(part, batch)


def shardings(tree: PyTree, mesh: Mesh | AbstractMesh, rules: Rules = ()) -> PyTree:
    """The sharding of every array of `tree`; an array that no rule names is on every device.

    Paths look like `opt_state/0/mu/visual/patch/kernel`: an optimizer's copies of a parameter end
    in the parameter's own path, so a pattern that ends in `$` places them all alike. An axis that
    does not divide its dimension is left out.

    Raises:
        ConfigError: a rule's spec is longer than the array has dimensions.
    """

    def of(path: Any, leaf: Any) -> NamedSharding:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        spec = next((spec for pattern, spec in rules if re.search(pattern, name)), PartitionSpec())
        if len(spec) > len(leaf.shape):
            raise ConfigError(f"{name} has shape {list(leaf.shape)}; no {spec} for it")
        fits = (
            axis if axis is None or size % mesh.shape[axis] == 0 else None
            for axis, size in zip(spec, leaf.shape, strict=False)
        )
        return NamedSharding(mesh, PartitionSpec(*fits))

    return jax.tree_util.tree_map_with_path(of, tree)


def without(rules: Rules, axis: str) -> Rules:
    """The rules with one mesh axis taken out: arrays are whole along it."""
    return [
        (pattern, PartitionSpec(*(None if name == axis else name for name in spec)))
        for pattern, spec in rules
    ]


def put_state(tree: PyTree, mesh: Mesh, rules: Rules = ()) -> PyTree:
    """Copy a tree of arrays to the mesh as `shardings` says; the originals stay usable.

    Placement alone aliases a buffer that already lies on one of the devices (`may_alias=False`
    notwithstanding), and a step donates its state: hence the explicit copy, on the host, where
    nothing is to be compiled for it. Every process gives the same values.
    """

    def put(leaf: Any, at: NamedSharding) -> jax.Array:
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            words = put(jax.random.key_data(leaf), at)
            return jax.random.wrap_key_data(words, impl=jax.random.key_impl(leaf))
        return jax.device_put(np.array(leaf), at)

    return jax.tree.map(put, tree, shardings(tree, mesh, rules))


def gather(tree: PyTree, mesh: Mesh) -> PyTree:
    """NumPy arrays of the whole values, in every process, however they are sharded."""
    if jax.process_count() == 1:
        return jax.tree.map(np.asarray, tree)
    whole = jax.jit(lambda arrays: arrays, out_shardings=replicated(mesh))(tree)
    return jax.tree.map(np.asarray, whole)
