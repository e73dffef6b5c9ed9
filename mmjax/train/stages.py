"""The stages of a training run: steps that share an objective and a kind of batch."""

from typing import NamedTuple

import numpy as np

from mmjax.train.batches import Marks, Views
from mmjax.train.config import TrainConfig


class Stage(NamedTuple):
    """Some steps of a run.

    Fields:
        end: the number of steps done when it is over.
        objective: what is minimised (`objectives.OBJECTIVES`).
        views: what becomes of augmentations.
        marks: what batches say of their captions.
    """

    end: int
    objective: str
    views: Views = "none"
    marks: Marks = lambda epoch: {}


def plan(config: TrainConfig, *, captions: int) -> tuple[Stage, ...]:
    """The stages that `config.defence` makes of a run, in order.

    Args:
        config: of the run.
        captions: how many there are to learn from.
    """
    steps, defence = config.steps, config.defence
    if defence.name == "cleanclip":
        return (Stage(steps, "cleanclip", views="beside"),)
    if defence.name == "roclip":

        def pooled(epoch: int) -> dict[str, np.ndarray]:
            # the reference counts epochs from 1
            now = np.bool_((epoch + 1) % defence.roclip.every == 0)
            return {"pooled": np.broadcast_to(now, captions)}

        views: Views = "instead" if defence.roclip.augment else "none"
        return (Stage(steps, "roclip", views, pooled),)
    return (Stage(steps, "clip"),)
