"""Projected gradient descent inside a box, by the gradient's signs.

    v <- clip(v - a sign(dL/dv), low, high)

(Madry et al. 2018, arXiv:1706.06083, section 2.1, for a loss that is lowered.) An l-infinity ball
around an image and the range of pixels are both boxes, and so is what they share.
Cost: one gradient of the loss a step; memory that of one gradient, whatever the number of steps.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


@functools.partial(jax.jit, static_argnames=("loss", "steps"))
def descend(
    loss: Callable[..., Float[Array, ""]],
    start: Float[Array, "..."],
    low: Float[Array, "..."],
    high: Float[Array, "..."],
    step_size: Float[Array, ""] | float,
    *,
    steps: int,
    args: tuple[Any, ...] = (),
) -> Float[Array, "..."]:
    """The value after `steps` signed steps from `start`.

    Args:
        loss: `loss(value, step, *args)`; `step` is an int32 scalar from 0 on. Compiled once for
            each function: pass the same one, and what changes in `args`.
        start: inside the box.
        low: the box's lower corner, of the value's shape.
        high: its upper corner.
        step_size: a, in the value's unit. Elements with a gradient of 0 stay.
        steps: how many; 0 returns `start`.
        args: arrays, or trees of arrays, that the loss wants beside the value.
    """
    gradient = jax.grad(loss)

    def step(i: Array, value: Float[Array, "..."]) -> Float[Array, "..."]:
        moved = value - step_size * jnp.sign(gradient(value, i, *args))
        return jnp.clip(moved, low, high)

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
