"""Convolutions and 2x2 average pooling in the formulations that are fast on each platform.

XLA:CPU has no AMX convolution, so a bfloat16 3x3 convolution is written there as three matrix
products over rows of three concatenated shifts ("row3", 1.7-2.2x of `lax.conv` in bfloat16), with
a backward pass of its own: the input's gradient is the same kernel with flipped weights. Its
float32 convolutions of many channels are slow too, and go by `winograd`.
`reduce_window` is slow there too, hence a pool of four strided slices (25 % of a ResNet-50).
Cost of a k x k convolution: 2 k^2 c o FLOPs a pixel; row3 holds three copies of its input.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from mmjax.models.layers import F32, lax_convolution, product
from mmjax.models.policy import Policy
from mmjax.models.winograd import pays, winograd


def convolve(
    x: Float[Array, "b h w c"], kernel: Float[Array, "k k c o"], stride: int, policy: Policy
) -> Float[Array, "b p q o"]:
    """Convolves with zero padding of k // 2, the formulation chosen by `policy` (resolved).

    The result is float32, except on accelerators under bfloat16: their convolutions sum in
    float32 and round the result.
    """
    size, _, channels, features = kernel.shape
    if size == 1 and stride == 1:
        flat = product(
            "nc,co->no", x.reshape(-1, channels), kernel.reshape(channels, features), policy.compute
        )
        return flat.reshape(*x.shape[:-1], features)
    if (policy.compute, policy.backend) == ("bfloat16", "cpu"):
        if size == 3 and stride == 1:
            return row3(x, kernel)
        return unfolded(x, kernel, stride)
    if policy.backend == "cpu":
        if pays(x.shape, kernel.shape, stride):
            return winograd(x.astype(F32), kernel.astype(F32))
        return _by_compiler(stride, x.astype(F32), kernel.astype(F32))
    return lax_convolution(x, kernel, stride, policy.compute)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _by_compiler(stride: int, x: Array, kernel: Array) -> Array:
    """`lax_convolution` in float32 whose input's gradient has its kernel in the usual order.

    JAX's own leaves it turned around; in a loop XLA:CPU takes the turning out of the loop and then
    has no fast convolution for what is left: a step of PGD through a ResNet-50 took half as long
    again. Shapes as `convolve`'s, without the policy.
    """
    return lax_convolution(x, kernel, stride, "float32")


def _by_compiler_forward(stride: int, x: Array, kernel: Array):
    return _by_compiler(stride, x, kernel), (x, kernel)


def _by_compiler_backward(stride: int, saved: tuple[Array, Array], cotangent: Array):
    x, kernel = saved
    size = kernel.shape[0]
    low = size - 1 - size // 2

    def margins(wanted: int, have: int) -> tuple[int, int]:
        return low, wanted - 1 - stride * (have - 1) + size - 1 - low

    dx = lax.conv_general_dilated(
        cotangent,
        jnp.flip(kernel, (0, 1)).swapaxes(2, 3),
        (1, 1),
        [margins(*sides) for sides in zip(x.shape[1:3], cotangent.shape[1:3], strict=True)],
        lhs_dilation=(stride, stride),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=lax.Precision.HIGHEST,
    )
    turned = jax.linear_transpose(lambda k: lax_convolution(x, k, stride, "float32"), kernel)
    return dx, turned(cotangent)[0]


_by_compiler.defvjp(_by_compiler_forward, _by_compiler_backward)


def unfolded(
    x: Float[Array, "b h w c"], kernel: Float[Array, "k k c o"], stride: int
) -> Float[Array, "b p q o"]:
    """Convolution as one bfloat16 product over gathered k x k neighbourhoods (few channels)."""
    size, _, channels, features = kernel.shape
    padded = _pad(x.astype(jnp.bfloat16), size // 2)
    height = (padded.shape[1] - size) // stride + 1
    width = (padded.shape[2] - size) // stride + 1
    rows = [
        padded[
            :, i : i + stride * (height - 1) + 1 : stride, j : j + stride * (width - 1) + 1 : stride
        ]
        for i in range(size)
        for j in range(size)
    ]
    gathered = jnp.concatenate(rows, axis=-1).reshape(-1, size * size * channels)
    flat = product("nc,co->no", gathered, kernel.reshape(-1, features), "bfloat16")
    return flat.reshape(x.shape[0], height, width, features)


@jax.custom_vjp
def row3(x: Float[Array, "b h w c"], kernel: Float[Array, "3 3 c o"]) -> Float[Array, "b h w o"]:
    """3x3 convolution, stride 1, as three bfloat16 products with float32 sums."""
    height, features = x.shape[1], kernel.shape[-1]
    shifted = _row_shifts(x)
    parts = [
        product(
            "nc,co->no",
            shifted[:, row : row + height].reshape(-1, shifted.shape[-1]),
            kernel[row].reshape(-1, features),
            "bfloat16",
        )
        for row in range(3)
    ]
    return (parts[0] + parts[1] + parts[2]).reshape(*x.shape[:-1], features)


def _row3_forward(x: Array, kernel: Array):
    return row3(x, kernel), (x.astype(jnp.bfloat16), jnp.zeros((), x.dtype), kernel)


def _row3_backward(saved: tuple[Array, Array, Array], cotangent: Array):
    x, like, kernel = saved
    cotangent = cotangent.astype(jnp.bfloat16)
    flipped = jnp.flip(kernel, (0, 1)).swapaxes(2, 3)
    dx = row3(cotangent, flipped).astype(like.dtype)
    shifted = _row_shifts(x)
    flat = cotangent.reshape(-1, cotangent.shape[-1])
    rows = [
        product(
            "nc,no->co",
            shifted[:, row : row + x.shape[1]].reshape(-1, shifted.shape[-1]),
            flat,
            "bfloat16",
        )
        for row in range(3)
    ]
    return dx, jnp.stack(rows).reshape(kernel.shape).astype(kernel.dtype)


row3.defvjp(_row3_forward, _row3_backward)


def _row_shifts(x: Array) -> Array:
    """[b, h + 2, w, 3 c]: each pixel with its left and right neighbour, rows padded by one."""
    padded = _pad(x.astype(jnp.bfloat16), 1)
    width = x.shape[2]
    return jnp.concatenate([padded[:, :, j : j + width] for j in range(3)], axis=-1)


def _pad(x: Array, margin: int) -> Array:
    return jnp.pad(x, ((0, 0), (margin, margin), (margin, margin), (0, 0)))


def average_pool(x: Float[Array, "b h w c"], policy: Policy) -> Float[Array, "b p q c"]:
    """Means over 2x2 squares, in float32; an odd last row or column is left out."""
    if policy.backend == "cpu":
        return _slice_pool(x.shape[1:3], x.astype(F32))
    total = lax.reduce_window(
        x.astype(F32), np.float32(0), lax.add, (1, 2, 2, 1), (1, 2, 2, 1), "VALID"
    )
    return total / 4


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _slice_pool(size: tuple[int, int], x: Array) -> Array:
    height, width = size[0] // 2 * 2, size[1] // 2 * 2
    x = x[:, :height, :width]
    top, bottom = x[:, 0::2], x[:, 1::2]
    return (top[:, :, 0::2] + top[:, :, 1::2] + bottom[:, :, 0::2] + bottom[:, :, 1::2]) / 4


def _slice_pool_forward(size: tuple[int, int], x: Array):
    return _slice_pool(size, x), None


def _slice_pool_backward(size: tuple[int, int], saved: None, cotangent: Array):
    del saved
    spread = jnp.repeat(jnp.repeat(cotangent / 4, 2, axis=1), 2, axis=2)
    odd = ((0, 0), (0, size[0] % 2), (0, size[1] % 2), (0, 0))
    return (jnp.pad(spread, odd),)


_slice_pool.defvjp(_slice_pool_forward, _slice_pool_backward)
