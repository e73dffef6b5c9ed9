"""What the robust mode is meant to reach, checked against the rows of a results file."""

from mmjax.evaluate.cfbd_cells import distinct, mean
from mmjax.evaluate.directions import Direction
from mmjax.evaluate.experiment import Rows

TITLE = "Goals of the robust mode:"
MOST_BEHIND, LEAST_GAIN, LEAST_RATIO = 0.02, 0.04, 2.0
"""AUROC that another detector may be ahead; AUROC and the factor of TPR at .1 % false positives
that natural captions gain over c."""


def finds(rows: Rows, by: str, *, least_tpr: float, most_fpr: float) -> list[Direction]:
    """TPR and FPR at its own threshold, in the worst seed of everything that is poisoned.

    Args:
        rows: of any detectors; sets without poison must stay quiet.
        by: the key that tells cases apart.
        least_tpr: goal, in [0, 1].
        most_fpr: goal, in [0, 1].
    """
    made = []
    robust = [r for r in rows if r["name"] == "cfbd_robust"]
    for case in distinct(robust, by):
        here = [r for r in robust if r[by] == case]
        if not here[0]["poisoned"]:
            made.append(nothing(case, here))
            continue
        tpr, fpr = min(r["tpr"] for r in here), max(r["fpr"] for r in here)
        claim = f"{case}: TPR of at least {least_tpr:.0%}, FPR of at most {100 * most_fpr:g}%"
        evidence = f"the worst of {len(here)} seeds: TPR {tpr:.4g}, FPR {fpr:.4g}"
        made.append(Direction(claim, tpr >= least_tpr and fpr <= most_fpr, evidence))
    return made


def nothing(case: str, rows: Rows) -> Direction:
    """Whether no pair of a case without poison is flagged, in all seeds."""
    silent = sum(not row["clean_lost"] for row in rows)
    most = max(row["clean_lost"] for row in rows)
    evidence = f"in {silent} of {len(rows)} seeds, at most {most} pairs"
    return Direction(f"{case}: nothing is flagged as poisoned", silent == len(rows), evidence)


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
