"""RoCLIP's pool of captions, which a run carries in its state."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Int

from mmjax.core.mesh import DATA
from mmjax.models.layers import unit_norm
from mmjax.train.config import TrainConfig

PyTree = Any

POOL_RULES = ((r"(^|/)captions$", PartitionSpec(None, DATA)),)
"""How the pool is split over the mesh (`learn.sharding`): as the batches that fill it."""


class Pooled(NamedTuple):
    """The model's state beside its parameters under RoCLIP.

    Fields:
        batch_stats: of a ResNet, else empty.
        captions: unit-norm embeddings of the last captions, a slot a batch.
        turn: batches that the pool has taken in.
    """

    batch_stats: PyTree
    captions: Float[Array, "s b k d"]
    turn: Int[Array, ""]


def first_state(config: TrainConfig, batch_stats: PyTree, width: int, *, key: jax.Array) -> PyTree:
    """The model's state before the first step: the statistics, under RoCLIP with a random pool.

    Args:
        config: of the run.
        batch_stats: of the initial model.
        width: of its embeddings.
        key: of the pool, random directions as in the reference.
    """
    if config.defence.name != "roclip":
        return batch_stats
    batch = config.batch_size, config.captions_per_image
    slots = math.ceil(config.defence.roclip.pool / math.prod(batch))
    noise = jax.random.normal(key, (slots, *batch, width))
    return Pooled(batch_stats, unit_norm(noise), jnp.zeros((), jnp.int32))


def statistics(model_state: PyTree) -> PyTree:
    """The batch statistics in a model's state."""
    return model_state.batch_stats if isinstance(model_state, Pooled) else model_state
