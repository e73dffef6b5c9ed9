"""What a training run carries from step to step, and the optimizer that changes it."""

import dataclasses
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

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
    """AdamW with a warm-up.

    Attributes:
        learning_rate: peak learning rate.
        warmup: length of the linear warm-up; a number of steps if at least 1, otherwise a
            fraction of the run.
        schedule: after the warm-up, `cosine` to zero at the last step or `constant`.
        weight_decay: decoupled decay of arrays with two or more axes; biases, norms and the
            logit scale are never decayed.
        b1: decay of the first moment.
        b2: decay of the second moment.
        eps: added to the root of the second moment.
        clip_norm: gradients are scaled down to this global norm; 0 leaves them alone.
    """

    learning_rate: float = 1e-3
    warmup: float = 0.05
    schedule: Literal["cosine", "constant"] = "cosine"
    weight_decay: float = 0.1
    b1: float = 0.9
    b2: float = 0.98
    eps: float = 1e-6
    clip_norm: float = 0.0


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
    # step 0 already moves the weights: the ramp goes through (step + 1) / rise
    ramp = optax.linear_schedule(config.learning_rate / max(rise, 1), config.learning_rate, rise)
    return optax.join_schedules([ramp, after], [rise]) if rise else after


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
