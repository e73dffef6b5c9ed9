"""Which parts of an input a score comes from: Grad-CAM and Integrated Gradients.

Both explain a score that is high where the model sees a match (a cosine), not a loss: the gradient
of a loss has the other sign, and Grad-CAM's rectifier would keep the regions that speak against.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


@jax.jit
def grad_cam(
    features: Float[Array, "b h w c"], gradient: Float[Array, "b h w c"]
) -> Float[Array, "b h w"]:
    """Where features speak for a score: relu(sum_c mean_hw(dy/dA)_c A_c), its maximum at 1.

    Args:
        features: A, the maps of a layer.
        gradient: of the score with respect to them.

    Returns:
        In [0, 1]; all 0 where no place speaks for the score.

    Source: Selvaraju et al. 2017 (arXiv:1610.02391), equations 1 and 2.
    """
    weights = jnp.mean(gradient, axis=(1, 2), keepdims=True)
    heat = jax.nn.relu(jnp.sum(weights * features, axis=-1))
    largest = jnp.max(heat, axis=(1, 2), keepdims=True)
    return jnp.where(largest > 0, heat / jnp.where(largest > 0, largest, 1), 0)


@functools.partial(jax.jit, static_argnames=("score", "steps"))
def integrated_gradients(
    score: Callable[..., Float[Array, " b"]],
    inputs: Float[Array, "b ..."],
    baseline: Float[Array, "b ..."],
    *,
    steps: int = 64,
    args: tuple[Any, ...] = (),
) -> Float[Array, "b ..."]:
    """What each element adds to the score on the straight way from the baseline to the inputs.

        (x - x') * mean over the way of dy/dx

    The sum over a row is y(x) - y(x') (completeness), but for the error of the midpoint rule,
    which falls with steps^-2.

    Args:
        score: `score(inputs, *args)`, each row's on its own. Compiled once for each function.
        inputs: x.
        baseline: x', where nothing is there.
        steps: points on the way; each is one gradient.
        args: what the score wants beside.

    Source: Sundararajan et al. 2017 (arXiv:1703.01365), equation 1.
    """
    way = inputs - baseline
    gradient = jax.grad(lambda x: jnp.sum(score(x, *args)))

    def add(i: Array, total: Array) -> Array:
        return total + gradient(baseline + way * ((i + 0.5) / steps))

    return way * jax.lax.fori_loop(0, steps, add, jnp.zeros_like(inputs)) / steps
