"""One self-contained HTML page per scan: `render(ReportData) -> str`, a pure function.

The page needs no network, no script and no second file. All text that comes from data passes
through `report_captions.visible` and Jinja's autoescaping; the content security policy forbids
everything but inline style and `data:` images. Equal data gives equal bytes.
"""

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Literal, NamedTuple

import numpy as np
from jinja2 import Environment, FunctionLoader, StrictUndefined, Template
from markupsafe import Markup

from mmjax.scan import report_figures, report_images
from mmjax.scan.report_captions import CaptionCluster, SharedWord, shorten, visible
from mmjax.scan.report_figures import Histogram, Mixture, PrecisionRecall
from mmjax.scan.report_groups import Findings
from mmjax.scan.report_images import MeanImages
from mmjax.scan.report_text import METRICS, SCORES, SUMMARY, VERDICTS
from mmjax.scan.verdicts import Drop

Outcome = Literal["poisoned", "clean", "undetermined"]
"""What the scan found: poisoned pairs, no evidence of any, or too little to decide."""


class ReportPair(NamedTuple):
    """One pair with its picture. `scores` is keyed by the verdict table's columns; NaN = none."""

    rank: int
    shard: str
    ordinal: int
    key: str
    caption: str
    verdict: str
    scores: Mapping[str, float]
    image_png: bytes | None


class SkippedGroup(NamedTuple):
    """Rows that share a status (or a flag): how many, what it means, the first few keys."""

    status: str
    meaning: str
    pairs: int
    keys: tuple[str, ...]


class Truth(NamedTuple):
    """The scan against known labels; `metrics` is keyed by `report_text.METRICS` (NaN = none)."""

    true_positives: int
    false_positives: int
    false_negatives: int
    true_negatives: int
    curve: PrecisionRecall | None
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class ReportData:
    """Everything that the page shows, as plain values.

    Attributes:
        title: Title of the page, usually what was scanned.
        outcome: Decides colour and symbol of the verdict.
        verdict: The sentence that a reader takes away.
        actions: What was done about it, one sentence each.
        counts: Rows by verdict (`core.types.Verdict`); they add up to all rows read.
        summary: Figures of the single stages, keyed by `report_text.SUMMARY` or freely.
        worst: The worst pairs, worst first (12 to 24).
        findings: Groups of poisoned pairs, wordings that repeat among captions that were not
            flagged, and the surest of the merely wrong pairs.
        drop: `mismatched` where merely wrong pairs were dropped too.
        mean_images: None when nothing was flagged or no pictures are at hand.
        c_histogram: The gap c of all scored pairs, None when it was not computed.
        mixture: The Gaussian mixture fitted to c.
        cut: Largest c of the consistent part.
        seed_threshold: Smallest c of a seed.
        z_histogram: The likeness z of the pairs of the fine stage.
        z_threshold: Cut on z in paper mode, None where there is none.
        words: Words that the flagged captions share.
        clusters: Wordings among the flagged captions.
        skipped: What was skipped and why.
        remarks: Flags of rows that were scored all the same.
        truth: Only where the truth is known.
        command: The command line that made the scan.
        config: The full configuration as text.
        environment: Versions, fingerprints, devices, durations.
        limits: What the method cannot see, one sentence each.
        warnings: What the reader must know before trusting the page.
    """

    title: str
    outcome: Outcome
    verdict: str
    actions: Sequence[str]
    counts: Mapping[str, int]
    summary: Mapping[str, object]
    worst: Sequence[ReportPair]
    findings: Findings
    drop: Drop
    mean_images: MeanImages | None
    c_histogram: Histogram | None
    mixture: Mixture | None
    cut: float | None
    seed_threshold: float | None
    z_histogram: Histogram | None
    z_threshold: float | None
    words: Sequence[SharedWord]
    clusters: Sequence[CaptionCluster]
    skipped: Sequence[SkippedGroup]
    remarks: Sequence[SkippedGroup]
    truth: Truth | None
    command: str
    config: str
    environment: Mapping[str, str]
    limits: Sequence[str]
    warnings: Sequence[str]


def render(data: ReportData) -> str:
    """Returns the page as HTML text that can always be encoded as UTF-8."""
    return _template().render(
        report=data,
        total=sum(data.counts.values()),
        scored=sum(n for verdict, n in data.counts.items() if verdict != "skipped"),
        verdicts=VERDICTS,
        score_texts=SCORES,
        summary_texts=SUMMARY,
        metric_texts=METRICS,
        few_flagged=report_images.FEW_FLAGGED,
        css=Markup(_asset("style.css")),
        means=_mean_pictures(data.mean_images),
        area=None if data.mean_images is None else report_images.shared_area(data.mean_images),
        figures=_figures(data),
    )


def _figures(data: ReportData) -> dict[str, Markup | None]:
    """Draws what can be drawn; None where there is nothing to draw."""
    figures: dict[str, Markup | None] = dict.fromkeys(("consistency", "correlation", "precision"))
    if data.c_histogram is not None and data.c_histogram.counts.any():
        figures["consistency"] = report_figures.consistency_figure(
            data.c_histogram, data.mixture, data.cut, data.seed_threshold
        )
    if data.z_histogram is not None and data.z_histogram.counts.any():
        figures["correlation"] = report_figures.correlation_figure(
            data.z_histogram, data.z_threshold
        )
    if data.truth is not None and data.truth.curve is not None:
        found = data.truth.true_positives
        flagged = found + data.truth.false_positives
        chosen = None
        if found:
            chosen = (found / (found + data.truth.false_negatives), found / flagged)
        figures["precision"] = report_figures.precision_recall_figure(data.truth.curve, chosen)
    return figures


def _mean_pictures(means: MeanImages | None) -> dict[str, str]:
    """The four mean pictures as `data:` addresses."""
    if means is None:
        return {}
    sameness = 255 * (1 - np.clip(means.spread, 0, 1))
    pictures = {
        "flagged": means.flagged,
        "benign": means.benign,
        "difference": means.difference,
        "sameness": sameness,
    }
    return {
        name: report_images.data_uri(report_images.encode_png(np.rint(pixels).astype(np.uint8)))
        for name, pixels in pictures.items()
    }


@functools.cache
def _template() -> Template:
    environment = Environment(
        loader=FunctionLoader(_asset),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_inert,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        caption=shorten,
        thousands=lambda n: f"{n:,}",
        percent=percent,
        number=number,
        png=report_images.data_uri,
        jpeg=functools.partial(report_images.data_uri, kind="jpeg"),
    )
    return environment.get_template("index.html.j2")


def _asset(name: str) -> str:
    return resources.files("mmjax").joinpath("assets", "report", name).read_text("utf-8")


def _inert(value: object) -> object:
    """Last gate before output: whatever an expression yields is visible text or our own markup."""
    if isinstance(value, Markup):
        return value
    return visible(str(value), keep_newlines=True)


def percent(part: int | float, whole: int | float = 1.0) -> str:
    """Returns a share as people write it: "0 %", "0.02 %", "1.0 %", "12 %", "99.97 %"."""
    share = 100 * part / whole if whole else 0.0
    if share == 0 or share == 100:
        return f"{share:.0f} %"
    if share < 0.01:
        return "< 0.01 %"
    if share < 0.1:
        return f"{share:.2f} %"
    if share > 99:
        return f"{math.floor(share * 100) / 100:.2f} %"  # never rounded up to all
    return f"{share:.1f} %" if share < 10 or share > 90 else f"{share:.0f} %"


def number(value: object) -> str:
    """Returns a value for a table: three digits, thousands separated, "–" for none."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        shown = f"{value:.3f}" if abs(value) < 1000 else f"{value:,.0f}"
        return shown.replace("-", "−")
    return str(value)
