"""3x3 convolutions in float32 by Winograd's F(2x2, 3x3), for CPUs.

Four outputs take sixteen products instead of thirty-six (Lavin and Gray, arXiv:1509.09308, 4.1):

    Y = A^T [(G g G^T) * (B^T d B)] A

for a kernel g and the 4x4 square d of the input that a 2x2 square of the output sees. All squares
together are sixteen matrix products over channels. What is done at a time fits into the cache,
without which nothing is gained. Rounding differs from `lax.conv`'s by a few units of the last
place.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float32

from mmjax.models.layers import lax_convolution, product

_CACHED = 1 << 20
"""Numbers of the wider of input and output that are worked on at a time; 2^19 to 2^21 are alike."""
_CHANNELS = 32, 64
"""The narrower and the wider of input and output that it takes at least."""
_PIXELS = 256
"""Pixels of all images on a device that it takes at least."""


def pays(shape: tuple[int, ...], kernel_shape: tuple[int, ...], stride: int) -> bool:
    """Whether a convolution of NHWC and HWIO shapes is faster this way than by `lax.conv`.

    With few channels the products are too thin, and with few pixels it is the kernel, 16/9 of its
    size when it is transformed, that takes the time.
    """
    batch, height, width, _ = shape
    size, _, *channels = kernel_shape
    pixels = batch // _devices(batch) * height * width
    wide = all(have >= least for have, least in zip(sorted(channels), _CHANNELS, strict=True))
    return (size, stride) == (3, 1) and wide and pixels >= _PIXELS


@jax.custom_vjp
def winograd(
    x: Float32[Array, "b h w c"], kernel: Float32[Array, "3 3 c o"]
) -> Float32[Array, "b h w o"]:
    """Convolution with stride 1 and zero padding of 1, so many rows of the batch at a time."""
    batch, height, width, _ = x.shape
    devices, spread = _devices(batch), _spread(kernel)
    own = batch // devices
    each = height * width * max(kernel.shape[2:])
    rows = max(n for n in range(1, own + 1) if own % n == 0 and n * each <= max(_CACHED, each))
    if rows == own:
        return _squares(x, spread)
    # so that each device's rows stay its own, of which a part is taken in every step
    parts = x.reshape(devices, own // rows, rows, *x.shape[1:]).swapaxes(0, 1)

    def part(some: Array) -> Array:
        return _squares(some.reshape(-1, *x.shape[1:]), spread).reshape(*some.shape[:-1], -1)

    return lax.map(part, parts).swapaxes(0, 1).reshape(batch, height, width, -1)


def _forward(x: Array, kernel: Array):
    return winograd(x, kernel), (x, kernel)


def _backward(saved: tuple[Array, Array], cotangent: Array):
    x, kernel = saved
    dx = winograd(cotangent, jnp.flip(kernel, (0, 1)).swapaxes(2, 3))

    def plain(kernel: Array) -> Array:
        return lax_convolution(x, kernel, 1, "float32")

    (dkernel,) = jax.linear_transpose(plain, kernel)(cotangent)
    return dx, dkernel


winograd.defvjp(_forward, _backward)


def _devices(batch: int) -> int:
    """How many devices the compiler may have split the batch over; 1 under `shard_map`."""
    manual = jax.sharding.get_abstract_mesh().manual_axes
    count = 1 if manual else jax.device_count()
    return count if batch % count == 0 else 1


def _spread(kernel: Float32[Array, "3 3 c o"]) -> Float32[Array, "4 4 c o"]:
    """G g G^T."""

    def one_way(g: Array) -> Array:
        ends = g[0] + g[2]
        return jnp.stack([g[0], (ends + g[1]) / 2, (ends - g[1]) / 2, g[2]])

    return one_way(one_way(kernel).swapaxes(0, 1)).swapaxes(0, 1)


def _differences(d: Sequence[Array]) -> tuple[Array, Array, Array, Array]:
    """B^T d of four rows or columns."""
    return d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]


def _sums(m: Sequence[Array]) -> tuple[Array, Array]:
    """A^T m of four rows or columns."""
    return m[0] + m[1] + m[2], m[1] - m[2] - m[3]


def _squares(
    x: Float32[Array, "b h w c"], spread: Float32[Array, "4 4 c o"]
) -> Float32[Array, "b h w o"]:
    """All 2x2 squares of the output at once; an odd last row or column is half of a square."""
    batch, height, width, channels = x.shape
    down, across, features = (height + 1) // 2, (width + 1) // 2, spread.shape[-1]
    odd = (1, 2 * down - height + 1), (1, 2 * across - width + 1)
    padded = jnp.pad(x, ((0, 0), *odd, (0, 0)))
    halves = []
    rows = _differences([padded[:, i : i + 2 * down : 2] for i in range(4)])
    for row, kernels in zip(rows, spread, strict=True):
        points = _differences([row[:, :, j : j + 2 * across : 2] for j in range(4)])
        halves.append(
            _sums(
                [
                    product("nc,co->no", point.reshape(-1, channels), kernel, "float32")
                    for point, kernel in zip(points, kernels, strict=True)
                ]
            )
        )
    columns = [jnp.stack(_sums(column)) for column in zip(*halves, strict=True)]
    # [column, row, n, o] to rows and columns of the output
    y = jnp.stack(columns).reshape(2, 2, batch, down, across, features)
    y = y.transpose(2, 3, 1, 4, 0, 5).reshape(batch, 2 * down, 2 * across, features)
    return y[:, :height, :width]
