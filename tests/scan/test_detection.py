"""Measures of a detector against loops, ties, absent classes; joining scans with the truth."""

import numpy as np
import pyarrow as pa
import pytest

from mmjax.core.errors import InputError
from mmjax.scan.detection import join_truth, measure, precision_recall, recall_at

SCORES = np.array([0.9, 0.8, 0.8, 0.3, 0.1, np.nan, np.nan], np.float32)
TRUTH = np.array([True, False, True, False, False, True, False])


def test_measures_of_a_small_example() -> None:
    flags = np.array([True, True, False, False, False, True, True])
    seeds = np.array([True, True, False, False, False, True, False])
    found = measure(SCORES, TRUTH, flags=flags, seeds=seeds)
    assert (found.pairs, found.poisoned) == (5, 2)
    assert (found.skipped_poisoned, found.skipped_clean) == (1, 1)
    # (.9, .8) against (.8, .3, .1): 5 wins and one tie of 6
    assert found.auroc == pytest.approx(5.5 / 6)
    assert found.auprc == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert found.fpr_at_95_tpr == pytest.approx(1 / 3)
    assert found.recall_at_poisoned == pytest.approx((1 + 0.5) / 2)
    assert (found.tpr, found.fpr) == (0.5, pytest.approx(1 / 3))
    assert (found.flagged, found.survivors, found.clean_lost) == (2, 1, 1)
    assert found.seed_purity == 0.5
    assert found.reason == ""


def test_auroc_and_fpr_equal_a_loop() -> None:
    rng = np.random.default_rng(0)
    truth = rng.random(300) < 0.2
    scores = rng.integers(0, 20, 300) + 8.0 * truth  # ties
    scores[np.argmax(scores * ~truth)] = 30.0  # one clean pair above all poison
    found = measure(scores, truth)
    pairs = [(p > c) + 0.5 * (p == c) for p in scores[truth] for c in scores[~truth]]
    assert found.auroc == pytest.approx(np.mean(pairs), abs=1e-12)
    best = min(np.mean(scores[~truth] >= t) for t in scores if np.mean(scores[truth] >= t) >= 0.95)
    assert found.fpr_at_95_tpr == pytest.approx(best, abs=1e-12)
    for limit, got in ((0.001, found.tpr_at_0_1_fpr), (0.01, found.tpr_at_1_fpr)):
        cuts = [t for t in (*scores, np.inf) if np.mean(scores[~truth] >= t) <= limit]
        assert got == pytest.approx(max(np.mean(scores[truth] >= t) for t in cuts), abs=1e-12)


def test_threshold_is_inclusive_and_excludes_flags() -> None:
    found = measure(SCORES, TRUTH, threshold=float(SCORES[1]))
    assert (found.flagged, found.survivors, found.clean_lost) == (3, 0, 1)
    with pytest.raises(ValueError, match="either"):
        measure(SCORES, TRUTH, threshold=0.5, flags=TRUTH)


def test_a_class_that_is_absent_gives_none_with_the_reason() -> None:
    clean = measure(SCORES, np.zeros(7, bool), flags=np.zeros(7, bool))
    assert clean.auroc is None
    assert clean.auprc is None
    assert clean.tpr is None
    assert clean.fpr == 0
    assert clean.clean_lost == 0
    assert clean.reason == "no poisoned pair has a score"
    empty = measure(np.full(2, np.nan), np.array([True, False]))
    assert empty.reason == "no poisoned and no clean pair has a score"
    assert precision_recall(SCORES, np.zeros(7, bool))["recall"] == []


def test_infinite_scores_are_ranked() -> None:
    assert measure(np.array([np.inf, 1, -np.inf]), np.array([True, False, False])).auroc == 1


def test_recall_at_is_the_expectation_over_ties() -> None:
    scores, truth = np.ones(10), np.arange(10) < 4
    assert recall_at(scores, truth, 5) == pytest.approx(0.5)
    assert recall_at(scores, truth, 100) == 1
    assert recall_at(scores, np.zeros(10, bool), 5) is None


def test_precision_recall_is_thinned_and_ordered() -> None:
    rng = np.random.default_rng(1)
    truth = rng.random(2000) < 0.1
    curve = precision_recall(rng.random(2000) + truth, truth, points=50)
    assert len(curve["recall"]) == len(curve["precision"]) == len(curve["threshold"]) == 50
    assert np.all(np.diff(curve["recall"]) >= 0)
    assert curve["recall"][-1] == 1


VERDICTS = pa.table(
    {
        "shard": ["b-POISONED", "a", "a"],
        "ordinal": pa.array([0, 1, 0], pa.int32()),
        "key": ["k2", "k1", "k0"],
    }
)
LABELS = pa.table(
    {
        "shard": ["a-POISONED", "a-POISONED", "b-POISONED"],
        "ordinal": pa.array([0, 1, 0], pa.int32()),
        "key": ["k0", "k1", "k2"],
        "is_poisoned": [False, True, False],
        "attack": ["", "badnets", ""],
    }
)


def test_join_keeps_the_order_of_the_scan_and_ignores_the_mark() -> None:
    joined = join_truth(VERDICTS, LABELS)
    assert joined["key"].to_pylist() == ["k2", "k1", "k0"]
    assert joined["truth"].to_pylist() == [False, True, False]
    assert joined["attack"].to_pylist() == ["", "badnets", ""]


@pytest.mark.parametrize(
    ("verdicts", "labels", "message"),
    [
        (VERDICTS, LABELS.slice(1), "lack 1 of 3 scanned rows, first a row 0"),
        (VERDICTS.slice(1), LABELS, "the labels tell of 3 rows, the scan of 2"),
        (VERDICTS.slice(0, 2), pa.concat_tables([LABELS, LABELS]), "twice"),
        (
            VERDICTS,
            LABELS.set_column(2, "key", pa.array(["k0", "k1", "other"])),
            "'k2' in the scan and 'other' in the labels",
        ),
    ],
)
def test_join_refuses_other_sets_in_one_line(
    verdicts: pa.Table, labels: pa.Table, message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        join_truth(verdicts, labels)
    assert "\n" not in str(caught.value)
