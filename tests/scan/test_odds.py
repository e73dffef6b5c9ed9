"""Which pairs around a core are poison, by likeness z and gap c together."""

import numpy as np
import pytest

from mmjax.scan.calibration import CleanPairs
from mmjax.scan.odds import log_odds

NOTHING = CleanPairs(np.zeros(0), np.zeros(0))
N, POISON = 6_000, 60


def pairs(seed=0, *, topic=0, topic_gap=0.1, poison=POISON):
    """(z, c, is poison): benign pairs, `topic` of them as like the core as poison, and poison."""
    rng = np.random.default_rng(seed)
    z = np.concatenate(
        [rng.normal(0.0, 0.2, N), rng.normal(0.8, 0.08, topic), rng.normal(0.8, 0.08, poison)]
    )
    c = np.concatenate(
        [
            rng.gamma(4.0, 0.03, N),
            rng.normal(topic_gap, 0.04, topic),
            rng.normal(0.6, 0.12, poison),
        ]
    )
    truth = np.arange(z.size) >= N + topic
    return np.clip(z, -1, 1).astype(np.float32), np.maximum(c, 0).astype(np.float32), truth


def start(z, c):
    return (z > 0.7) & (c > np.quantile(c, 0.95))


def judged(z, c, clean=NOTHING, cost=100.0):
    return log_odds(z, c, start(z, c), clean) + np.log(cost) > 0


@pytest.mark.parametrize("seed", range(3))
def test_poison_is_found_and_its_topic_spared(seed):
    z, c, truth = pairs(seed, topic=200)
    flagged = judged(z, c)
    assert flagged[truth].mean() >= 0.98
    # neither z > 0.7 alone (most of the topic) nor c alone (5 % of everyone) would do
    assert flagged[~truth].mean() <= 0.005


def test_z_and_c_make_up_for_one_another():
    z, c, _ = pairs(topic=200)
    z[:4], c[:4] = [0.95, 0.95, 0.3, 0.3], [0.35, 0.05, 0.8, 0.3]
    flagged = judged(z, c)
    assert flagged[:4].tolist() == [True, False, True, False]


def test_a_larger_gap_or_likeness_never_speaks_for_a_pair():
    z, c, _ = pairs()
    ladder = np.linspace(0.5, 2.0, 20)
    z[:20], c[:20] = 0.8, ladder
    assert judged(z, c)[:20].all()
    z[:20], c[:20] = np.linspace(0.8, 1.0, 20), 0.6
    assert judged(z, c)[:20].all()


def test_the_probabilities_are_about_right():
    """Pairs that are poison with probability p are poison in about p of the cases."""
    outcomes = []
    for seed in range(8):
        z, c, truth = pairs(seed, topic=300, topic_gap=0.12)
        logarithm = log_odds(z, c, start(z, c), NOTHING)
        outcomes.append(np.stack([1 / (1 + np.exp(-logarithm)), truth]))
    probability, truth = np.concatenate(outcomes, axis=1)
    sure = probability > 0.9
    assert truth[sure].mean() > 0.85
    doubtful = (probability > 0.02) & (probability < 0.5)
    assert doubtful.sum() > 20
    assert 0.0 < truth[doubtful].mean() < 0.5


def test_a_dearer_miss_flags_more():
    z, c, truth = pairs(topic=300, topic_gap=0.3)
    counts = [judged(z, c, cost=cost).sum() for cost in (0.1, 1.0, 10.0, 100.0)]
    assert counts == sorted(counts)
    assert counts[0] < counts[-1]
    found = [judged(z, c, cost=cost)[truth].mean() for cost in (1.0, 100.0)]
    assert found[1] >= found[0]


def test_a_topic_that_the_model_reads_badly_is_known_from_the_reference():
    """Without the reference its large gaps look like poison; with it they are usual there."""
    z, c, truth = pairs(topic=300, topic_gap=0.32)
    rng = np.random.default_rng(1)
    clean = CleanPairs(
        np.concatenate([rng.normal(0.0, 0.2, 3_000), rng.normal(0.8, 0.08, 150)]),
        np.concatenate([rng.uniform(0.0, 1.0, 3_000), rng.uniform(0.95, 1.0, 150)]),
    )
    without, informed = judged(z, c, cost=10.0), judged(z, c, clean, cost=10.0)
    assert informed[~truth].sum() < without[~truth].sum()
    assert informed[truth].mean() >= 0.9


def test_what_z_and_c_do_not_tell_apart_keeps_the_first_odds():
    rng = np.random.default_rng(0)
    z = rng.normal(0.0, 0.2, N).astype(np.float32)
    c = rng.gamma(4.0, 0.03, N).astype(np.float32)
    z[:30] = 0.9  # a cluster of ordinary gaps
    chosen = np.zeros(N, bool)
    chosen[:30] = True
    logarithm = log_odds(z, c, chosen, NOTHING)
    assert np.isfinite(logarithm).all()
    assert logarithm[:30].min() > np.median(logarithm)
