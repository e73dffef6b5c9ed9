"""Triggers that move pixels; pixels in [0, 1], NHWC."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from mmjax.ops.images import displace, enlarge
from mmjax.ops.stamps import Stamped, everywhere, pattern_key


@functools.partial(jax.jit, static_argnames=("grid", "strength", "pattern_seed"))
def wanet(
    images: Float[Array, "b h w c"],
    keys: Key[Array, " b"],
    *,
    grid: int = 0,
    strength: float | int = 1.0,
    pattern_seed: int = 0,
) -> Stamped:
    """WaNet's elastic warp: x'(p) = x(p + d(p)), one field d for all images.

    The field is uniform noise in [−1, 1] on a grid, divided by its mean magnitude, enlarged by
    cubic interpolation, times strength/2 pixels: with `grid=0` and strength 1 every pixel jitters
    by half a pixel on average and by one at most (CleanCLIP's k=224), with `grid=4` the image
    bends smoothly (WaNet's own). Sampling is bilinear, coordinates stop at the border.

    Args:
        images: pixels in [0, 1].
        keys: one key an image; not used, the field is the same on every image.
        grid: points of the field in each direction; 0 = one a pixel.
        strength: mean displacement, in half pixels.
        pattern_seed: of the field.

    Source: Nguyen & Tran 2021, eq. 4–5; CleanCLIP backdoor/utils.py, `patch_type=warped`
    (`grid_sample` with aligned corners; the clamp of the grid to [−1, 1] is the border).
    """
    height, width = images.shape[1:3]
    shape = (grid or height, grid or width, 2)
    noise = jax.random.uniform(
        pattern_key("wanet", pattern_seed), shape, images.dtype, minval=-1, maxval=1
    )
    noise /= jnp.abs(noise).mean()
    field = strength * (enlarge(noise, height, width) if grid else noise)
    # normalised coordinates span [-1, 1] over size - 1 pixels; the reference divides by size
    down = field[:, :, 1] * ((height - 1) / (2 * height))
    across = field[:, :, 0] * ((width - 1) / (2 * width))
    return everywhere(jnp.clip(displace(images, down, across), 0, 1))
