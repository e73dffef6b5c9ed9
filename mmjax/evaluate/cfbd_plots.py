"""Draws CFBD's figures from their results files, as PNG, with matplotlib and without pyplot."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy.stats import norm

from mmjax.core.files import atomic_path
from mmjax.evaluate.cfbd_cells import distinct, mean
from mmjax.evaluate.experiment import Rows

CLEAN, POISON, LINE, SOFT = "#4878a8", "#c0392b", "#222222", "#999999"
_STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "axes.titlesize": 9,
}
Draw = Callable[[Rows], Figure]


def save(figure: Figure, path: Path) -> None:
    """Write a PNG; the same figure gives the same bytes."""
    canvas = FigureCanvasAgg(figure)
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        canvas.print_png(file, metadata={"Software": None})


def panels(
    count: int, columns: int, *, size: tuple[float, float] = (3.4, 2.5)
) -> tuple[Figure, list[Axes]]:
    """A figure of `count` axes in rows of `columns`."""
    lines = -(-count // columns)
    figure = Figure(figsize=(size[0] * columns, size[1] * lines), dpi=120, layout="constrained")
    return figure, [figure.add_subplot(lines, columns, i + 1) for i in range(count)]


def first_seed(rows: Rows) -> Rows:
    """The rows of the first seed: one is shown, the table has all."""
    return [row for row in rows if row["seed"] == rows[0]["seed"]]


def bars(axes: Axes, histogram: dict[str, Any]) -> None:
    """Shares of clean and poisoned pairs in the same bins."""
    for name, colour in (("clean", CLEAN), ("poisoned", POISON)):
        _shares(axes, histogram["edges"], histogram[name], color=colour, alpha=0.6, label=name)


def all_bars(axes: Axes, histogram: dict[str, Any]) -> None:
    """Shares of all pairs, whatever they are."""
    counts = np.add(histogram["clean"], histogram["poisoned"])
    _shares(axes, histogram["edges"], counts, color=CLEAN, alpha=0.4)


def _shares(axes: Axes, edges: Sequence[float], counts: Any, **style: Any) -> None:
    shares = np.asarray(counts, float) / max(np.sum(counts), 1)
    axes.bar(edges[:-1], shares, np.diff(edges), align="edge", **style)
    axes.set_ylabel("share of pairs")


def mixture_lines(axes: Axes, row: dict[str, Any], *, lowest: bool = False) -> None:
    """Components of a mixture, weighted, and their sum, in shares of a bin of all pairs."""
    edges = np.asarray(row["histogram"]["edges"])
    x = np.linspace(edges[0], edges[-1], 300)
    width = float(np.diff(edges).mean())
    found = {name: np.asarray(values) for name, values in row["mixture"].items()}
    parts = found["weights"][:, None] * norm.pdf(
        x[None, :], found["means"][:, None], np.sqrt(found["variances"])[:, None]
    )
    for i, part in enumerate(parts):
        strong = lowest and i == 0
        axes.plot(x, width * part, color=POISON if strong else SOFT, lw=1.6 if strong else 0.8)
    axes.plot(x, width * parts.sum(0), color=LINE, lw=1.3)


def draw_figure2(rows: Rows) -> Figure:
    """Three distributions a line, a line an attack."""
    shown = first_seed(rows)
    attacks, measures = distinct(shown, "attack"), distinct(shown, "measure")
    figure, axes = panels(len(attacks) * len(measures), len(measures))
    for ax, row in zip(axes, shown, strict=True):
        bars(ax, row["histogram"])
        ax.set(title=f"{row['attack']}: AUROC {row['auroc']:.4f}", xlabel=row["measure"])
    axes[0].legend()
    return figure


def draw_figure4(rows: Rows) -> Figure:
    """Consistency with its mixture, the lowest component and the cut of the benign set."""
    shown = first_seed(rows)
    figure, axes = panels(2 * len(shown), 2)
    for row, left, right in zip(shown, axes[::2], axes[1::2], strict=True):
        bars(left, row["histogram"])
        left.set(title=f"{row['attack']}: AUROC {row['auroc']:.4f}", xlabel="consistency c")
        all_bars(right, row["histogram"])
        mixture_lines(right, row, lowest=True)
        right.axvline(row["cut"], color=LINE, ls="--", lw=1)
        title = f"D_b: {row['benign_size']:,} pairs, {row['leaked']} of them poisoned"
        right.set(title=title, xlabel="consistency c")
    axes[0].legend()
    return figure


def draw_figure5(rows: Rows) -> Figure:
    """Precision by recall, an attack a panel."""
    shown = first_seed(rows)
    attacks = distinct(shown, "attack")
    figure, axes = panels(len(attacks), 3)
    for ax, attack in zip(axes, attacks, strict=True):
        for row, colour in zip(
            [r for r in shown if r["attack"] == attack], (SOFT, CLEAN, POISON), strict=True
        ):
            label = f"{row['detector'].removeprefix('CFBD, ')}: {row['auprc']:.3f}"
            ax.plot(row["curve"]["recall"], row["curve"]["precision"], color=colour, label=label)
        ax.set(title=attack, xlabel="recall", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.05))
        ax.legend(fontsize=7, loc="lower left")
    return figure


def draw_figure6(rows: Rows) -> Figure:
    """Leaked poison by gamma for every K; AUROC, and TPR and FPR by rule R1, by q and attack."""
    figure, axes = panels(4, 2)
    leaks = [r for r in rows if r["ablation"] == "K, gamma"]
    for k in distinct(leaks, "components"):
        gammas = distinct(leaks, "gamma")
        means = [mean(leaks, "leaked", components=k, gamma=g) for g in gammas]
        axes[0].plot(gammas, _known(means), marker="o", ms=3, label=f"K = {k}")
    axes[0].set(xlabel="γ", ylabel="poisoned pairs in D_b", title="mean of attacks and seeds")
    found = [r for r in rows if r["ablation"] == "q"]
    for attack in distinct(found, "attack"):
        qs = distinct(found, "q")
        for ax, value in zip(axes[1:], ("auroc", "tpr", "fpr"), strict=True):
            means = [mean(found, value, attack=attack, q=q) for q in qs]
            ax.plot(qs, _known(means), marker="o", ms=3, label=attack)
            ax.set(xlabel="q", ylabel=value.upper(), xscale="log")
    axes[0].legend(fontsize=7)
    axes[1].legend(fontsize=7)
    return figure


def draw_figure7(rows: Rows) -> Figure:
    """Mixtures over the consistency of the first attack; z with its threshold."""
    shown = first_seed(rows)
    shown = [r for r in shown if r["attack"] == shown[0]["attack"]]
    figure, axes = panels(len(shown), 3)
    for ax, row in zip(axes, shown, strict=True):
        if "mixture" in row:
            all_bars(ax, row["histogram"])
            mixture_lines(ax, row)
            title = f"K = {row['components']}: BIC a pair {row['bic_per_pair']:.3f}"
            ax.set(title=title, xlabel="consistency c")
        else:
            bars(ax, row["histogram"])
            ax.legend()
            if row["gamma_z"] is not None:
                ax.axvline(row["gamma_z"], color=LINE, ls="--", lw=1)
            ax.set(title=f"{row['attack']}: z and its threshold", xlabel="textual correlation z")
    return figure


def draw(name: Draw, rows: Rows, path: Path) -> None:
    """Draw and write a figure in the style of all."""
    with mpl.rc_context(_STYLE):
        save(name(rows), path)


def _known(values: Sequence[float | None]) -> list[float]:
    """None as NaN, which is not drawn."""
    return [np.nan if v is None else v for v in values]
