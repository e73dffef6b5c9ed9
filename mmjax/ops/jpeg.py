"""JPEG as a differentiable function of pixels: what an image is after it has been saved as one.

    Y Cb Cr -> means of 2 x 2 chroma -> DCT of 8 x 8 blocks -> round(c / q) q -> and back

(ITU-T T.81, annex A and K; JFIF 1.02.) Every rounding is straight-through: its value is exact, its
gradient that of no rounding. The steps are those of libjpeg, which Pillow writes and reads with:
quality scales the tables of annex K, chroma is enlarged by a triangle filter ("fancy upsampling"),
and 8-bit values stand between the steps. Decoded pixels differ from Pillow's where the
cosine transform of libjpeg, in fixed point, rounds otherwise: by less than half a grey level on
average (tests/ops/test_jpeg.py).
Cost: O(1) for each pixel, about 70 FLOPs; peak memory four float32 copies of the images.
"""

import functools
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from mmjax.ops.images import to_bytes_through

Subsampling = Literal["4:4:4", "4:2:0"]

_LUMA = np.asarray(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ]
)
"""Table K.1; rows are vertical frequencies."""
_CHROMA = np.full((8, 8), 99)
_CHROMA[:4, :4] = [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]
"""Table K.2."""
_TO_YCC = (
    np.asarray([[19595, 38470, 7471], [-11058, -21710, 32768], [32768, -27439, -5329]]) / 2**16
)
"""In libjpeg's fixed point (jccolor.c), so that float32 has every sum exactly."""
_TO_RGB = np.asarray([[1, 0, 1.402], [1, -0.344136286, -0.714136286], [1, 1.772, 0]])
_DCT = np.cos(np.pi * np.outer(np.arange(8), np.arange(8) + 0.5) / 8) / 2
_DCT[0] /= np.sqrt(2)
_HIGHEST = jax.lax.Precision.HIGHEST


@functools.partial(jax.jit, static_argnames=("subsampling",))
def jpeg(
    images: Float[Array, "b h w 3"],
    quality: Int[Array, ""] | int,
    *,
    subsampling: Subsampling = "4:2:0",
) -> Float[Array, "b h w 3"]:
    """The images as they are read after saving; whole numbers, differentiable.

    Args:
        images: pixels in [0, 255].
        quality: 1 to 100, as libjpeg and Pillow count it; may be drawn at random under jit.
        subsampling: "4:2:0" halves the chroma's resolution, Pillow's and most cameras' default.
    """
    height, width = images.shape[1:3]
    pixels = to_bytes_through(images)
    to_ycc = jnp.asarray(_TO_YCC, pixels.dtype)
    ycc = jnp.einsum("bhwc,kc->kbhw", pixels, to_ycc, precision=_HIGHEST)
    ycc = ycc + jnp.asarray([0, 128, 128], ycc.dtype)[:, None, None, None]
    half = jnp.asarray([0.5, 0.5 - 2**-16, 0.5 - 2**-16], ycc.dtype)[:, None, None, None]
    luma, *chroma = _through(ycc, jnp.floor(ycc + half))
    side = 8 if subsampling == "4:4:4" else 16
    luma = _coded(_padded(luma, side), _table(_LUMA, quality))
    decoded = []
    for plane in chroma:
        plane = _padded(plane, side)
        table = _table(_CHROMA, quality)
        if subsampling == "4:4:4":
            decoded.append(_coded(plane, table))
        else:
            decoded.append(_enlarged(_coded(_halved(plane), table), height, width))
    ycc = jnp.stack([luma[:, :height, :width], *(p[:, :height, :width] for p in decoded)])
    ycc = ycc - jnp.asarray([0, 128, 128], ycc.dtype)[:, None, None, None]
    to_rgb = jnp.asarray(_TO_RGB, ycc.dtype)
    return to_bytes_through(jnp.einsum("kbhw,ck->bhwc", ycc, to_rgb, precision=_HIGHEST))


def _through(smooth: Array, exact: Array) -> Array:
    """The exact values, with the gradient of the smooth ones."""
    return smooth + jax.lax.stop_gradient(exact - smooth)


def _table(base: np.ndarray, quality: Int[Array, ""] | int) -> Int[Array, "8 8"]:
    """The quantisation table of a quality (libjpeg: jcparam.c)."""
    scale = jnp.where(jnp.asarray(quality) < 50, 5000 // quality, 200 - 2 * quality)
    return jnp.clip((jnp.asarray(base) * scale + 50) // 100, 1, 255)


def _padded(plane: Float[Array, "b h w"], side: int) -> Float[Array, "b p q"]:
    """To multiples of `side`, the last row and column repeated."""
    after = [(0, -length % side) for length in plane.shape[1:]]
    return jnp.pad(plane, [(0, 0), *after], mode="edge")


def _halved(plane: Float[Array, "b h w"]) -> Float[Array, "b p q"]:
    """Means of 2 x 2, a half rounded down and up in turns (libjpeg: jcsample.c)."""
    batch, height, width = plane.shape
    sums = jnp.sum(plane.reshape(batch, height // 2, 2, width // 2, 2), axis=(2, 4))
    bias = 1 + jnp.arange(width // 2) % 2
    return _through(sums / 4, jnp.floor((sums + bias[None, None]) / 4))


def _enlarged(plane: Float[Array, "b p q"], height: int, width: int) -> Float[Array, "b h w"]:
    """Twice the size by weights 3/4 and 1/4 of the nearer and the farther (jdsample.c).

    Beyond the image's own samples, padding not counted, the last ones are repeated.
    """
    plane = plane[:, : -(-height // 2), : -(-width // 2)]
    larger = _between(_between(plane, axis=1), axis=2)
    bias = jnp.where(jnp.arange(larger.shape[2]) % 2, 7, 8)
    return _through(larger, jnp.floor((16 * larger + bias[None, None]) / 16))


def _between(plane: Float[Array, "b p q"], axis: int) -> Float[Array, "b r s"]:
    """Along one axis, two samples of each: a quarter of the way to the one before and after."""
    size = plane.shape[axis]
    before = jnp.take(plane, np.maximum(np.arange(size) - 1, 0), axis=axis)
    after = jnp.take(plane, np.minimum(np.arange(size) + 1, size - 1), axis=axis)
    both = jnp.stack([(3 * plane + before) / 4, (3 * plane + after) / 4], axis=axis + 1)
    shape = list(plane.shape)
    shape[axis] = 2 * size
    return both.reshape(shape)


def _coded(plane: Float[Array, "b h w"], table: Int[Array, "8 8"]) -> Float[Array, "b h w"]:
    """The plane after its blocks' coefficients have been rounded to multiples of the table.

    As jcdctmgr.c has it: eighths of a coefficient are whole, and halves go away from zero.
    """
    batch, height, width = plane.shape
    blocks = plane.reshape(batch, height // 8, 8, width // 8, 8) - 128
    dct = jnp.asarray(_DCT, plane.dtype)
    steps = table.astype(plane.dtype)[None, None, :, None, :]
    waves = jnp.einsum("ui,bpiqj,vj->bpuqv", dct, blocks, dct, precision=_HIGHEST)
    eighths = jnp.round(8 * jnp.abs(waves))
    multiple = jnp.sign(waves) * jnp.floor((eighths + 4 * steps) / (8 * steps)) * steps
    blocks = jnp.einsum(
        "ui,bpuqv,vj->bpiqj", dct, _through(waves, multiple), dct, precision=_HIGHEST
    )
    return to_bytes_through(blocks.reshape(plane.shape) + 128)
