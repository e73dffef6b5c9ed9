"""How well a detector separates poisoned from clean pairs: ranking, decisions, counts."""

import dataclasses
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float

from mmjax.core.errors import InputError

MARK = "-POISONED"


@dataclasses.dataclass(frozen=True)
class Detection:
    """The measures of one detector on one labelled set.

    Counts and rates are over the pairs that have a score; `skipped_*` counts the others. A
    measure that is not defined is None and `reason` says why.
    """

    pairs: int
    poisoned: int
    skipped_poisoned: int
    skipped_clean: int
    auroc: float | None
    """Probability that a poisoned pair scores higher than a clean one; ties count half."""
    auprc: float | None
    """Average precision."""
    fpr_at_95_tpr: float | None
    """The least false-positive rate of a threshold that finds at least 95 % of the poison."""
    tpr_at_0_1_fpr: float | None
    """The share of poison that a threshold finds which flags at most .1 % of the clean pairs."""
    tpr_at_1_fpr: float | None
    """The same for 1 %."""
    recall_at_poisoned: float | None
    """Share of the poison among as many top-scored pairs as there is poison; expected over ties."""
    tpr: float | None
    fpr: float | None
    flagged: int | None
    survivors: int | None
    """Poisoned pairs with a score that were not flagged: what stays in the cleaned set."""
    clean_lost: int | None
    seed_purity: float | None
    """Share of poison among the seeds."""
    reason: str = ""


def measure(
    scores: Float[np.ndarray, " n"],
    poisoned: Bool[np.ndarray, " n"],
    *,
    flags: Bool[np.ndarray, " n"] | None = None,
    threshold: float | None = None,
    seeds: Bool[np.ndarray, " n"] | None = None,
) -> Detection:
    """Measure a detector.

    Args:
        scores: high = poisoned; NaN marks a pair that has none (a skipped row). Infinite scores
            are ranked.
        poisoned: the truth.
        flags: the detector's decisions; a pair without a score counts as skipped whatever it says.
        threshold: instead of `flags`, flag what scores at least this.
        seeds: the pairs that the detector started from.

    Raises:
        ValueError: both `flags` and `threshold` were given.
    """
    if flags is not None and threshold is not None:
        raise ValueError("measure wants either flags or threshold, got both")
    scored = ~np.isnan(scores)
    if threshold is not None:
        flags = scores >= threshold
    truth, values = poisoned[scored], scores[scored]
    positives, negatives = int(truth.sum()), int((~truth).sum())
    purity = None
    if seeds is not None and seeds[scored].any():
        purity = float(truth[seeds[scored]].mean())
    counts: dict[str, Any] = dict.fromkeys(
        ("tpr", "fpr", "flagged", "survivors", "clean_lost"), None
    )
    if flags is not None:
        flagged = flags[scored]
        hits, lost = int((flagged & truth).sum()), int((flagged & ~truth).sum())
        counts = {
            "tpr": hits / positives if positives else None,
            "fpr": lost / negatives if negatives else None,
            "flagged": hits + lost,
            "survivors": positives - hits,
            "clean_lost": lost,
        }
    missing = [name for name, n in (("poisoned", positives), ("clean", negatives)) if not n]
    return Detection(
        pairs=len(truth),
        poisoned=positives,
        skipped_poisoned=int((poisoned & ~scored).sum()),
        skipped_clean=int((~poisoned & ~scored).sum()),
        **_ranking(values, truth, defined=not missing),
        **counts,
        seed_purity=purity,
        reason=f"no {' and no '.join(missing)} pair has a score" if missing else "",
    )


def _ranking(
    scores: Float[np.ndarray, " n"], truth: Bool[np.ndarray, " n"], *, defined: bool
) -> dict[str, float | None]:
    """The measures that need no threshold, each None where a class is empty."""
    names = ("auroc", "auprc", "fpr_at_95_tpr", "tpr_at_0_1_fpr", "tpr_at_1_fpr")
    if not defined:
        return dict.fromkeys((*names, "recall_at_poisoned"))
    from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

    scores = np.nan_to_num(scores.astype(np.float64))  # scikit-learn refuses infinities
    fpr, tpr, _ = roc_curve(truth, scores, drop_intermediate=False)
    return {
        "auroc": float(roc_auc_score(truth, scores)),
        "auprc": float(average_precision_score(truth, scores)),
        "fpr_at_95_tpr": float(fpr[tpr >= 0.95].min()),
        "tpr_at_0_1_fpr": float(tpr[fpr <= 0.001].max()),
        "tpr_at_1_fpr": float(tpr[fpr <= 0.01].max()),
        "recall_at_poisoned": recall_at(scores, truth, int(truth.sum())),
    }


def recall_at(
    scores: Float[np.ndarray, " n"], truth: Bool[np.ndarray, " n"], budget: int
) -> float | None:
    """Share of the poison among the `budget` top scores, its expectation where scores tie."""
    if not truth.any() or budget <= 0:
        return None
    budget = min(budget, len(scores))
    cut = np.partition(scores, len(scores) - budget)[len(scores) - budget]
    above, level = scores > cut, scores == cut
    share = (budget - int(above.sum())) / int(level.sum())
    return float((truth[above].sum() + share * truth[level].sum()) / truth.sum())


def precision_recall(
    scores: Float[np.ndarray, " n"], poisoned: Bool[np.ndarray, " n"], *, points: int = 200
) -> dict[str, list[float]]:
    """At most `points` points of the precision–recall curve, recall ascending from 0.

    Empty lists when no scored pair is poisoned.
    """
    scored = ~np.isnan(scores)
    if not poisoned[scored].any():
        return {"recall": [], "precision": [], "threshold": []}
    from sklearn.metrics import precision_recall_curve

    values = np.nan_to_num(scores[scored].astype(np.float64))
    precision, recall, threshold = precision_recall_curve(poisoned[scored], values)
    precision, recall = precision[:-1][::-1], recall[:-1][::-1]
    chosen = np.unique(np.linspace(0, len(recall) - 1, min(points, len(recall))).round())
    index = chosen.astype(int)
    return {
        "recall": recall[index].tolist(),
        "precision": precision[index].tolist(),
        "threshold": threshold[::-1][index].tolist(),
    }


def join_truth(verdicts: pa.Table, labels: pa.Table) -> pa.Table:
    """The rows of `verdicts`, in their order, with the columns `truth` and `attack` added.

    Rows meet by (shard, ordinal); the mark in a poisoned shard's name is ignored on both sides,
    so that shards which were renamed to hide it still meet their labels.

    Args:
        verdicts: columns shard, ordinal and, when present, key.
        labels: a `poison_labels.parquet`: shard, ordinal, is_poisoned and, when present, key,
            attack.

    Raises:
        InputError: the tables do not describe the same rows.
    """
    told: dict[tuple[str, int], int] = {}
    for i, row in enumerate(_identities(labels)):
        if told.setdefault(row, i) != i:
            raise InputError(f"the labels tell of {row[0]} row {row[1]} twice; make them anew")
    rows = _identities(verdicts)
    unknown = [row for row in rows if row not in told]
    if unknown:
        shard, ordinal = unknown[0]
        raise InputError(
            f"the labels lack {len(unknown)} of {len(rows)} scanned rows, first {shard} row "
            f"{ordinal}; give the poison_labels.parquet of the set that was scanned"
        )
    if len(rows) != len(told):
        shard, ordinal = min(told.keys() - set(rows), default=("a", 0))
        raise InputError(
            f"the labels tell of {len(told)} rows, the scan of {len(rows)}, missing first {shard} "
            f"row {ordinal}; scan the whole set, or give the labels of the part that was scanned"
        )
    matched = labels.take(pa.array([told[row] for row in rows], pa.int64()))
    if "key" in verdicts.column_names and "key" in labels.column_names:
        pairs = zip(verdicts["key"].to_pylist(), matched["key"].to_pylist(), strict=True)
        for row, (seen, wanted) in zip(rows, pairs, strict=True):
            if seen != wanted:
                raise InputError(
                    f"{row[0]} row {row[1]} has the key {seen!r} in the scan and {wanted!r} in the "
                    "labels; give the poison_labels.parquet of the set that was scanned"
                )
    attack = matched["attack"] if "attack" in labels.column_names else pa.nulls(len(rows))
    return verdicts.append_column("truth", matched["is_poisoned"]).append_column("attack", attack)


def _identities(table: pa.Table) -> list[tuple[str, int]]:
    shards = [shard.removesuffix(MARK) for shard in table["shard"].to_pylist()]
    return list(zip(shards, table["ordinal"].to_pylist(), strict=True))
