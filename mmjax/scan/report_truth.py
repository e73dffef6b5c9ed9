"""The verdict tables against known labels, as the report shows it."""

import math
from collections.abc import Iterable

import numpy as np
import pyarrow as pa

from mmjax.scan.detection import Detection, join_truth, measure, precision_recall
from mmjax.scan.report import Truth
from mmjax.scan.report_figures import PrecisionRecall
from mmjax.scan.report_table import column, is_flagged, matches

_COLUMNS = ("shard", "ordinal", "status", "coarse", "consistency", "poison_score", "is_poisoned")


def compare(tables: Iterable[pa.Table], labels: pa.Table) -> Truth:
    """Compares the verdicts of the scored rows with their labels.

    Args:
        tables: Verdict tables, one a shard.
        labels: A `poison_labels.parquet`: columns shard, ordinal, is_poisoned.

    Raises:
        InputError: the labels are not those of the scanned rows.
    """
    joined = join_truth(pa.concat_tables([t.select(list(_COLUMNS)) for t in tables]), labels)
    joined = joined.filter(pa.array(matches(joined, "status", "ok")))
    truth = joined["truth"].to_numpy(zero_copy_only=False)
    scores = column(joined, "poison_score")
    seeds = matches(joined, "coarse", "seed")
    fine = measure(scores, truth, flags=is_flagged(joined), seeds=seeds)
    coarse = measure(column(joined, "consistency"), truth)
    curve = precision_recall(scores, truth)
    return _shown(fine, coarse.auroc, curve["recall"], curve["precision"])


def _shown(
    fine: Detection, coarse_auroc: float | None, recall: list[float], precision: list[float]
) -> Truth:
    lost, survivors, flagged = fine.clean_lost or 0, fine.survivors or 0, fine.flagged or 0
    found = flagged - lost
    metrics = {
        "true_positive_rate": fine.tpr,
        "false_positive_rate": fine.fpr,
        "precision": found / flagged if flagged else None,
        "auroc": fine.auroc,
        "auprc": fine.auprc,
        "coarse_auroc": coarse_auroc,
        "seed_purity": fine.seed_purity,
    }
    clean = fine.pairs - fine.poisoned
    drawn = None
    if recall:
        drawn = PrecisionRecall(np.array([0.0, *recall]), np.array([precision[0], *precision]))
    known = {name: math.nan if value is None else value for name, value in metrics.items()}
    return Truth(found, lost, survivors, clean - lost, drawn, known)
