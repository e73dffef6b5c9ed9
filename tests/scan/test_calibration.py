"""Clean captions near a core tell what c is usual for its topic."""

import numpy as np
import pytest

from mmjax.scan.calibration import PRIOR, Calibration, clean_pairs, clean_twins


def _topics() -> tuple[Calibration, np.ndarray]:
    """Two topics of 100 captions each; all the large gaps are the second one's."""
    rng = np.random.default_rng(0)
    axes = np.repeat(np.eye(2, 8, dtype=np.float32), 100, axis=0)
    text = axes + 0.02 * rng.normal(size=axes.shape).astype(np.float32)
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    gap = np.concatenate([np.linspace(0.0, 0.1, 100), np.linspace(0.2, 0.9, 100)])
    return Calibration(text.astype(np.float16), gap.astype(np.float32)), np.zeros(8, np.float32)


def test_a_badly_read_topic_has_its_own_rate() -> None:
    calibration, offset = _topics()
    well = clean_twins(clean_pairs(calibration, np.eye(8, dtype=np.float32)[0], offset), 0.8, 0.9)
    badly = clean_twins(clean_pairs(calibration, np.eye(8, dtype=np.float32)[1], offset), 0.8, 0.9)
    assert well.captions == badly.captions == 100
    assert well.rate == pytest.approx(PRIOR * 0.1 / (100 + PRIOR))
    assert badly.rate == pytest.approx((20 + PRIOR * 0.1) / (100 + PRIOR), abs=0.01)
    clean = clean_pairs(calibration, np.eye(8, dtype=np.float32)[1], offset)
    assert clean.quantile[clean.z > 0.8].min() > 0.5 >= clean.quantile[clean.z <= 0.8].max()


def test_an_unknown_topic_is_taken_as_usual() -> None:
    calibration, offset = _topics()
    unknown = clean_twins(
        clean_pairs(calibration, np.eye(8, dtype=np.float32)[5], offset), 0.8, 0.95
    )
    assert unknown.captions == 0
    assert unknown.rate == pytest.approx(0.05)
    assert clean_twins(clean_pairs(None, offset, offset), 0.8, 0.95).rate == pytest.approx(0.05)


def test_gaps_are_compared_as_quantiles() -> None:
    """A reference that the model knows by heart has smaller gaps throughout, and serves."""
    calibration, offset = _topics()
    smaller = calibration._replace(gap=calibration.gap * 0.1 - 0.05)
    mean = np.eye(8, dtype=np.float32)[1]
    first = clean_twins(clean_pairs(calibration, mean, offset), 0.8, 0.9)
    second = clean_twins(clean_pairs(smaller, mean, offset), 0.8, 0.9)
    assert first.rate == second.rate
    np.testing.assert_array_equal(
        clean_pairs(calibration, mean, offset).quantile, clean_pairs(smaller, mean, offset).quantile
    )
