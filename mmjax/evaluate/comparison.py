"""A scan and the baselines on identical pairs, against the truth: the rows of a results table."""

from typing import Any

import numpy as np
import pyarrow as pa

from mmjax.evaluate.baselines import BASELINES, score_column
from mmjax.evaluate.tables import row
from mmjax.scan.detection import measure


def compare(verdicts: pa.Table, seed: int = 0) -> list[dict[str, Any]]:
    """One row a detector: the scan's fine stage, its coarse stage, every baseline.

    The fine stage is ranked by z and decides by `is_poisoned` (its automatic threshold); the
    coarse stage is ranked by c and decides by "not benign". Baselines have no threshold of their
    own and are ranked only.

    Args:
        verdicts: the verdict table of a scan with the column `truth` (`detection.join_truth`).
        seed: of the chance baseline.
    """
    truth = np.array(verdicts["truth"].to_pylist(), bool)
    stage = np.array(verdicts["coarse"].to_pylist(), object)
    decided = np.array([bool(v) for v in verdicts["is_poisoned"].to_pylist()], bool)
    seeds = stage == "seed"
    coarse = measure(
        score_column(verdicts, "consistency"),
        truth,
        flags=np.isin(stage, ["seed", "suspicious"]),
        seeds=seeds,
    )
    fine = measure(score_column(verdicts, "text_correlation"), truth, flags=decided, seeds=seeds)
    rows = [
        row("CFBD, fine stage (z)", fine, coarse=coarse),
        row("CFBD, coarse stage (c)", coarse, coarse=coarse),
    ]
    for baseline in BASELINES.values():
        rows.append(row(baseline.title, measure(baseline.score(verdicts, seed), truth)))
    return rows
