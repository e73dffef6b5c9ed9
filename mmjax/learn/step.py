"""One optimization step as a plain function of (state, batch, key)."""

from collections.abc import Callable
from typing import Any

import jax
import optax

from mmjax.learn.state import TrainState

PyTree = Any
Metrics = dict[str, jax.Array]
LossFn = Callable[[PyTree, PyTree, PyTree, jax.Array], tuple[jax.Array, tuple[PyTree, Metrics]]]
Step = Callable[[TrainState, PyTree, jax.Array], tuple[TrainState, Metrics]]


def make_step(
    loss_fn: LossFn,
    optimizer: optax.GradientTransformation,
    project: Callable[[PyTree], PyTree] | None = None,
) -> Step:
    """Make `step(state, batch, key) -> (state, metrics)`; not jitted, see `jitted`.

    Args:
        loss_fn: `(params, model_state, batch, key) -> (loss, (model_state, metrics))`; the loss is
            the mean over the whole (global) batch.
        optimizer: applied to the parameters' gradients.
        project: maps the updated parameters back into their allowed set (CLIP clamps its logit
            scale this way); None leaves them as they are.

    The key that `loss_fn` gets is `key` folded with the step: the same `key` is passed throughout
    a run. Metrics hold `loss`, `gradient_norm` and whatever `loss_fn` adds.
    """

    def step(state: TrainState, batch: PyTree, key: jax.Array) -> tuple[TrainState, Metrics]:
        step_key = jax.random.fold_in(key, state.step)
        (loss, (model_state, extra)), gradients = jax.value_and_grad(loss_fn, has_aux=True)(
            state.params, state.model_state, batch, step_key
        )
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        if project is not None:
            params = project(params)
        metrics = {"loss": loss, "gradient_norm": optax.tree.norm(gradients), **extra}
        return TrainState(state.step + 1, params, model_state, opt_state), metrics

    return step


def jitted(step: Step) -> Step:
    """Compile a step whose incoming state is donated: its buffers become the outgoing state's."""
    return jax.jit(step, donate_argnums=0)
