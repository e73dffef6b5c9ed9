"""One optimization step as a plain function of (state, batch, key)."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
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
    average_decay: float = 0.0,
    max_skipped: int = 1,
) -> Step:
    """Make `step(state, batch, key) -> (state, metrics)`; not jitted, see `jitted`.

    A step whose loss, gradients or update are not finite is skipped: it is counted, and changes
    neither parameters nor the states of model and optimizer; the learning rate's schedule goes on,
    it is a function of the step. `max_skipped` of them in a row are a divergence: no later step
    changes anything any more, so that the last good state is kept until the host has read of it.

    Args:
        loss_fn: `(params, model_state, batch, key) -> (loss, (model_state, metrics))`; the loss is
            the mean over the whole (global) batch.
        optimizer: applied to the parameters' gradients.
        project: maps the updated parameters back into their allowed set (CLIP clamps its logit
            scale this way); None leaves them as they are.
        average_decay: share of the past that a step leaves in the state's moving averages, in
            [0, 1); 0 keeps none. Early steps leave less, (1 + t) / (10 + t) at step t, so that
            the initial values are soon forgotten.
        max_skipped: skipped steps in a row that make a divergence.

    The key that `loss_fn` gets is `key` folded with the step: the same `key` is passed throughout
    a run. Metrics hold `loss`, `gradient_norm`, `skipped` (steps so far), `diverged` and whatever
    `loss_fn` adds.
    """

    def step(state: TrainState, batch: PyTree, key: jax.Array) -> tuple[TrainState, Metrics]:
        step_key = jax.random.fold_in(key, state.step)
        (loss, (model_state, extra)), gradients = jax.value_and_grad(loss_fn, has_aux=True)(
            state.params, state.model_state, batch, step_key
        )
        norm = optax.tree.norm(gradients)
        before = _scheduled(state.opt_state, state.step)
        updates, opt_state = optimizer.update(gradients, before, state.params)
        params = optax.apply_updates(state.params, updates)
        if project is not None:
            params = project(params)
        average = state.average
        if average_decay:
            decay = jnp.minimum(average_decay, (1 + state.step) / (10 + state.step))
            average = _averaged(average, (params, model_state), decay)
        diverged = state.skipped_in_row >= max_skipped
        change = optax.tree.norm(updates)
        good = jnp.isfinite(loss) & jnp.isfinite(norm) & jnp.isfinite(change) & ~diverged
        params, model_state, opt_state, average = jax.tree.map(
            lambda new, old: jnp.where(good, new, old),
            (params, model_state, opt_state, average),
            (state.params, state.model_state, state.opt_state, state.average),
        )
        after = TrainState(
            step=state.step + 1,
            params=params,
            model_state=model_state,
            opt_state=opt_state,
            average=average,
            skipped=state.skipped + ~good,
            skipped_in_row=jnp.where(good, 0, state.skipped_in_row + 1),
        )
        told = {"skipped": after.skipped, "diverged": after.skipped_in_row >= max_skipped}
        return after, {"loss": loss, "gradient_norm": norm, **told, **extra}

    return step


def _scheduled(opt_state: PyTree, step: jax.Array) -> PyTree:
    """The optimizer's state with its schedules at a step, which count skipped ones too."""

    def is_schedule(part: PyTree) -> bool:
        return isinstance(part, optax.ScaleByScheduleState)

    return jax.tree.map(
        lambda part: part._replace(count=step) if is_schedule(part) else part,
        opt_state,
        is_leaf=is_schedule,
    )


def _averaged(average: PyTree, now: PyTree, decay: jax.Array) -> PyTree:
    """Floating leaves by `decay * average + (1 - decay) * now`, others as they are now."""

    def mix(past: jax.Array, present: jax.Array) -> jax.Array:
        if not jnp.issubdtype(present.dtype, jnp.floating):
            return present
        return present + decay.astype(present.dtype) * (past - present)

    return jax.tree.map(mix, average, now)


def jitted(step: Step, shardings: PyTree = None) -> Step:
    """Compile a step whose incoming state is donated: its buffers become the outgoing state's.

    Args:
        step: from `make_step`.
        shardings: where the outgoing state lies (`learn.sharding.shardings`); None leaves it to
            the compiler.
    """
    if shardings is None:
        return jax.jit(step, donate_argnums=0)
    return jax.jit(step, donate_argnums=0, out_shardings=(shardings, None))
