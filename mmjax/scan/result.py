"""What a scan says: its summary, and the lines that a person reads."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import pyarrow as pa

from mmjax.core.types import STATUSES
from mmjax.scan.config import ScanConfig
from mmjax.scan.fine import MOST_GROUPS
from mmjax.scan.inputs import ScannedSet
from mmjax.scan.mapping import Mapping
from mmjax.scan.report import Truth
from mmjax.scan.stages import StageResult
from mmjax.scan.verdicts import Counts, read_verdicts


@dataclasses.dataclass(frozen=True)
class ScanResult:
    """A finished scan.

    Attributes:
      folder: the run folder.
      summary: counts, evidence, thresholds, warnings: `summary.json`.
      report_path: the HTML report.
    """

    folder: Path
    summary: dict[str, Any]
    report_path: Path

    @property
    def verdicts(self) -> pa.Table:
        """One row per input pair (`verdicts.VERDICT_SCHEMA`)."""
        return read_verdicts(self.folder, self.summary["shards"])

    @property
    def degraded(self) -> bool:
        """Whether more inputs were skipped or cut off than the configuration allows."""
        return bool(self.summary["degraded"])

    def lines(self) -> list[str]:
        """What was found, a few lines for a terminal; nothing of the data itself."""
        counts, total = self.summary["counts"], self.summary["total"]
        listed = ", ".join(f"{n:,} {verdict}" for verdict, n in counts.items() if n)
        lines = [self.summary["verdict"], f"{total:,} pairs: {listed}"]
        for status, n in self.summary["statuses"].items():
            if status != "ok":
                lines.append(f"skipped {n:,} x {status}: {STATUSES[status]}")
        truth = self.summary.get("truth")
        if truth:
            lines.append(
                f"against the truth: TPR {_percent(truth['true_positive_rate'])}, "
                f"FPR {_percent(truth['false_positive_rate'])}; "
                f"{truth['survivors']:,} of {truth['poisoned']:,} poisoned pairs survive, "
                f"{truth['clean_lost']:,} clean pairs lost"
            )
        lines += [f"warning: {warning}" for warning in self.summary["warnings"]]
        lines += [f"degraded: {reason}" for reason in self.summary["degraded"]]
        return [*lines, f"report: {self.report_path}"]


DEMO = (
    "the bundled demo model knows the scenes of `mmjax demo` only: of photos this scan says "
    "nothing; name a CLIP with --weights"
)
"""What is said of a scan by that model."""


def summarise(
    scanned: ScannedSet,
    mapping: Mapping,
    result: StageResult,
    counts: Counts,
    config: ScanConfig,
    truth: Truth | None,
) -> dict[str, Any]:
    """`summary.json`: plain values, the same for the same input."""
    poisoned = counts.verdicts.get("poisoned", 0)
    undetermined = counts.verdicts.get("undetermined", 0)
    skipped = counts.verdicts.get("skipped", 0)
    if undetermined:
        verdict = "undetermined: this set cannot be judged"
    elif poisoned:
        verdict = f"{poisoned:,} of {counts.total:,} pairs look poisoned"
    else:
        verdict = "no evidence of poisoning"
    degraded = []
    if counts.total and skipped / counts.total > config.max_bad_fraction:
        degraded.append(
            f"{skipped:,} of {counts.total:,} rows were skipped, more than "
            f"max_bad_fraction={config.max_bad_fraction:g}"
        )
    if not config.accept_partial:
        degraded += scanned.warnings
    return {
        "verdict": verdict,
        "evidence": result.evidence,
        "counts": dict(sorted(counts.verdicts.items())),
        "total": counts.total,
        "statuses": dict(sorted(counts.statuses.items())),
        "flags": dict(sorted(counts.flags.items())),
        "thresholds": result.thresholds._asdict(),
        "mixture": _mixture(result),
        "found": _found(result),
        "mapping": {
            "kind": mapping.kind,
            "reference": mapping.reference,
            "diagnostics": mapping.diagnostics,
        },
        "shards": [shard.name for shard in scanned.shards],
        "warnings": [
            *([DEMO] if config.weights == "demo" else []),
            *result.warnings,
            *(scanned.warnings if config.accept_partial else []),
        ],
        "degraded": degraded,
        "truth": _against(truth),
    }


def _against(truth: Truth | None) -> dict[str, Any] | None:
    """The comparison with known labels; a rate that has no denominator is None."""
    if truth is None:
        return None
    return {
        "poisoned": truth.true_positives + truth.false_negatives,
        "found": truth.true_positives,
        "survivors": truth.false_negatives,
        "clean_lost": truth.false_positives,
        **{name: float(v) if math.isfinite(v) else None for name, v in truth.metrics.items()},
    }


def _mixture(result: StageResult) -> dict[str, Any] | None:
    if result.mixture is None:
        return None
    mixture = result.mixture
    return {
        "means": [float(v) for v in mixture.means],
        "variances": [float(v) for v in mixture.variances],
        "weights": [float(v) for v in mixture.weights],
    }


def _found(result: StageResult) -> dict[str, Any] | None:
    """The seeds, and the groups of wrong pairs that the fine stage weighed."""
    if result.found is None:
        return None
    found = result.found
    return {
        "seeds": int(found.seeds.size),
        "null_test": found.null._asdict(),
        "wrong_share": found.wrong_share,
        "background": found.around.background if found.around else None,
        "loose_group": next((i for i, g in enumerate(found.groups) if not g.linked), None),
        "groups": [
            {
                "pairs": int(group.rows.size),
                "images": group.images,
                "captions": group.captions,
            }
            for group in found.groups[:MOST_GROUPS]
        ],
    }


def _percent(value: float | None) -> str:
    return "not defined" if value is None else f"{100 * value:.2f} %"
