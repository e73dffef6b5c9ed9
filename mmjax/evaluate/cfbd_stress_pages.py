"""The pages of the hard cases: goals checked against the numbers, and all rows."""

from pathlib import Path

import numpy as np

from mmjax.evaluate.cfbd_cells import distinct
from mmjax.evaluate.directions import Direction, lines
from mmjax.evaluate.experiment import Rows
from mmjax.evaluate.tables import MEANING, pivot, read_results, reasons, table, write_page

LEAST_TPR, MOST_FPR = 0.95, 0.01
"""Goals on the grid, at the robust mode's own threshold."""


def write_stress(results_json: Path, out_md: Path) -> None:
    """The page of the grid."""
    rows = read_results(results_json)["rows"]
    poisoned = [r for r in rows if r["poisoned"]]
    body = ["AUROC, mean of the seeds:", "", *pivot(poisoned, "case", "detector", "auroc"), ""]
    body += [*lines(stress_goals(rows), "Goals of the robust mode:"), "", *table(rows), "", MEANING]
    write_page(results_json, out_md, [*body, *reasons(rows)])


def stress_goals(rows: Rows) -> list[Direction]:
    """TPR and FPR of the worst seed of each case with poison; nothing flagged in the others."""
    made = []
    robust = [r for r in rows if r["name"] == "cfbd_robust"]
    for case in distinct(robust, "case"):
        here = [r for r in robust if r["case"] == case]
        if not here[0]["poisoned"]:
            made.append(nothing(case, here))
            continue
        tpr, fpr = min(r["tpr"] for r in here), max(r["fpr"] for r in here)
        claim = f"{case}: TPR of at least {LEAST_TPR:.0%}, FPR of at most {MOST_FPR:.0%}"
        evidence = f"the worst of {len(here)} seeds: TPR {tpr:.4g}, FPR {fpr:.4g}"
        made.append(Direction(claim, tpr >= LEAST_TPR and fpr <= MOST_FPR, evidence))
    return made


def write_zero(results_json: Path, out_md: Path) -> None:
    """The page of the sets without poison."""
    rows = read_results(results_json)["rows"]
    goals = [nothing(c, [r for r in rows if r["case"] == c]) for c in distinct(rows, "case")]
    body = [*lines(goals, "Goals of the robust mode:"), "", *table(rows), "", MEANING]
    write_page(results_json, out_md, body)


def write_fdr(results_json: Path, out_md: Path) -> None:
    """The page of the false-discovery rates."""
    rows = read_results(results_json)["rows"]
    body = []
    for value, title in (("fdr_realised", "Realised rate"), ("tpr", "TPR")):
        body += [f"{title} by the rate asked for, mean of the seeds:", ""]
        body += [*pivot(rows, "case", "fdr_asked", value), ""]
    body += [*lines(fdr_goals(rows), "Goals of the robust mode:"), "", *table(rows), "", MEANING]
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


def nothing(case: str, rows: Rows) -> Direction:
    """Whether no pair of a case without poison is flagged, in all seeds."""
    quiet = sum(not row["clean_lost"] for row in rows)
    most = max(row["clean_lost"] for row in rows)
    evidence = f"in {quiet} of {len(rows)} seeds, at most {most} pairs"
    return Direction(f"{case}: nothing is flagged as poisoned", quiet == len(rows), evidence)
