"""Image geometry (cubic enlargement, crops with resizing, bilinear warps) and rounding to bytes.

All of it is differentiable in the pixels, so that noise can be optimised through what a training
pipeline does to an image (expectation over transformations, Athalye et al. 2018, arXiv:1707.07397).
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

_CUBIC = -0.75  # of the cubic convolution kernel (Keys 1981), as torch has it


@functools.partial(jax.jit, static_argnames=("height", "width"))
def enlarge(values: Float[Array, "k l c"], height: int, width: int) -> Float[Array, "h w c"]:
    """Cubic interpolation of a small grid, its corners on the image's corners, edges repeated.

    Equals torch's `interpolate(mode="bicubic", align_corners=True)`; overshoot is not clipped.
    Cost: O(h·w·(k + l)·c).
    """
    rows = jnp.asarray(_cubic_weights(values.shape[0], height), values.dtype)
    columns = jnp.asarray(_cubic_weights(values.shape[1], width), values.dtype)
    return jnp.einsum("hk,klc,wl->hwc", rows, values, columns, precision=jax.lax.Precision.HIGHEST)


@functools.partial(jax.jit, static_argnames=("height", "width"))
def crop_resize(
    images: Float[Array, "b h w c"], boxes: Float[Array, "b 4"], height: int, width: int
) -> Float[Array, "b {height} {width} c"]:
    """A part of each image at another size: bicubic (a = -0.5), antialiased, as Pillow has it.

    Equals `resize((width, height), BICUBIC, box=...)` of Pillow but for its rounding to bytes in
    between; like there, samples just outside the box have weight, edges are not repeated, and
    overshoot is not clipped.
    Cost: 2 c w h (height + width·height/h) FLOPs an image, as two products.

    Args:
        images: any values.
        boxes: top, left, bottom, right in pixels, within the image; pixel i covers [i, i + 1).
            May be drawn at random under jit.
        height: of the result.
        width: of the result.
    """
    rows = jax.vmap(lambda box: _antialiased(box[0], box[2], images.shape[1], height))(boxes)
    columns = jax.vmap(lambda box: _antialiased(box[1], box[3], images.shape[2], width))(boxes)
    down = jnp.einsum("bph,bhwc->bpwc", rows, images, precision=jax.lax.Precision.HIGHEST)
    return jnp.einsum("bqw,bpwc->bpqc", columns, down, precision=jax.lax.Precision.HIGHEST)


@functools.partial(jax.jit, static_argnames=("height", "width"))
def resize(
    images: Float[Array, "b h w c"], height: int, width: int
) -> Float[Array, "b {height} {width} c"]:
    """The whole images at another size; see `crop_resize`."""
    whole = jnp.asarray([0, 0, *images.shape[1:3]], jnp.float32)
    boxes = jnp.broadcast_to(whole, (len(images), 4))
    return crop_resize(images, boxes, height, width)


@jax.jit
def round_through(values: Float[Array, "..."]) -> Float[Array, "..."]:
    """Whole numbers, a half to the even one; the gradient is that of no rounding."""
    return values + jax.lax.stop_gradient(jnp.round(values) - values)


@jax.jit
def to_bytes_through(pixels: Float[Array, "..."]) -> Float[Array, "..."]:
    """Whole numbers from 0 to 255; the gradient is that of clipping alone."""
    return round_through(jnp.clip(pixels, 0, 255))


@jax.jit
def displace(
    images: Float[Array, "b h w c"], down: Float[Array, "h w"], across: Float[Array, "h w"]
) -> Float[Array, "b h w c"]:
    """Backward warp, x'(p) = x(p + d(p)), bilinear, the same for every image.

    Args:
        images: any values.
        down: vertical part of d in pixels; p + d stops at the border.
        across: horizontal part of d in pixels; likewise.
    """
    height, width = images.shape[1:3]
    y, x = jnp.arange(height)[:, None], jnp.arange(width)[None, :]
    # whole pixels and fractions are told apart before the coordinate is added: more exact
    down, across = jnp.clip(down, -y, height - 1 - y), jnp.clip(across, -x, width - 1 - x)
    top, left = (jnp.floor(v).astype(jnp.int32) for v in (down, across))
    lower, right = ((v - jnp.floor(v))[None, :, :, None] for v in (down, across))
    top, left = y + top, x + left
    bottom, beside = jnp.minimum(top + 1, height - 1), jnp.minimum(left + 1, width - 1)
    above = images[:, top, left] * (1 - right) + images[:, top, beside] * right
    below = images[:, bottom, left] * (1 - right) + images[:, bottom, beside] * right
    return above * (1 - lower) + below * lower


def _antialiased(
    start: Float[Array, ""], end: Float[Array, ""], source: int, target: int
) -> Float[Array, "{target} {source}"]:
    """The weight of every source sample in every sample of the span [start, end)."""
    scale = (end - start) / target
    centres = start + (jnp.arange(target) + 0.5) * scale
    distance = (jnp.arange(source) + 0.5)[None] - centres[:, None]
    x = jnp.abs(distance) / jnp.maximum(scale, 1)
    near = (1.5 * x - 2.5) * x**2 + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    weights = jnp.where(x < 1, near, jnp.where(x < 2, far, 0))
    return weights / jnp.sum(weights, axis=1, keepdims=True)


def _cubic_weights(source: int, target: int) -> Float[np.ndarray, "target source"]:
    """The weight of every source sample in every target sample."""
    places = np.arange(target) * ((source - 1) / max(target - 1, 1))
    first = np.floor(places).astype(int)
    weights = np.zeros((target, source))
    for offset in range(-1, 3):
        distance = np.abs(places - (first + offset))
        near = (_CUBIC + 2) * distance**3 - (_CUBIC + 3) * distance**2 + 1
        far = _CUBIC * (distance**3 - 5 * distance**2 + 8 * distance - 4)
        weight = np.where(distance <= 1, near, np.where(distance < 2, far, 0))
        taken = np.clip(first + offset, 0, source - 1)
        np.add.at(weights, (np.arange(target), taken), weight)
    return weights
