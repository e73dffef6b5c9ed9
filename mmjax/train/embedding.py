"""What a batch becomes before its loss: embeddings of pairs and of their augmentations."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Float

from mmjax.core.keys import stream
from mmjax.models.clip import Towers
from mmjax.train.accumulation import in_parts
from mmjax.train.augment import augment
from mmjax.train.config import TrainConfig

PyTree = Any
Batch = Mapping[str, jax.Array]


class Embedded(NamedTuple):
    """Unit-norm embeddings of a batch, and the inverse temperature.

    Fields:
        image: v = 1 view of every image, or 2, its augmentation behind it.
        texts: k captions of every image, and their rewordings behind them if there are any.
        scale: the inverse temperature itself.
    """

    image: Float[Array, "b v d"]
    texts: Float[Array, "b t d"]
    scale: Float[Array, ""]


EmbedBatch = Callable[[PyTree, PyTree, Batch, jax.Array], tuple[PyTree, Embedded]]


def make_embed(towers: Towers, config: TrainConfig, mesh: Mesh) -> EmbedBatch:
    """Make `embed(params, batch_stats, batch, key) -> (batch_stats, Embedded)`.

    A batch holds `images` (uint8 [b, s, s, 3]) and `tokens` (int32 [b, k, l]), and may hold
    `image_views` and `token_views` of the same shapes. `config.augment` changes the images, not
    their views. BatchNorm sees images and views together, as in CleanCLIP.
    """

    def embed_batch(
        params: PyTree, batch_stats: PyTree, batch: Batch, key: jax.Array
    ) -> tuple[PyTree, Embedded]:
        images = augment(batch["images"], config.augment, key=stream(key, "augment"))[:, None]
        tokens = batch["tokens"]
        if "image_views" in batch:
            images = jnp.concatenate([images, batch["image_views"][:, None]], axis=1)
            tokens = jnp.concatenate([tokens, batch["token_views"]], axis=1)

        def embed(stats: PyTree, rows: Mapping[str, jax.Array]) -> tuple[PyTree, Any]:
            variables = {"params": params, "batch_stats": stats}
            images, tokens = rows["images"], rows["tokens"]
            (count, views), size = images.shape[:2], images.shape[2:]
            image, text, _, stats = towers.train_forward(
                variables,
                images.reshape(-1, *size),
                tokens[:, :views].reshape(-1, tokens.shape[-1]),
            )
            others = [
                towers.encode_text(variables, tokens[:, place])[:, None]
                for place in range(views, tokens.shape[1])
            ]
            texts = jnp.concatenate([text.reshape(count, views, -1), *others], axis=1)
            return stats, (image.reshape(count, views, -1), texts)

        batch_stats, (image, texts) = in_parts(
            embed,
            batch_stats,
            {"images": images, "tokens": tokens},
            parts=config.accumulate,
            mesh=mesh,
        )
        scale = towers.logit_scale({"params": params, "batch_stats": batch_stats})
        return batch_stats, Embedded(image, texts, scale)

    return embed_batch
