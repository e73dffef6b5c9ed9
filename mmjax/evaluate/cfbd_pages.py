"""The pages of CFBD's figures: the picture, the paper's directions, the numbers."""

from pathlib import Path

from mmjax.evaluate import cfbd_plots
from mmjax.evaluate.cfbd_cells import distinct, mean
from mmjax.evaluate.cfbd_figures import COMPONENTS, GAMMAS, QS
from mmjax.evaluate.directions import Direction, above, lines, rises
from mmjax.evaluate.experiment import Rows
from mmjax.evaluate.tables import MEANING, pivot, read_results, reasons, table, write_page


def write_figure2(results_json: Path, out_md: Path) -> None:
    """The page of Figure 2."""
    rows = read_results(results_json)["rows"]
    numbers = ["Overlap of clean and poisoned pairs, mean of the seeds:", ""]
    numbers += pivot(rows, "measure", "attack", "overlap")
    _write(results_json, out_md, cfbd_plots.draw_figure2, directions2(rows), numbers)


def write_figure4(results_json: Path, out_md: Path) -> None:
    """The page of Figure 4."""
    rows = read_results(results_json)["rows"]
    _write(results_json, out_md, cfbd_plots.draw_figure4, directions4(rows), [])


def write_figure5(results_json: Path, out_md: Path) -> None:
    """The page of Figure 5."""
    rows = read_results(results_json)["rows"]
    numbers = ["AUPRC, mean of the seeds:", "", *pivot(rows, "detector", "attack", "auprc")]
    _write(results_json, out_md, cfbd_plots.draw_figure5, directions5(rows), numbers)


def write_figure6(results_json: Path, out_md: Path) -> None:
    """The page of Figure 6."""
    rows = read_results(results_json)["rows"]
    leaks = [r for r in rows if r["ablation"] == "K, gamma"]
    found = [r for r in rows if r["ablation"] == "q"]
    numbers = ["Poisoned pairs in D_b, mean of attacks and seeds:", ""]
    numbers += [*pivot(leaks, "components", "gamma", "leaked"), "", "AUROC of z by q:", ""]
    numbers += pivot(found, "attack", "q", "auroc")
    _write(results_json, out_md, cfbd_plots.draw_figure6, directions6(rows), numbers)


def write_figure7(results_json: Path, out_md: Path) -> None:
    """The page of Figure 7."""
    rows = read_results(results_json)["rows"]
    numbers = ["BIC a pair (lower is better), mean of the seeds:", ""]
    numbers += pivot([r for r in rows if "mixture" in r], "components", "attack", "bic_per_pair")
    _write(results_json, out_md, cfbd_plots.draw_figure7, directions7(rows), numbers)


def directions2(rows: Rows) -> list[Direction]:
    """Two poisoned captions are alike; similarity overlaps; the correlation separates better."""
    captions, similarity, z = distinct(rows, "measure")
    bad, good = (mean(rows, f"mean_{kind}", measure=captions) for kind in ("poisoned", "clean"))
    ranked = [mean(rows, "auroc", measure=name) for name in (z, similarity)]
    shared = [mean(rows, "overlap", measure=name) for name in (similarity, z)]
    return [
        above("poisoned captions are more alike than clean ones", bad, good, ("poisoned", "clean")),
        above("z ranks better than the similarity", ranked[0], ranked[1], ("z", "similarity")),
        above("similarities overlap more than z do", shared[0], shared[1], ("similarity", "z")),
    ]


def directions4(rows: Rows) -> list[Direction]:
    """Poison lies above the lowest component, and the benign set holds almost none of it."""
    poison, lowest = mean(rows, "mean_poisoned"), mean(rows, "lowest_mean")
    names = ("mean c of the poison", "mean of the lowest component")
    share = _ratio(mean(rows, "leaked"), mean(rows, "poisoned"))
    return [
        above("poison has a larger c than the lowest component", poison, lowest, names),
        above("under 1 % of the poison is in D_b", 0.01, share, ("1 %", "its share")),
    ]


def directions5(rows: Rows) -> list[Direction]:
    """The fine stage's AUPRC approaches 1 and is above the coarse stage's, for each attack."""
    made = []
    for attack in distinct(rows, "attack"):
        fine, coarse = (
            mean(rows, "auprc", name=name, attack=attack) for name in ("cfbd_fine", "cfbd_coarse")
        )
        claim = f"the fine stage has the larger AUPRC ({attack})"
        made.append(above(claim, fine, coarse, ("fine", "coarse")))
    least = min((r["auprc"] for r in rows if r["name"] == "cfbd_fine"), default=None)
    names = ("the least", ".95")
    return [*made, above("its AUPRC is above .95 for all", least, 0.95, names)]


def directions6(rows: Rows) -> list[Direction]:
    """Leak by K and by gamma; AUROC by q."""
    leaks = [r for r in rows if r["ablation"] == "K, gamma"]
    found = [r for r in rows if r["ablation"] == "q"]
    ends = [mean(leaks, "leaked", components=k) for k in (COMPONENTS[0], COMPONENTS[-1])]
    made = [
        above("more poison leaks with K = 1 than with K = 5", ends[0], ends[1], ("K = 1", "K = 5"))
    ]
    names = [f"γ = {gamma:g}" for gamma in GAMMAS]
    for k in COMPONENTS:
        values = [mean(leaks, "leaked", components=k, gamma=gamma) for gamma in GAMMAS]
        made.append(rises(f"leak rises with γ (K = {k})", values, names))
    usual = [q for q in QS if q >= 50]
    values = [mean(found, "auroc", q=q) for q in usual]
    claim = "AUROC drops as q grows from 50 to 400"
    return [*made, rises(claim, values, [f"q = {q}" for q in usual], falls=True)]


def directions7(rows: Rows) -> list[Direction]:
    """A mixture of five describes c better than one Gaussian; a threshold on z exists."""
    bic = [mean(rows, "bic_per_pair", components=k) for k in (COMPONENTS[0], COMPONENTS[-1])]
    tpr = mean(rows, "tpr")
    return [
        above("five Gaussians describe c better than one", bic[0], bic[1], ("BIC, K = 1", "K = 5")),
        above("the threshold on z finds over 98 %", tpr, 0.98, ("TPR", "98 %")),
    ]


def _write(
    results_json: Path,
    out_md: Path,
    draw: cfbd_plots.Draw,
    directions: list[Direction],
    numbers: list[str],
) -> None:
    rows = read_results(results_json)["rows"]
    picture = Path(out_md).with_suffix(".png")
    cfbd_plots.draw(draw, rows, picture)
    body = [f"![the figure; seed {rows[0]['seed']} where one is shown]({picture.name})", ""]
    body += [*lines(directions), "", *numbers, "", *table(rows), "", MEANING]
    write_page(results_json, out_md, [*body, *reasons(rows)])


def _ratio(part: float | None, whole: float | None) -> float | None:
    return None if part is None or not whole else part / whole
