"""Random crops, mirrorings and colours of a batch of images, on the device.

A crop, its resize back to full size and a mirroring are one separable linear map: each axis has a
matrix of bilinear weights from source to output pixels (rows sum to 1), so the whole is two small
products an image, 4 s^3 x 3 FLOPs, and no gather.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, UInt8

from mmjax.train.config import AugmentConfig


def resampling(
    start: Float[Array, " b"], length: Float[Array, " b"], size: int
) -> Float[Array, "b out in"]:
    """Bilinear weights that stretch the span [start, start + length) to `size` pixels.

    Args:
        start: left end of the span in pixels; pixel i covers [i, i + 1).
        length: length of the span in pixels, negative to mirror (start is then the right end).
        size: pixels of the input and of the output.
    """
    outputs = jnp.arange(size) + 0.5
    source = start[:, None] + outputs[None] * length[:, None] / size - 0.5
    source = jnp.clip(source, 0, size - 1)
    distance = jnp.abs(source[:, :, None] - jnp.arange(size)[None, None])
    return jnp.maximum(0, 1 - distance)


def augment(
    images: UInt8[Array, "b s s 3"], config: AugmentConfig, *, key: PRNGKeyArray
) -> UInt8[Array, "b s s 3"]:
    """Draw one random view of each image; `key` decides which."""
    if config == AugmentConfig():
        return images
    count, size = images.shape[:2]
    keys = jax.random.split(key, 6)
    area = jax.random.uniform(keys[0], (count,), minval=config.crop_area, maxval=1.0)
    widest = math.log(config.crop_aspect)
    aspect = jnp.exp(jax.random.uniform(keys[1], (count,), minval=-widest, maxval=widest) / 2)
    height = jnp.minimum(jnp.sqrt(area) / aspect, 1.0) * size
    width = jnp.minimum(jnp.sqrt(area) * aspect, 1.0) * size
    top, left = jax.random.uniform(keys[2], (2, count)) * (size - jnp.stack([height, width]))
    if config.flip:
        mirrored = jax.random.bernoulli(keys[3], 0.5, (count,))
        left, width = jnp.where(mirrored, left + width, left), jnp.where(mirrored, -width, width)
    rows, columns = resampling(top, height, size), resampling(left, width, size)
    views = jnp.einsum("boi,bijc->bojc", rows, images.astype(jnp.float32))
    views = jnp.einsum("bpj,bojc->bopc", columns, views)
    if config.colour:
        views = _recolour(views, config.colour, key=keys[4])
    return jnp.round(jnp.clip(views, 0, 255)).astype(jnp.uint8)


def _recolour(
    images: Float[Array, "b s s 3"], strength: float, *, key: PRNGKeyArray
) -> Float[Array, "b s s 3"]:
    """Scale brightness, contrast (about the image's mean) and saturation (about its grey)."""
    factors = jax.random.uniform(
        key, (3, images.shape[0], 1, 1, 1), minval=1 - strength, maxval=1 + strength
    )
    images = images * factors[0]
    mean = jnp.mean(images, axis=(1, 2, 3), keepdims=True)
    images = mean + (images - mean) * factors[1]
    grey = jnp.mean(images, axis=3, keepdims=True)
    return grey + (images - grey) * factors[2]
