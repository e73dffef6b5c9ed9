"""A batch embedded part by part under one loss over all of it (GradCache, arXiv:2101.06983).

The forward pass embeds the parts one after the other and keeps their embeddings alone; the loss
sees the whole batch; the backward pass embeds each part again and adds up the parameters'
gradients. Cost: a second forward pass; activations of one part at a time.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mmjax.core.mesh import DATA

PyTree = Any
Embed = Callable[[PyTree, PyTree], tuple[PyTree, PyTree]]


def in_parts(
    embed: Embed, carry: PyTree, rows: PyTree, *, parts: int, mesh: Mesh
) -> tuple[PyTree, PyTree]:
    """`embed(carry, rows)` in `parts` turns, each with the same share of every device's rows.

    Args:
        embed: `(carry, rows) -> (carry, embeddings)`, row by row the same whatever rows are beside
            it, but for batch statistics: BatchNorm sees one part, over all devices, at a time.
        carry: what a part hands to the next (batch statistics).
        rows: arrays that share the first axis, a multiple of `parts` times the axis `data`.
        parts: 1 embeds all at once and keeps the activations.
        mesh: rows are split over its axis `data`, before and after.
    """
    if parts == 1:
        return embed(carry, rows)
    devices = mesh.shape[DATA]
    turns = NamedSharding(mesh, PartitionSpec(None, DATA))

    def split(array: jax.Array) -> jax.Array:
        rest = array.shape[1:]
        by_device = array.reshape(devices, parts, -1, *rest).swapaxes(0, 1)
        return lax.with_sharding_constraint(by_device.reshape(parts, -1, *rest), turns)

    def join(array: jax.Array) -> jax.Array:
        rest = array.shape[2:]
        by_device = array.reshape(parts, devices, -1, *rest).swapaxes(0, 1)
        whole = by_device.reshape(-1, *rest)
        return lax.with_sharding_constraint(whole, NamedSharding(mesh, PartitionSpec(DATA)))

    again = jax.checkpoint(embed, prevent_cse=False)  # a scan keeps its passes apart by itself
    carry, embeddings = lax.scan(again, carry, jax.tree.map(split, rows))
    return carry, jax.tree.map(join, embeddings)
