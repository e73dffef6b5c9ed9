"""The page of the cases on embeddings: goals checked against the numbers, and all rows."""

from pathlib import Path

from mmjax.evaluate.directions import lines
from mmjax.evaluate.goals import TITLE, natural_gains, never_behind, quiet
from mmjax.evaluate.tables import MEANING, own_table, pivot, read_results, reasons, write_page


def write_cases(results_json: Path, out_md: Path) -> None:
    """The page."""
    rows = read_results(results_json)["rows"]
    poisoned = [r for r in rows if r.get("poisoned") != 0]  # a detector that cannot run has none
    body = []
    for value, title in (("auroc", "AUROC"), ("tpr_at_0_1_fpr", "TPR at .1 % false positives")):
        body += [f"{title}, mean of the seeds:", "", *pivot(poisoned, "detector", "case", value)]
        body += [""]
    goals = [*never_behind(poisoned), *natural_gains(poisoned), *quiet(rows)]
    body += [*lines(goals, TITLE), "", *own_table(rows), "", MEANING]
    write_page(results_json, out_md, [*body, *reasons(rows)])
