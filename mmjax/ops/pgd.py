"""Projected gradient descent inside a box, by the gradient's signs: of real values and of bytes.

    v <- clip(v - a sign(dL/dv), low, high)

(Madry et al. 2018, arXiv:1706.06083, section 2.1, for a loss that is lowered: error-minimising
noise, Huang et al. 2021, arXiv:2101.04898, equation 3.) An l-infinity ball around an image and the
range of pixels are both boxes, and so is what they share. Differences of 8-bit pixels form a
lattice: integer values take whole steps in it and are never rounded, so what is optimised is what
a lossless file holds.
Cost: one gradient of the loss a step; memory that of one gradient, whatever the number of steps.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Int8, Num, UInt8

LARGEST_EPSILON = 127
"""Of a lattice: what an int8 holds."""


@functools.partial(jax.jit, static_argnames=("loss", "steps"))
def descend(
    loss: Callable[..., Float[Array, ""]],
    start: Num[Array, "..."],
    low: Num[Array, "..."],
    high: Num[Array, "..."],
    step_size: Num[Array, ""] | float | int,
    *,
    steps: int,
    args: tuple[Any, ...] = (),
) -> Num[Array, "..."]:
    """The value after `steps` signed steps from `start`, of its shape and type.

    Args:
        loss: `loss(value, step, *args)`; `step` is an int32 scalar from 0 on. Compiled once for
            each function: pass the same one, and what changes in `args`. It sees an integer value
            as float32, and the gradient there decides (straight-through).
        start: inside the box.
        low: the box's lower corner, of the value's shape and type.
        high: its upper corner.
        step_size: a, in the value's unit; whole for an integer value. Below 0 the loss is raised
            (error-maximising noise). Elements with a gradient of 0 stay.
        steps: how many; 0 returns `start`.
        args: arrays, or trees of arrays, that the loss wants beside the value.

    Raises:
        TypeError: start, low and high differ in type, or the step is not whole on a lattice.
    """
    size = jnp.asarray(step_size)
    whole = jnp.issubdtype(start.dtype, jnp.integer)
    if not start.dtype == low.dtype == high.dtype:
        raise TypeError(
            f"value and box want one type, got {start.dtype} in [{low.dtype}, {high.dtype}]"
        )
    if whole and not jnp.issubdtype(size.dtype, jnp.integer):
        raise TypeError(f"steps on a lattice are whole, got a step size of {size.dtype}")
    gradient = jax.grad(loss)
    wide = jnp.int32 if whole else start.dtype  # a step may leave the range of int8

    def step(i: Int[Array, ""], value: Num[Array, "..."]) -> Num[Array, "..."]:
        seen = value.astype(jnp.float32) if whole else value
        moved = value.astype(wide) - size * jnp.sign(gradient(seen, i, *args)).astype(wide)
        return jnp.clip(moved, low.astype(wide), high.astype(wide)).astype(start.dtype)

    return jax.lax.fori_loop(0, steps, step, start)


@functools.partial(jax.jit, static_argnames=("epsilon",))
def pixel_box(
    images: Float[Array, "... h w c"], epsilon: float | int
) -> tuple[Float[Array, "... h w c"], Float[Array, "... h w c"]]:
    """The lower and upper corner of the images within `epsilon` of these that are still images.

    Args:
        images: pixels in [0, 1].
        epsilon: of the l-infinity ball, in [0, 1].
    """
    return jnp.maximum(images - epsilon, 0), jnp.minimum(images + epsilon, 1)


@functools.partial(jax.jit, static_argnames=("epsilon",))
def lattice_box(
    images: UInt8[Array, "... h w c"], epsilon: int
) -> tuple[Int8[Array, "... h w c"], Int8[Array, "... h w c"]]:
    """The corners of the differences of at most `epsilon` that leave the images within 0 to 255.

    Args:
        images: bytes.
        epsilon: of the l-infinity ball, in grey levels, 0 to 127.

    Raises:
        ValueError: epsilon is outside its range.
    """
    if not 0 <= epsilon <= LARGEST_EPSILON:
        raise ValueError(f"epsilon wants 0 to {LARGEST_EPSILON} grey levels, got {epsilon}")
    pixels = images.astype(jnp.int32)
    low, high = jnp.maximum(-epsilon, -pixels), jnp.minimum(epsilon, 255 - pixels)
    return low.astype(jnp.int8), high.astype(jnp.int8)


@jax.jit
def add_noise(
    images: UInt8[Array, "... h w c"], noise: Int8[Array, "... h w c"]
) -> UInt8[Array, "... h w c"]:
    """Bytes plus differences of bytes; those of `lattice_box` never leave 0 to 255."""
    return jnp.clip(images.astype(jnp.int32) + noise, 0, 255).astype(jnp.uint8)
