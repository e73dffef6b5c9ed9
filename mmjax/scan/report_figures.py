"""Figures of the report: Matplotlib drawn without pyplot, handed over as inline SVG.

Colours in the drawing are placeholders that become CSS variables of the page, so that one SVG
serves light and dark mode. Text stays text, ids are made unique, metadata is dropped: the same
numbers give the same bytes.
"""

import io
import re
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from jaxtyping import Float, Int
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from scipy.stats import norm

_PALETTE = {
    "#010101": "--fig-ink",
    "#020202": "--fig-grid",
    "#030303": "--fig-bar",
    "#040404": "--fig-flag",
    "#050505": "--fig-line",
    "#060606": "--fig-seed",
    "#070707": "--fig-surface",
    "#080808": "--fig-soft",
}
_INK, _GRID, _BAR, _FLAG, _LINE, _SEED, _SURFACE, _SOFT = _PALETTE
_STYLE: dict[Any, Any] = {
    "svg.hashsalt": "mmjax",
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",
    "font.size": 12.5,
    "text.color": _INK,
    "axes.edgecolor": _GRID,
    "axes.labelcolor": _INK,
    "axes.linewidth": 1.0,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "axes.unicode_minus": True,
}
_LOWEST = 0.7  # bottom of a logarithmic axis of counts: a single pair is still a bar


class Histogram(NamedTuple):
    """Counts of all scored pairs and of the flagged ones among them, in the same bins."""

    edges: Float[np.ndarray, " bins+1"]
    counts: Int[np.ndarray, " bins"]
    flagged: Int[np.ndarray, " bins"]


class Mixture(NamedTuple):
    """Gaussian components of the consistency: means, variances, weights (they sum to 1)."""

    means: Float[np.ndarray, " k"]
    variances: Float[np.ndarray, " k"]
    weights: Float[np.ndarray, " k"]


class PrecisionRecall(NamedTuple):
    """Points of a precision-recall curve by falling threshold, all in [0, 1]."""

    recall: Float[np.ndarray, " t"]
    precision: Float[np.ndarray, " t"]


def consistency_figure(
    histogram: Histogram, mixture: Mixture | None, cut: float | None, seed_threshold: float | None
) -> Markup:
    """Histogram of c with its Gaussian mixture, the cut of the benign part and the seeds."""
    figure, axes = _canvas()
    _bars(axes, histogram)
    if mixture is not None:
        _draw_mixture(axes, histogram, mixture)
    top = _log_counts(axes, histogram)
    low, high = float(histogram.edges[0]), float(histogram.edges[-1])
    if seed_threshold is not None:
        axes.axvspan(min(seed_threshold, high), high, color=_SEED, alpha=0.16, lw=0, zorder=0)
        _label(axes, seed_threshold, 0.87, "seeds", _SEED, low, high)
    if cut is not None:
        axes.axvline(cut, color=_LINE, lw=1.6, ls=(0, (5, 3)))
        _label(axes, cut, 0.96, "surely consistent up to here", _LINE, low, high)
    axes.set(xlim=(low, high), ylim=(_LOWEST, top), xlabel="gap c (0 = caption fits as expected)")
    axes.set_ylabel("pairs (log scale)")
    total = int(histogram.counts.sum())
    cut_text = "" if cut is None else f" Pairs below {cut:.3f} count as consistent."
    seeds_text = "" if seed_threshold is None else f" The seeds lie from {seed_threshold:.3f} up."
    return _svg(
        figure,
        "consistency",
        f"Histogram of the gap c of {total:,} pairs, from {low:.2f} to {high:.2f}, with the "
        f"components of its Gaussian mixture.{cut_text}{seeds_text}",
    )


def _draw_mixture(axes: Axes, histogram: Histogram, mixture: Mixture) -> None:
    """Draws each weighted component, and their sum, in expected pairs a bin."""
    low, high = float(histogram.edges[0]), float(histogram.edges[-1])
    x = np.linspace(low, high, 160)
    scale = histogram.counts.sum() * float(np.diff(histogram.edges).mean())
    sigma = np.sqrt(np.maximum(mixture.variances, 1e-12))
    parts = (
        scale
        * mixture.weights[:, None]
        * norm.pdf(x[None, :], mixture.means[:, None], sigma[:, None])
    )
    for part in parts:
        shown = part > _LOWEST
        axes.plot(x[shown], part[shown], color=_LINE, lw=1.0, alpha=0.75)
    axes.plot(x, np.maximum(parts.sum(0), _LOWEST / 10), color=_INK, lw=1.6)


def correlation_figure(histogram: Histogram, threshold: float | None) -> Markup:
    """Distribution of z, flagged pairs in colour, with the smallest z of a flagged pair."""
    figure, axes = _canvas()
    _bars(axes, histogram)
    top = _log_counts(axes, histogram)
    low, high = float(histogram.edges[0]), float(histogram.edges[-1])
    if threshold is not None:
        axes.axvline(threshold, color=_FLAG, lw=1.6, ls=(0, (5, 3)))
        _label(axes, threshold, 0.96, f"flagged from {threshold:.2f}", _FLAG, low, high)
    axes.set(xlim=(low, high), ylim=(_LOWEST, top))
    axes.set(xlabel="likeness z of the caption", ylabel="pairs (log scale)")
    flagged, total = int(histogram.flagged.sum()), int(histogram.counts.sum())
    rule = "Nothing is flagged." if threshold is None else f"Flagged from {threshold:.3f} up."
    return _svg(
        figure,
        "correlation",
        f"Histogram of the likeness z of {total:,} captions to the captions of the seeds. {rule} "
        f"{flagged:,} pairs are flagged.",
    )


def precision_recall_figure(curve: PrecisionRecall, chosen: tuple[float, float] | None) -> Markup:
    """Precision against recall; `chosen` is (recall, precision) of the flags of this scan."""
    figure, axes = _canvas()
    axes.step(curve.recall, curve.precision, where="post", color=_LINE, lw=2.2)
    axes.fill_between(curve.recall, curve.precision, step="post", color=_LINE, alpha=0.12, lw=0)
    if chosen is not None:
        axes.plot(*chosen, "o", ms=9, mfc=_FLAG, mec=_SURFACE, mew=1.5, clip_on=False, zorder=5)
        axes.annotate(
            "this scan", chosen, xytext=(-12, -20), textcoords="offset points",
            ha="right", color=_FLAG, fontweight="bold",
        )  # fmt: skip
    axes.set(xlim=(0, 1.02), ylim=(0, 1.04))
    axes.set_xlabel("recall (share of the poisoned pairs that is found)")
    axes.set_ylabel("precision (share of flags that is right)")
    description = "Precision-recall curve of the poison score."
    if chosen is not None:
        description += f" This scan: recall {chosen[0]:.3f}, precision {chosen[1]:.3f}."
    return _svg(figure, "precision", description)


def _canvas() -> tuple[Figure, Axes]:
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(7.2, 3.9))
        axes = figure.add_axes((0.105, 0.145, 0.88, 0.835))
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.grid(axis="y", color=_GRID, lw=0.8)
        axes.set_axisbelow(True)
        return figure, axes


def _bars(axes: Axes, histogram: Histogram) -> None:
    edges, floor = histogram.edges, _LOWEST / 10
    axes.stairs(np.maximum(histogram.counts, floor), edges, baseline=floor, fill=True, color=_BAR)
    if histogram.flagged.any():
        flagged = np.maximum(histogram.flagged, floor)
        axes.stairs(flagged, edges, baseline=floor, fill=True, color=_FLAG)


def _log_counts(axes: Axes, histogram: Histogram) -> float:
    """Makes y logarithmic with plain numbers (1, 10, 1,000); returns its top, room for labels."""
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(10))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    return 4.0 * max(float(histogram.counts.max(initial=0)), 10.0)


def _label(
    axes: Axes, x: float, height: float, text: str, color: str, low: float, high: float
) -> None:
    """Writes `text` beside a vertical line at x, on the side that has room."""
    left = (x - low) > 0.6 * (high - low)
    axes.annotate(
        text, (min(max(x, low), high), height), xycoords=axes.get_xaxis_transform(),
        xytext=(-6 if left else 6, 0), textcoords="offset points",
        ha="right" if left else "left", va="center", color=color, fontweight="bold",
    )  # fmt: skip


def _svg(figure: Figure, name: str, description: str) -> Markup:
    """Renders to an inline SVG element with placeholders replaced and unique ids."""
    buffer = io.StringIO()
    with mpl.rc_context(_STYLE):
        figure.patch.set_alpha(0)
        for axes in figure.axes:
            axes.patch.set_alpha(0)
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"\s*<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<style .*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.DOTALL)
    for color, variable in _PALETTE.items():
        text = text.replace(color, f"var({variable})")
    used = set(re.findall(r'(?:href="|url\()#([^")]+)', text))
    text = re.sub(r' id="([^"]+)"', lambda m: f' id="{name}-{m[1]}"' if m[1] in used else "", text)
    text = re.sub(r'(href="|url\()#', rf"\g<1>#{name}-", text)
    text = re.sub(r' (?:width|height)="[\d.]+pt"', "", text, count=2)
    label = f'<svg class="figure" role="img" aria-label="{escape(description)}"'
    return Markup(text.replace("<svg", label, 1))
