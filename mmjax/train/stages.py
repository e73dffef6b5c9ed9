"""The stages of a training run: steps that share an objective and a kind of batch."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float32

from mmjax.core.errors import ConfigError
from mmjax.learn.state import make_schedule
from mmjax.train.batches import Marks, Views
from mmjax.train.config import TrainConfig
from mmjax.train.isolation import isolated_count, isolated_pairs
from mmjax.train.judging import Judge
from mmjax.train.safe_set import safe_pairs

Records = Sequence[Float32[np.ndarray, " m"]]
"""What the stages so far have found of every pair, a record a judgement."""


def no_marks(records: Records) -> Marks:
    """Batches say nothing of their captions."""
    return lambda epoch: {}


class Stage(NamedTuple):
    """Some steps of a run.

    Fields:
        end: the number of steps done when it is over.
        objective: what is minimised (`objectives.OBJECTIVES`).
        views: what becomes of augmentations.
        marks: what batches say of their captions, by the records of earlier stages.
        rate: constant learning rate as a share of the peak; None follows the schedule.
        judge: what is recorded of every pair at the end; None records nothing.
    """

    end: int
    objective: str
    views: Views = "none"
    marks: Callable[[Records], Marks] = no_marks
    rate: float | None = None
    judge: Judge | None = None


def plan(config: TrainConfig, *, captions: int, epoch: int) -> tuple[Stage, ...]:
    """The stages that `config.defence` makes of a run, in order.

    Args:
        config: of the run.
        captions: how many there are to learn from.
        epoch: steps of an epoch.

    Raises:
        ConfigError: the run ends before the defence has begun.
    """
    return PLANS[config.defence.name](config, captions, epoch)


def _plain(config: TrainConfig, captions: int, epoch: int) -> tuple[Stage, ...]:
    return (Stage(config.steps, "clip"),)


def _cleanclip(config: TrainConfig, captions: int, epoch: int) -> tuple[Stage, ...]:
    return (Stage(config.steps, "cleanclip", views="beside"),)


def _roclip(config: TrainConfig, captions: int, epoch: int) -> tuple[Stage, ...]:
    options = config.defence.roclip
    _refuse_short(config, (options.every - 1) * epoch, epoch, "roclip.every - 1")

    def pooled(number: int) -> dict[str, np.ndarray]:
        # the reference counts epochs from 1
        now = np.bool_((number + 1) % options.every == 0)
        return {"pooled": np.broadcast_to(now, captions)}

    views: Views = "instead" if options.augment else "none"
    return (Stage(config.steps, "roclip", views, lambda records: pooled),)


def _safeclip(config: TrainConfig, captions: int, epoch: int) -> tuple[Stage, ...]:
    options = config.defence.safeclip
    unimodal = options.unimodal_epochs * epoch
    warm = unimodal + options.multimodal_epochs * epoch
    _refuse_short(config, warm, epoch, "safeclip.unimodal_epochs + multimodal_epochs")
    stages = [Stage(unimodal, "unimodal", "beside")] if unimodal else []
    stages.append(Stage(warm, "clip", rate=options.multimodal_rate, judge="cosine"))
    for grown, start in enumerate(range(warm, config.steps, epoch)):

        def safe(records: Records, grown: int = grown) -> Marks:
            marked = {"safe": safe_pairs(records[: grown + 1], options, grown=grown)}
            return lambda number: marked

        end = min(start + epoch, config.steps)
        judged: Judge | None = "cosine" if end < config.steps else None
        stages.append(Stage(end, "safeclip", "beside", safe, judge=judged))
    return tuple(stages)


def _abl(config: TrainConfig, captions: int, epoch: int) -> tuple[Stage, ...]:
    options = config.defence.abl
    recorded, unlearning = options.recorded_epochs * epoch, options.unlearn_epochs * epoch
    _refuse_short(config, recorded + unlearning, epoch, "abl.recorded_epochs + unlearn_epochs")
    if not 1 <= isolated_count(captions, options) < captions:
        raise ConfigError(
            f"defence.abl.isolate={options.isolate:g} isolates "
            f"{isolated_count(captions, options)} of {captions} pairs; choose another"
        )

    def floor(records: Records) -> Marks:
        least = np.float32(np.percentile(records[0], options.percentile))
        return lambda number: {"floor": np.broadcast_to(least, captions)}

    def isolated(records: Records) -> Marks:
        marked = {"isolated": isolated_pairs(records, options)}
        return lambda number: marked

    stages = [Stage(epoch, "clip", judge="loss")]
    for end in range(2 * epoch, recorded + 1, epoch):
        if options.gather == "lga":
            stages.append(Stage(end, "abl_gather", marks=floor, judge="loss"))
        else:
            stages.append(Stage(end, "clip", judge="loss"))
    stages.append(Stage(config.steps - unlearning, "abl_kept", marks=isolated))
    if unlearning:
        stages.append(Stage(config.steps, "abl_unlearn", marks=isolated, rate=options.unlearn_rate))
    return tuple(stages)


def _adversarial(config: TrainConfig, captions: int, epoch: int) -> tuple[Stage, ...]:
    return (Stage(config.steps, "adversarial"),)


PLANS: dict[str, Callable[[TrainConfig, int, int], tuple[Stage, ...]]] = {
    "none": _plain,
    "cleanclip": _cleanclip,
    "roclip": _roclip,
    "safeclip": _safeclip,
    "abl": _abl,
    "adversarial": _adversarial,
}
"""From (configuration, captions, steps of an epoch) to stages, by the name of the defence."""


def _refuse_short(config: TrainConfig, needed: int, epoch: int, what: str) -> None:
    if config.steps <= needed:
        raise ConfigError(
            f"defence.{what} take {needed} steps ({epoch} an epoch), the whole run {config.steps}; "
            "raise steps or lower them"
        )


def staged_schedule(config: TrainConfig, stages: Sequence[Stage]) -> optax.Schedule:
    """The learning rate by step: the configuration's schedule but where a stage has its own."""
    usual = make_schedule(config.optimizer, config.steps)
    starts = [0, *(stage.end for stage in stages)]
    own = [
        (start, stage.end, stage.rate * config.optimizer.learning_rate)
        for start, stage in zip(starts, stages, strict=False)
        if stage.rate is not None
    ]
    if not own:
        return usual

    def schedule(step: jax.typing.ArrayLike) -> jax.Array:
        rate, now = jnp.asarray(usual(step)), jnp.asarray(step)
        for start, end, constant in own:
            rate = jnp.where((start <= now) & (now < end), constant, rate)
        return rate

    return schedule
