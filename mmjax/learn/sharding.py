"""Where a run's arrays live on the mesh: batches split over `data`, the state on every device."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from mmjax.core.errors import ConfigError
from mmjax.core.mesh import DATA, batch_sharding, replicated

PyTree = Any


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


def put_replicated(tree: PyTree, mesh: Mesh) -> PyTree:
    """Copy a tree of arrays to every device of the mesh; the originals stay usable.

    Placement alone aliases a buffer that already lies on one of the devices (`may_alias=False`
    notwithstanding), and a step donates its state: hence the explicit copy.
    """
    everywhere = replicated(mesh)
    return jax.tree.map(lambda leaf: jax.device_put(jnp.copy(leaf), everywhere), tree)
