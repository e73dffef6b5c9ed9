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

    `step` is the number of steps taken (int32 scalar), `model_state` what a model keeps beside its
    parameters (`batch_stats` of a ResNet, else an empty dict).
    """

    step: jax.Array
    params: PyTree
    model_state: PyTree
    opt_state: PyTree


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


def make_optimizer(config: OptimizerConfig, steps: int) -> optax.GradientTransformation:
    """AdamW under `make_schedule`, decaying only arrays with at least two axes."""
    adamw = optax.adamw(
        make_schedule(config, steps),
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
    params: PyTree, model_state: PyTree, optimizer: optax.GradientTransformation
) -> TrainState:
    """The state before the first step."""
    return TrainState(jnp.zeros((), jnp.int32), params, model_state, optimizer.init(params))
