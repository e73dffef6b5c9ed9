"""The stages of a training run: steps that share an objective and a kind of batch."""

from typing import NamedTuple

from mmjax.train.batches import Views
from mmjax.train.config import TrainConfig


class Stage(NamedTuple):
    """Some steps of a run.

    Fields:
        end: the number of steps done when it is over.
        objective: what is minimised (`objectives.OBJECTIVES`).
        views: what becomes of augmentations.
    """

    end: int
    objective: str
    views: Views = "none"


def plan(config: TrainConfig) -> tuple[Stage, ...]:
    """The stages that `config.defence` makes of a run, in order."""
    if config.defence.name == "cleanclip":
        return (Stage(config.steps, "cleanclip", views="beside"),)
    return (Stage(config.steps, "clip"),)
