"""Runs the stages of a training run one after the other, keeping what each finds of the pairs."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from mmjax.core import distributed
from mmjax.core.errors import RunError
from mmjax.core.files import atomic_path
from mmjax.learn.state import TrainState
from mmjax.train.judging import Judge
from mmjax.train.stages import Records, Stage

FOLDER = "judged"
"""Of the records, in the run folder: one file a judgement, named by its step."""


def run_stages(
    stages: Sequence[Stage],
    fit_stage: Callable[[Stage, Records], TrainState],
    judge_pairs: Callable[[Judge, TrainState], Float32[np.ndarray, " m"]],
    folder: Path,
) -> tuple[TrainState, Records]:
    """Fit every stage up to its end and judge the pairs where it says so.

    A record is written once the checkpoint of its step is; a stage whose record is there is over.
    So an interrupted run goes on with the same records.

    Args:
        stages: in order; the last one does not judge.
        fit_stage: trains up to the stage's end, from wherever the run stands.
        judge_pairs: judges all pairs by a state.
        folder: the run folder.

    Returns:
        The last state, and the records in order.

    Raises:
        RunError: a record is missing though the run has gone on since.
    """
    records: list[Float32[np.ndarray, " m"]] = []
    for stage in stages[:-1]:
        file = folder / FOLDER / f"{stage.end:08d}.npy"
        if stage.judge is None:
            fit_stage(stage, records)
            continue
        if not file.exists():
            state = fit_stage(stage, records)
            if int(state.step) != stage.end:
                raise RunError(
                    f"{file} is missing, and the run has come to step {int(state.step)} since; "
                    "start it anew in another output folder"
                )
            judged = judge_pairs(stage.judge, state)
            if distributed.is_primary():
                with atomic_path(file) as temporary, open(temporary, "wb") as opened:
                    np.save(opened, judged)
            distributed.wait_for_others(f"judged {stage.end}")
        records.append(np.load(file))
    return fit_stage(stages[-1], records), records
