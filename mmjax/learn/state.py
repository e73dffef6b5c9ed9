"""What a training run carries from step to step, and the optimizer that changes it."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mmjax.core.errors import ConfigError
from mmjax.learn.config import OptimizerConfig

PyTree = Any


class TrainState(NamedTuple):
    """Everything that a step reads and replaces; a checkpoint holds exactly this.

    Fields:
        step: steps taken, skipped ones included (int32 scalar).
        params: what is learned.
        model_state: what a model keeps beside its parameters (`batch_stats` of a ResNet, else an
            empty dict).
        opt_state: the optimizer's.
        average: moving averages of `(params, model_state)`, or `()` when none are kept.
        skipped: steps that changed nothing, because loss, gradients or update were not finite.
        skipped_in_row: how many of them were the last ones.
    """

    step: jax.Array
    params: PyTree
    model_state: PyTree
    opt_state: PyTree
    average: PyTree
    skipped: jax.Array
    skipped_in_row: jax.Array

    def last_good(self) -> "TrainState":
        """The state as it was before the steps that were skipped last."""
        return self._replace(
            step=self.step - self.skipped_in_row,
            skipped=self.skipped - self.skipped_in_row,
            skipped_in_row=jnp.zeros_like(self.skipped_in_row),
        )


def warmup_steps(warmup: float, steps: int) -> int:
    """Length of the warm-up of a run of `steps` (`OptimizerConfig.warmup`)."""
    return round(warmup) if warmup >= 1 else round(warmup * steps)


def make_schedule(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """Learning rate by step: linear from zero over the warm-up, then cosine to zero or constant."""
    rise = warmup_steps(config.warmup, steps)
    if rise >= steps:
        raise ConfigError(
            f"the warm-up takes {rise} of {steps} steps; lower warmup or train for longer"
        )
    if config.schedule == "cosine":
        after = optax.cosine_decay_schedule(config.learning_rate, steps - rise)
    else:
        after = optax.constant_schedule(config.learning_rate)
    if rise < 2:
        return after
    # the rate of step i is (i + 1) / rise of the peak: step 0 already moves the weights
    peak = config.learning_rate
    ramp = optax.linear_schedule(peak / rise, peak, rise - 1)
    return optax.join_schedules([ramp, after], [rise])


def make_optimizer(
    config: OptimizerConfig, steps: int, schedule: optax.Schedule | None = None
) -> optax.GradientTransformation:
    """AdamW under `make_schedule` or a given one, decaying only arrays with at least two axes."""
    adamw = optax.adamw(
        schedule or make_schedule(config, steps),
        b1=config.b1,
        b2=config.b2,
        eps=config.eps,
        weight_decay=config.weight_decay,
        mask=lambda params: jax.tree.map(lambda leaf: leaf.ndim >= 2, params),
    )
    if config.clip_norm:
        return optax.chain(optax.clip_by_global_norm(config.clip_norm), adamw)
    return adamw


def create(
    params: PyTree,
    model_state: PyTree,
    optimizer: optax.GradientTransformation,
    *,
    averaged: bool = False,
) -> TrainState:
    """The state before the first step; `averaged` where `make_step` averages."""
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        model_state=model_state,
        opt_state=optimizer.init(params),
        average=(params, model_state) if averaged else (),
        skipped=jnp.zeros((), jnp.int32),
        skipped_in_row=jnp.zeros((), jnp.int32),
    )
