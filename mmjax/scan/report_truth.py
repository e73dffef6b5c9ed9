"""The verdict tables against known labels: counts, rates, and the precision-recall curve."""

import math
from collections.abc import Iterable, Mapping

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float

from mmjax.core.errors import InputError
from mmjax.scan.report import Truth
from mmjax.scan.report_figures import PrecisionRecall
from mmjax.scan.report_table import column, is_flagged, matches

_MARK = "-POISONED"  # in the names of poisoned shards; may have been renamed away
_POINTS = 200


def compare(tables: Iterable[pa.Table], labels: pa.Table) -> Truth:
    """Compares the verdicts of the scored rows with their labels.

    Args:
        tables: Verdict tables, one a shard.
        labels: A `poison_labels.parquet`: columns shard, ordinal, is_poisoned.

    Raises:
        InputError: a scanned row has no label.
    """
    known = _by_shard(labels)
    truth, flags, scores, gaps, seeds = [], [], [], [], []
    for table in tables:
        if table.num_rows == 0:
            continue
        scored = matches(table, "status", "ok")
        truth.append(_truth_of(table, known)[scored])
        flags.append(is_flagged(table)[scored])
        scores.append(column(table, "poison_score")[scored])
        gaps.append(column(table, "consistency")[scored])
        seeds.append(matches(table, "coarse", "seed")[scored])
    return _measure(*(np.concatenate(parts) for parts in (truth, flags, scores, gaps, seeds)))


def _by_shard(labels: pa.Table) -> Mapping[str, dict[int, bool]]:
    known: dict[str, dict[int, bool]] = {}
    names, ordinals, poisoned = (labels[c].to_pylist() for c in ("shard", "ordinal", "is_poisoned"))
    for shard, ordinal, label in zip(names, ordinals, poisoned, strict=True):
        known.setdefault(shard.removesuffix(_MARK), {})[ordinal] = bool(label)
    return known


def _truth_of(table: pa.Table, known: Mapping[str, dict[int, bool]]) -> Bool[np.ndarray, " n"]:
    shard = table["shard"][0].as_py()
    labels = known.get(shard.removesuffix(_MARK), {})
    try:
        return np.array([labels[ordinal] for ordinal in table["ordinal"].to_pylist()], bool)
    except KeyError as missing:
        raise InputError(
            f"the labels lack {shard} row {missing.args[0]}; "
            "give the poison_labels.parquet of the set that was scanned"
        ) from missing


def _measure(
    truth: Bool[np.ndarray, " n"],
    flags: Bool[np.ndarray, " n"],
    scores: Float[np.ndarray, " n"],
    gaps: Float[np.ndarray, " n"],
    seeds: Bool[np.ndarray, " n"],
) -> Truth:
    found, false = int((truth & flags).sum()), int((~truth & flags).sum())
    missed, kept = int((truth & ~flags).sum()), int((~truth & ~flags).sum())
    ranking, curve = _ranking(truth, scores)
    coarse, _ = _ranking(truth, gaps)
    metrics = {
        "true_positive_rate": _ratio(found, found + missed),
        "false_positive_rate": _ratio(false, false + kept),
        "precision": _ratio(found, found + false),
        **ranking,
        "coarse_auroc": coarse["auroc"],
        "seed_purity": _ratio(int((truth & seeds).sum()), int(seeds.sum())),
    }
    return Truth(found, false, missed, kept, curve, metrics)


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else math.nan


def _ranking(
    truth: Bool[np.ndarray, " n"], scores: Float[np.ndarray, " n"]
) -> tuple[dict[str, float], PrecisionRecall | None]:
    """AUROC, average precision and curve over the rows that have a score; NaN if undefined."""
    finite = np.isfinite(scores)
    truth, scores = truth[finite], scores[finite]
    if truth.all() or not truth.any():
        return {"auroc": math.nan, "auprc": math.nan}, None
    from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

    precision, recall, _ = precision_recall_curve(truth, scores)
    precision, recall = precision[:-1][::-1], recall[:-1][::-1]
    points = np.unique(np.linspace(0, len(recall) - 1, min(_POINTS, len(recall))).astype(int))
    measures = {
        "auroc": float(roc_auc_score(truth, scores)),
        "auprc": float(average_precision_score(truth, scores)),
    }
    return measures, PrecisionRecall(
        np.append(0.0, recall[points]), np.append(precision[points[0]], precision[points])
    )
