"""What a CLIP training run minimises: a table of makers of loss functions."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from mmjax.core.keys import stream
from mmjax.learn.step import LossFn
from mmjax.models.clip import MAX_SCALE, Towers
from mmjax.ops.contrastive import sharded_info_nce
from mmjax.train.augment import augment
from mmjax.train.config import TrainConfig

PyTree = Any
Objective = Callable[[Towers, TrainConfig, Mesh], LossFn]


def clip(towers: Towers, config: TrainConfig, mesh: Mesh) -> LossFn:
    """CLIP's loss: symmetric InfoNCE over the global batch.

    A batch holds `images` (uint8 [b, s, s, 3]) and `tokens` (int32 [b, k, l]): k captions of every
    image. The loss is the mean of k InfoNCE terms that share the image embeddings, which cost much
    more than captions do.
    """

    def loss_fn(
        params: PyTree, batch_stats: PyTree, batch: Mapping[str, jax.Array], key: jax.Array
    ) -> tuple[jax.Array, tuple[PyTree, dict[str, jax.Array]]]:
        variables = {"params": params, "batch_stats": batch_stats}
        images = augment(batch["images"], config.augment, key=stream(key, "augment"))
        tokens = batch["tokens"]
        image, text, scale, batch_stats = towers.train_forward(variables, images, tokens[:, 0])
        losses = [sharded_info_nce(image, text, scale, mesh=mesh)]
        for caption in range(1, tokens.shape[1]):
            text = towers.encode_text(variables, tokens[:, caption])
            losses.append(sharded_info_nce(image, text, scale, mesh=mesh))
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
