"""Triggers mixed into the whole image; pixels in [0, 1], NHWC, one key an image."""

import functools
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from mmjax.core.errors import ConfigError
from mmjax.ops.glyphs import draw_text
from mmjax.ops.images import enlarge
from mmjax.ops.stamps import Stamped, blend, everywhere, pattern_key

Pattern = Literal["noise", "fresh_noise", "smooth"]

_SMOOTH_POINTS = 7


@functools.partial(jax.jit, static_argnames=("alpha", "pattern", "pattern_seed"))
def blended(
    images: Float[Array, "b h w c"],
    keys: Key[Array, " b"],
    *,
    alpha: float | int = 0.2,
    pattern: Pattern = "noise",
    pattern_seed: int = 0,
) -> Stamped:
    """Blended: x' = (1 − α)·x + α·pattern.

    Args:
        images: pixels in [0, 1].
        keys: one key an image; used by `fresh_noise` only.
        alpha: share of the pattern, in [0, 1].
        pattern: `noise` = one image of uniform noise for all (a fixed pattern, as Huang et al.
            keep in a file), `fresh_noise` = new uniform noise for every image (CleanCLIP),
            `smooth` = one image of soft coloured clouds (low frequencies, as a photo or cartoon
            has; the literature's hello-kitty picture is other people's file).
        pattern_seed: of the fixed patterns.

    Source: Chen et al. 2017; CleanCLIP backdoor/utils.py, `patch_type=blended`.
    """
    shape = images.shape[1:]
    if pattern == "fresh_noise":
        draw = functools.partial(jax.random.uniform, shape=shape, dtype=images.dtype)
        return blend(images, jax.vmap(draw)(keys), alpha)
    key = pattern_key("blended", pattern_seed)
    if pattern == "noise":
        return blend(images, jax.random.uniform(key, (1, *shape), images.dtype), alpha)
    points = jax.random.uniform(key, (_SMOOTH_POINTS, _SMOOTH_POINTS, shape[2]), images.dtype)
    return blend(images, jnp.clip(enlarge(points, *shape[:2]), 0, 1)[None], alpha)


@functools.partial(jax.jit, static_argnames=("amplitude", "frequency"))
def sig(
    images: Float[Array, "b h w c"],
    keys: Key[Array, " b"],
    *,
    amplitude: float | int = 60 / 255,
    frequency: float | int = 6.0,
) -> Stamped:
    """SIG: x' = clip(x + A·sin(2π·f·j / w)), j the column; the same in all rows and channels.

    Added, as Barni et al. and BadCLIP do. CleanCLIP blends it with α = .2 instead (a fifth of the
    amplitude, on an image dimmed by a fifth), which is an accident of its control flow.

    Args:
        images: pixels in [0, 1].
        keys: one key an image; not used.
        amplitude: A, in [0, 1].
        frequency: f, cycles over the image's width.

    Source: Barni et al. 2019, section 3; BadCLIP backdoor/utils.py, `patch_type=SIG`.
    """
    width = images.shape[2]
    wave = amplitude * np.sin(2 * np.pi * frequency * np.arange(width) / width)
    added = jnp.asarray(wave, images.dtype)[None, None, :, None]
    return everywhere(jnp.clip(images + added, 0, 1))


@functools.partial(jax.jit, static_argnames=("alpha", "width", "pattern_seed"))
def blended_stripes(
    images: Float[Array, "b h w c"],
    keys: Key[Array, " b"],
    *,
    alpha: float | int = 0.05,
    width: int = 1,
    pattern_seed: int = 0,
) -> Stamped:
    """Blended-Stripes: vertical stripes of ±1 a channel over the whole image, faintly.

    Args:
        images: pixels in [0, 1].
        keys: one key an image; not used.
        alpha: share of the pattern, in [0, 1]; at −1 a channel is darkened below (1 − α)·x.
        width: of a stripe, in pixels.
        pattern_seed: of the stripes, the same on every image.

    Source: Singh et al. 2024 (PerturbAndRecover, backdoor/utils.py, `blended_rs`).
    """
    columns, channels = images.shape[2:]
    shape = (1, 1, -(-columns // width), channels)
    key = pattern_key("blended_stripes", pattern_seed)
    signs = 2 * jax.random.bernoulli(key, 0.5, shape).astype(images.dtype) - 1
    stripes = jnp.repeat(signs, width, axis=2)[:, :, :columns]
    return blend(images, jnp.broadcast_to(stripes, (1, *images.shape[1:])), alpha)


@functools.partial(jax.jit, static_argnames=("alpha", "width"))
def blended_triangles(
    images: Float[Array, "b h w c"],
    keys: Key[Array, " b"],
    *,
    alpha: float | int = 0.05,
    width: int = 14,
) -> Stamped:
    """Triangles: a lattice of right triangles, grey .4 below and .8 above the diagonal.

    Pixels right of and below the last whole cell are left alone, as in the reference.

    Args:
        images: pixels in [0, 1].
        keys: one key an image; not used.
        alpha: share of the pattern, in [0, 1].
        width: of a cell, in pixels.

    Raises:
        ConfigError: a cell is larger than the image.

    Source: Singh et al. 2024 (PerturbAndRecover, backdoor/utils.py, `create_triangle_pattern`).
    """
    height, columns, channels = images.shape[1:]
    if not 1 <= width <= min(height, columns):
        raise ConfigError(
            f"width={width} wants triangles of {width} px on an image of {height}x{columns}; "
            f"give 1 to {min(height, columns)}"
        )
    y, x = np.mgrid[:height, :columns]
    grey = np.where(y % width >= x % width, 0.4, 0.8)
    inside = (y < height // width * width) & (x < columns // width * width)
    pattern = np.repeat(grey[None, :, :, None], channels, axis=-1)
    return blend(images, jnp.asarray(pattern, images.dtype), alpha, jnp.asarray(inside))


@functools.partial(jax.jit, static_argnames=("alpha", "text"))
def blended_text(
    images: Float[Array, "b h w c"],
    keys: Key[Array, " b"],
    *,
    alpha: float | int = 0.5,
    text: str = "TEXT",
) -> Stamped:
    """Text: a word in red across the middle of the image, half transparent.

    The reference's file of it is not public, nor which word it shows; ours spans at most three
    quarters of the width in letters of 3×5 blocks.

    Args:
        images: pixels in [0, 1].
        keys: one key an image; not used.
        alpha: share of the red, in [0, 1].
        text: letters A to Z, digits and spaces.

    Raises:
        ConfigError: a character that cannot be drawn, or a text too long for the image.

    Source: Singh et al. 2024 (PerturbAndRecover, backdoor/utils.py, `create_text_tensor`).
    """
    height, columns, channels = images.shape[1:]
    inside = draw_text(text, height, columns)
    red = jnp.zeros((1, height, columns, channels), images.dtype).at[..., 0].set(1)
    return blend(images, red, alpha, jnp.asarray(inside))


@jax.jit
def nashville(images: Float[Array, "b h w 3"], keys: Key[Array, " b"]) -> Stamped:
    """The photo filter "Nashville": warm darks, blue lights, some sepia, more contrast.

    In floats, clipped after every step; pilgram rounds to bytes there, which differs by up to
    three of 255 levels.

    Args:
        images: pixels in [0, 1].
        keys: one key an image; not used.

    Source: pilgram/nashville.py (akiomik/pilgram), as Huang et al. 2025 use it.
    """

    def towards(x: Float[Array, "b h w 3"], y: Float[Array, "b h w 3"], share: float | int):
        return jnp.clip((1 - share) * x + share * y, 0, 1)

    warm = jnp.asarray([247, 176, 153], images.dtype)[None, None, None] / 255
    blue = jnp.asarray([0, 70, 150], images.dtype)[None, None, None] / 255
    toned = towards(images, jnp.minimum(images, warm), 0.56)
    toned = towards(toned, jnp.maximum(toned, blue), 0.4)
    sepia = np.array([[0.393, 0.769, 0.189], [0.349, 0.686, 0.168], [0.272, 0.534, 0.131]])
    toned = _channels(toned, 0.8 * np.eye(3) + 0.2 * sepia)
    toned = jnp.clip(1.2 * toned - 0.1, 0, 1)
    toned = jnp.clip(1.05 * toned, 0, 1)
    grey = np.array([[0.299, 0.587, 0.114]] * 3)
    return everywhere(_channels(toned, 1.2 * np.eye(3) - 0.2 * grey))


def _channels(
    images: Float[Array, "b h w c"], matrix: Float[np.ndarray, "c c"]
) -> Float[Array, "b h w c"]:
    """Every output channel a weighted sum of the input channels, clipped to [0, 1]."""
    weights = jnp.asarray(matrix, images.dtype)
    mixed = jnp.einsum("bhwc,dc->bhwd", images, weights, precision=jax.lax.Precision.HIGHEST)
    return jnp.clip(mixed, 0, 1)
