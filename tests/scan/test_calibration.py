"""What right and wrong pairs look like is learned from a clean reference."""

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from mmjax.ops.correlation import centre
from mmjax.scan.calibration import (
    FAR,
    LARGEST,
    NEAR,
    PRIOR,
    Calibration,
    adapt,
    calibrate,
    local_signals,
    log_ratios,
    pair_signals,
    scale_of,
    standardised,
)
from tests.oracles import correlation as oracle
from tests.scan import synthetic


def judged(image, text, calibration=None):
    """Log ratios of pairs for which F(I) = I."""
    means = jnp.stack([image.mean(axis=0), text.mean(axis=0)])
    ones = jnp.ones(len(image), jnp.float32)
    signals = pair_signals(jnp.asarray(image), jnp.asarray(text), ones, means)
    calibration = calibration or synthetic.clean_reference()
    values = local_signals(calibration, centre(jnp.asarray(text), means[1]), signals)
    return log_ratios(calibration.weights, values, scale_of(values))


def test_signals_are_the_gap_and_the_centred_cosine() -> None:
    image, text, _ = synthetic.pairs(200, seed=1)
    means = np.stack([image.mean(axis=0), text.mean(axis=0)])
    found = np.asarray(pair_signals(image, text, np.full(200, 0.9, np.float32), means))
    np.testing.assert_allclose(found[:, 0], 0.9 - np.sum(image * text, axis=1), atol=1e-6)
    centred = np.sum(oracle.centre(image) * oracle.centre(text), axis=1)
    np.testing.assert_allclose(found[:, 1], centred, atol=1e-5)


def test_local_signals_equal_a_loop_over_the_nearest_clean_captions() -> None:
    calibration = synthetic.clean_reference()
    _, text, _ = synthetic.pairs(30, seed=2)
    centred = oracle.centre(text).astype(np.float32)
    signals = np.random.default_rng(0).normal(size=(30, 2)).astype(np.float32)
    found = local_signals(calibration, jnp.asarray(centred), jnp.asarray(signals))
    clean = calibration.text.astype(np.float64)
    for i in range(30):
        near = calibration.signals[np.argsort(-(clean @ centred[i]), kind="stable")[:NEAR]]
        middle = np.median(near, axis=0)
        spread = 1.4826 * np.median(np.abs(near - middle), axis=0) + 1e-3
        wanted = np.concatenate([signals[i, :1], (signals[i] - middle) / spread])
        np.testing.assert_allclose(found[i], wanted, rtol=1e-3, atol=1e-3)


def test_wrong_pairs_are_told_from_right_ones() -> None:
    image, text, _ = synthetic.pairs(2_000, seed=3)
    wrong = np.arange(2_000) < 100
    image[:100] = image[50:150]
    ratio = judged(image, text)
    assert roc_auc_score(wrong, ratio) > 0.99
    assert np.mean(ratio[wrong] > 0) > 0.9
    assert np.mean(ratio[~wrong] > 0) < 0.05
    assert ratio.max() <= LARGEST


def test_another_scale_of_similarities_changes_nothing() -> None:
    """The scanned set is standardised by its own medians, the reference by its."""
    values = np.random.default_rng(0).normal(size=(500, 3)).astype(np.float32)
    moved = 3 * values + 7
    found = standardised(moved, scale_of(moved))
    np.testing.assert_allclose(found, standardised(values, scale_of(values)), atol=1e-4)
    np.testing.assert_allclose(np.median(found, axis=0), 0, atol=1e-5)
    weights = synthetic.clean_reference().weights
    ratio = log_ratios(weights, values, scale_of(values))
    np.testing.assert_allclose(log_ratios(weights, moved, scale_of(moved)), ratio, atol=1e-3)
    wanted = standardised(values, scale_of(values)) @ weights[:3] + weights[3]
    np.testing.assert_allclose(ratio, np.minimum(wanted, LARGEST), atol=1e-4)
    assert np.ptp(ratio) > 1


APART = np.array([1.5, 1.0, -0.5])
"""How far wrong pairs' signals lie from right ones', in standard deviations."""


def drawn(n, wrong, *, seed, apart=APART):
    """(own, strangers): normal signals, the first `wrong` of the set's own pairs wrong."""
    rng = np.random.default_rng(seed)
    own, strangers = rng.normal(size=(2, n, 3))
    own[:wrong] += apart
    return own, strangers + apart


@pytest.mark.parametrize("share", [0.0, 0.01, 0.1, 0.3])
def test_a_set_s_own_weights_are_those_of_its_right_pairs(share) -> None:
    """Normal signals: the log ratio is linear, its slope what lies between the means."""
    own, strangers = drawn(40_000, int(share * 40_000), seed=1)
    learned_by_heart = np.append(1.5 * APART, -8.0).astype(np.float32)
    found = adapt(learned_by_heart, own, strangers)
    np.testing.assert_allclose(found.weights, np.append(APART, -APART @ APART / 2), atol=0.12)
    assert found.wrong == pytest.approx(share, abs=0.01)


def test_few_pairs_hardly_move_the_reference_s_weights() -> None:
    weights = np.append(APART, -2.0).astype(np.float32)
    own, strangers = drawn(10, 0, seed=2, apart=3 * APART)
    assert np.abs(adapt(weights, own, strangers).weights - weights).max() < 2 * PRIOR
    many = adapt(weights, *drawn(20_000, 0, seed=2, apart=3 * APART))
    assert np.abs(many.weights - weights).max() > 2 * PRIOR


def test_few_strangers_hardly_move_them_either() -> None:
    weights = np.append(APART, -2.0).astype(np.float32)
    own, strangers = drawn(20_000, 0, seed=2)
    assert np.abs(adapt(weights, own, strangers[:3]).weights - weights).max() < 2 * PRIOR


def test_without_strangers_the_reference_is_all_there_is() -> None:
    weights = np.append(APART, -2.0).astype(np.float32)
    own, strangers = drawn(50, 0, seed=3)
    found = adapt(weights, own, strangers[:0])
    np.testing.assert_array_equal(found.weights, weights)
    assert found.wrong is None


def test_strangers_far_out_pull_no_more_than_far_ones() -> None:
    weights = np.append(APART, -2.0).astype(np.float32)
    own, strangers = drawn(5_000, 0, seed=5)
    strangers[:3] = -1e6
    found = adapt(weights, own, strangers)
    np.testing.assert_allclose(found.weights[:3], APART, atol=0.12)
    strangers[:3] = -FAR
    np.testing.assert_allclose(adapt(weights, own, strangers).weights, found.weights, atol=1e-6)


def test_a_signal_that_most_pairs_share_exactly() -> None:
    """Its MAD is zero, so what differs at all is infinitely far out."""
    own, strangers = drawn(5_000, 0, seed=6)
    for signals in (own, strangers):
        signals[: len(signals) * 6 // 10, 1] = 0.5
    scale = scale_of(own)
    assert np.abs(standardised(own, scale)).max() > 1e5
    weights = np.append(APART, -2.0).astype(np.float32)
    found = adapt(weights, standardised(own, scale), standardised(strangers, scale))
    assert np.all(np.isfinite(found.weights))
    assert found.wrong == pytest.approx(0, abs=0.01)


def test_a_set_of_nothing_but_wrong_pairs() -> None:
    own, strangers = drawn(5_000, 5_000, seed=7)
    found = adapt(np.append(APART, -2.0).astype(np.float32), own, strangers)
    assert found.wrong > 0.9


def test_the_fit_is_where_the_likelihood_is_greatest() -> None:
    """No weights or share beside it explain the pairs better."""
    own, strangers = drawn(3_000, 90, seed=4)
    weights = np.append(APART, -2.0)
    found = adapt(weights.astype(np.float32), own, strangers)

    def loss(w, share):
        def odds(x):
            return np.log((1 - share) * np.exp(-(x @ w[:3] + w[3])) + share)

        fit = np.logaddexp(0, -odds(own)).mean() + np.logaddexp(0, odds(strangers)).mean()
        return fit + np.sum((w - weights) ** 2) / (2 * PRIOR**2 * 3_000)

    best = loss(found.weights, found.wrong)
    for i in range(4):
        for step in (-0.05, 0.05):
            assert loss(found.weights + step * np.eye(4)[i], found.wrong) > best
    assert loss(found.weights, found.wrong * 0.7) > best
    assert loss(found.weights, found.wrong * 1.4) > best


def test_a_topic_that_is_badly_read_is_not_held_against_its_pairs() -> None:
    """Images of half the captions are noisier: their gaps are larger, and usual there."""

    def noisy(n: int, seed: int):
        rng = np.random.default_rng(seed)
        badly = np.arange(n) % 2 == 1
        text = synthetic.unit(
            np.where(badly[:, None], 1.0, 0.0) * np.eye(1, synthetic.D)
            + 0.25 * rng.normal(size=(n, synthetic.D))
        )
        noise = np.where(badly, 0.12, 0.03)[:, None] * rng.normal(size=(n, synthetic.D))
        return (
            synthetic.unit(text + noise).astype(np.float32),
            text.astype(np.float32),
            badly,
        )

    image, text, _ = noisy(2_000, 0)
    ones = np.ones(2_000, np.float32)
    learned = calibrate(image, text, np.arange(2_000), ones, np.random.default_rng(0))
    image, text, badly = noisy(2_000, 1)
    ratio = judged(image, text, learned)
    gap = 1 - np.sum(image * text, axis=1)
    assert roc_auc_score(badly, gap) > 0.95
    assert np.mean(ratio[badly] > 0) < 0.05


@pytest.mark.parametrize("captions", [1, 5])
def test_images_may_have_several_captions(captions) -> None:
    _, text, _ = synthetic.pairs(400, seed=5)
    own = np.arange(400) // captions
    mean = np.zeros((400, synthetic.D))
    np.add.at(mean, own, text)
    image = synthetic.unit(mean + 1e-3).astype(np.float32)
    ones = np.ones(400, np.float32)
    learned = calibrate(image, text[: own.size], own, ones, np.random.default_rng(0))
    assert isinstance(learned, Calibration)
    assert learned.text.shape == (400, synthetic.D)
    assert np.all(np.isfinite(learned.weights))
    assert learned.weights[0] > 0  # a larger gap speaks against a pair
