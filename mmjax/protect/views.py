"""What a picture goes through before a model sees it, drawn at random, differentiable."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from mmjax.ops.images import crop_resize
from mmjax.ops.jpeg import jpeg
from mmjax.protect.config import ViewConfig

BEST_JPEG = 95
_LUMA = (0.299, 0.587, 0.114)

Pixels = Float[Array, "b h w 3"]


def draw_view(pixels: Pixels, config: ViewConfig, *, key: Key[Array, ""]) -> Pixels:
    """The batch as it is, or through one of the changes that are switched on, equally likely.

    Crops are drawn for each image, quality for the batch.

    Args:
        pixels: in [0, 255].
        config: which changes.
        key: of this step.
    """
    which, how = jax.random.split(key)
    changes: list[Callable[[Pixels], Pixels]] = [lambda seen: seen]
    if config.crop < 1:
        changes.append(lambda seen: _cropped(seen, config.crop, how))
    if config.jpeg:
        changes.append(lambda seen: _saved(seen, config.jpeg, how))
    if config.grey:
        changes.append(grey)
    if len(changes) == 1:
        return pixels
    return jax.lax.switch(jax.random.randint(which, (), 0, len(changes)), changes, pixels)


def grey(pixels: Pixels) -> Pixels:
    """Luma (ITU-R BT.601) in all three channels, not rounded."""
    weights = jnp.broadcast_to(jnp.asarray(_LUMA, pixels.dtype)[:, None], (3, 3))
    return jnp.einsum("bhwc,cd->bhwd", pixels, weights, precision=jax.lax.Precision.HIGHEST)


def _cropped(pixels: Pixels, area: float, key: Key[Array, ""]) -> Pixels:
    height, width = pixels.shape[1:3]
    size, place = jax.random.split(key)
    side = jnp.sqrt(jax.random.uniform(size, (len(pixels), 1), minval=area, maxval=1.0))
    start = jax.random.uniform(place, (len(pixels), 2)) * (1 - side)
    box = jnp.concatenate([start, start + side], axis=1)
    scale = jnp.asarray([height, width, height, width], jnp.float32)[None]
    return crop_resize(pixels, box * scale, height, width)


def _saved(pixels: Pixels, lowest: int, key: Key[Array, ""]) -> Pixels:
    return jpeg(pixels, jax.random.randint(key, (), lowest, BEST_JPEG + 1))
