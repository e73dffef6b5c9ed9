"""The pages of the hard cases: goals checked against the numbers, and all rows."""

from pathlib import Path

import numpy as np

from mmjax.evaluate.cfbd_cells import distinct
from mmjax.evaluate.directions import Direction, lines
from mmjax.evaluate.experiment import Rows
from mmjax.evaluate.goals import TITLE, finds, nothing
from mmjax.evaluate.tables import (
    MEANING,
    own_table,
    pivot,
    read_results,
    reasons,
    table,
    write_page,
)

LEAST_TPR, MOST_FPR = 0.95, 0.01
"""Goals on the grid, at the robust mode's own threshold."""


def write_stress(results_json: Path, out_md: Path) -> None:
    """The page of the grid."""
    rows = read_results(results_json)["rows"]
    poisoned = [r for r in rows if r["poisoned"]]
    body = ["AUROC, mean of the seeds:", "", *pivot(poisoned, "case", "detector", "auroc"), ""]
    goals = finds(rows, "case", least_tpr=LEAST_TPR, most_fpr=MOST_FPR)
    body += [*lines(goals, TITLE), "", *own_table(rows), "", MEANING]
    write_page(results_json, out_md, [*body, *reasons(rows)])


def write_zero(results_json: Path, out_md: Path) -> None:
    """The page of the sets without poison."""
    rows = read_results(results_json)["rows"]
    goals = [nothing(c, [r for r in rows if r["case"] == c]) for c in distinct(rows, "case")]
    body = [*lines(goals, TITLE), "", *table(rows), "", MEANING]
    write_page(results_json, out_md, body)


def write_fdr(results_json: Path, out_md: Path) -> None:
    """The page of the false-discovery rates."""
    rows = read_results(results_json)["rows"]
    body = []
    for value, title in (("fdr_realised", "Realised rate"), ("tpr", "TPR")):
        body += [f"{title} by the rate asked for, mean of the seeds:", ""]
        body += [*pivot(rows, "case", "fdr_asked", value), ""]
    body += [*lines(fdr_goals(rows), TITLE), "", *table(rows), "", MEANING]
    write_page(results_json, out_md, body)


def fdr_goals(rows: Rows) -> list[Direction]:
    """The realised rate is at most the one asked for, within two standard errors."""
    made = []
    for case in distinct(rows, "case"):
        for asked in distinct(rows, "fdr_asked"):
            here = [r for r in rows if (r["case"], r["fdr_asked"]) == (case, asked)]
            found = np.array([r["fdr_realised"] for r in here])
            error = float(found.std(ddof=1) / np.sqrt(found.size)) if found.size > 1 else 0.0
            claim = f"{case}, asked for {asked:g}"
            evidence = f"realised {found.mean():.4f} ± {error:.4f} over {found.size} seeds"
            made.append(Direction(claim, bool(found.mean() - 2 * error <= asked), evidence))
    return made
