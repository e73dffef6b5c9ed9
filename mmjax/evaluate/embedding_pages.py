"""The page of the cases on embeddings: goals checked against the numbers, and all rows."""

from pathlib import Path

from mmjax.evaluate.cfbd_cells import distinct, mean
from mmjax.evaluate.cfbd_stress_pages import nothing
from mmjax.evaluate.directions import Direction, lines
from mmjax.evaluate.experiment import Rows
from mmjax.evaluate.tables import MEANING, pivot, read_results, reasons, table, write_page

MOST_BEHIND, LEAST_GAIN, LEAST_RATIO = 0.02, 0.04, 2.0
"""Goals of the robust mode: AUROC that another detector may be ahead; AUROC and the factor of TPR
at .1 % false positives that natural captions gain over c."""


def write_cases(results_json: Path, out_md: Path) -> None:
    """The page."""
    rows = read_results(results_json)["rows"]
    poisoned = [r for r in rows if r["poisoned"]]
    body = []
    for value, title in (("auroc", "AUROC"), ("tpr_at_0_1_fpr", "TPR at .1 % false positives")):
        body += [f"{title}, mean of the seeds:", "", *pivot(poisoned, "detector", "case", value)]
        body += [""]
    goals = [*never_behind(poisoned), *natural_gains(poisoned), *quiet(rows)]
    body += [*lines(goals, "Goals of the robust mode:"), "", *table(rows), "", MEANING]
    write_page(results_json, out_md, [*body, *reasons(rows)])


def never_behind(rows: Rows) -> list[Direction]:
    """No detector's AUROC is more than two points above the robust mode's, means of the seeds."""
    made = []
    for case in distinct(rows, "case"):
        own = mean(rows, "auroc", name="cfbd_robust", case=case)
        others = {
            name: found
            for name in distinct(rows, "name")
            if name != "cfbd_robust"
            and (found := mean(rows, "auroc", name=name, case=case)) is not None
        }
        if own is None or not others:
            continue
        best = max(others, key=lambda name: others[name])
        title = next(r["detector"] for r in rows if r["name"] == best)
        made.append(
            Direction(
                f"{case}: never more than 2 points of AUROC behind another detector",
                own >= others[best] - MOST_BEHIND,
                f"{own:.4f}; the best of the others, {title}: {others[best]:.4f}",
            )
        )
    return made


def natural_gains(rows: Rows) -> list[Direction]:
    """Natural captions gain four points of AUROC over c, and twice its TPR at .1 %."""
    made = []
    for case in distinct(rows, "case"):
        if not case.startswith("natural"):
            continue
        for value, claim in (
            ("auroc", "gains 4 points of AUROC over c"),
            ("tpr_at_0_1_fpr", "doubles the TPR of c at .1 % false positives"),
        ):
            own, coarse = (
                mean(rows, value, name=name, case=case) for name in ("cfbd_robust", "cfbd_coarse")
            )
            if own is None or coarse is None:
                continue
            met = own >= coarse + LEAST_GAIN if value == "auroc" else own >= LEAST_RATIO * coarse
            made.append(Direction(f"{case}: {claim}", met, f"{own:.4f}, c {coarse:.4f}"))
    return made


def quiet(rows: Rows) -> list[Direction]:
    """Nothing is flagged where nothing is poisoned."""
    clean = [r for r in rows if r["name"] == "cfbd_robust" and not r["poisoned"]]
    return [nothing(c, [r for r in clean if r["case"] == c]) for c in distinct(clean, "case")]
