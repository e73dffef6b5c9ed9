"""What a training run carries from step to step, and the optimizer that changes it."""

import dataclasses
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mmjax.core.config import option
from mmjax.core.errors import ConfigError

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


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """AdamW with a warm-up; biases, norms and the logit scale are never decayed."""

    learning_rate: float = option(1e-3, "peak learning rate", low=0.0)
    warmup: float = option(
        0.05, "linear warm-up: steps if at least 1, else a fraction of the run", low=0.0
    )
    schedule: Literal["cosine", "constant"] = option(
        "cosine", "after the warm-up: cosine to zero at the last step, or constant"
    )
    weight_decay: float = option(0.1, "decoupled decay of arrays with two or more axes", low=0.0)
    b1: float = option(0.9, "decay of the first moment", low=0.0, high=1.0)
    b2: float = option(0.98, "decay of the second moment", low=0.0, high=1.0)
    eps: float = option(1e-6, "added to the root of the second moment", low=0.0)
    clip_norm: float = option(0.0, "gradients are scaled to at most this norm; 0 = off", low=0.0)


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
