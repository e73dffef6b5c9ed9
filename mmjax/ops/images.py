"""Image geometry: cubic enlargement with the corners aligned, and bilinear warps."""

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
