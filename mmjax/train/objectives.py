"""What a CLIP training run minimises: a table of makers of loss functions."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Float

from mmjax.core.keys import stream
from mmjax.learn.step import LossFn
from mmjax.models.clip import MAX_SCALE, Towers
from mmjax.ops.contrastive import sharded_info_nce
from mmjax.train.accumulation import in_parts
from mmjax.train.augment import augment
from mmjax.train.config import TrainConfig

PyTree = Any


class Embedded(NamedTuple):
    """Unit-norm embeddings of a batch: one row an image, k captions each."""

    image: Float[Array, "b d"]
    texts: Float[Array, "b k d"]


Objective = Callable[[Towers, TrainConfig, Mesh], LossFn]


def clip(towers: Towers, config: TrainConfig, mesh: Mesh) -> LossFn:
    """CLIP's loss: symmetric InfoNCE over the global batch, however many parts embed it.

    A batch holds `images` (uint8 [b, s, s, 3]) and `tokens` (int32 [b, k, l]): k captions of every
    image. The loss is the mean of k InfoNCE terms that share the image embeddings, which cost much
    more than captions do.
    """

    def loss_fn(
        params: PyTree, batch_stats: PyTree, batch: Mapping[str, jax.Array], key: jax.Array
    ) -> tuple[jax.Array, tuple[PyTree, dict[str, jax.Array]]]:
        images = augment(batch["images"], config.augment, key=stream(key, "augment"))
        pairs = {"images": images, "tokens": batch["tokens"]}

        def embed(stats: PyTree, pairs: Mapping[str, jax.Array]) -> tuple[PyTree, Embedded]:
            variables = {"params": params, "batch_stats": stats}
            first, *others = jnp.unstack(pairs["tokens"], axis=1)
            image, text, _, stats = towers.train_forward(variables, pairs["images"], first)
            texts = [text, *(towers.encode_text(variables, tokens) for tokens in others)]
            return stats, Embedded(image, jnp.stack(texts, axis=1))

        batch_stats, (image, texts) = in_parts(
            embed, batch_stats, pairs, parts=config.accumulate, mesh=mesh
        )
        scale = towers.logit_scale({"params": params, "batch_stats": batch_stats})
        losses = [
            sharded_info_nce(image, text, scale, mesh=mesh, chunk=config.loss_chunk)
            for text in jnp.unstack(texts, axis=1)
        ]
        return jnp.mean(jnp.stack(losses)), (batch_stats, {"scale": scale})

    return loss_fn


OBJECTIVES: dict[str, Objective] = {"clip": clip}
"""Makers of loss functions by the name in `TrainConfig.objective`."""


def clamp_scale(params: PyTree) -> PyTree:
    """Keep the log of the inverse temperature in [0, ln 100], as CLIP does after every step.

    The forward pass bounds the scale too, but there a parameter beyond the bound has no gradient
    and would never come back.
    """
    bounded = jnp.clip(params["log_scale"], 0, jnp.log(MAX_SCALE))
    return {**params, "log_scale": bounded}
