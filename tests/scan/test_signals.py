"""Signals of a set, and of the wrong pairs that its captions make with other images."""

import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.ops.correlation import centre
from mmjax.scan.calibration import local_signals, pair_signals
from mmjax.scan.coarse import score_blocks
from mmjax.scan.signals import read_signals
from tests.scan import synthetic

ROWS = 300


def of_set(image, text, shards=3, chunk=128):
    """(signals, coarse scores) of a set in shards."""
    blocks = synthetic.blocks(image, text, shards, np.float32)
    scores = score_blocks(blocks, synthetic.identity(), chunk)
    return read_signals(blocks, scores, synthetic.clean_reference(), chunk), scores


def expected(image, text, generated, scores):
    means = jnp.stack([jnp.asarray(scores.image_mean), jnp.asarray(scores.mean)])
    pairs = pair_signals(jnp.asarray(image), jnp.asarray(text), jnp.asarray(generated), means)
    return local_signals(synthetic.clean_reference(), centre(jnp.asarray(text), means[1]), pairs)


def test_the_values_are_those_of_the_whole_set_at_once() -> None:
    image, text, _ = synthetic.pairs(ROWS, seed=1)
    found, scores = of_set(image, text)
    wanted = expected(image, text, scores.sim_generated, scores)
    np.testing.assert_allclose(found.values, wanted, rtol=1e-3, atol=1e-3)


def test_strangers_are_captions_with_the_image_before() -> None:
    image, text, _ = synthetic.pairs(ROWS, seed=2)
    found, scores = of_set(image, text)
    assert sorted(found.sample) == list(range(ROWS))
    other = np.roll(found.sample, 1)
    assert np.mean(np.abs(other - found.sample)) > ROWS / 5, "captions get their neighbour's image"
    wanted = expected(image[other], text[found.sample], scores.sim_generated[other], scores)
    np.testing.assert_allclose(found.strangers, wanted, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("side", ["image", "text"])
def test_the_same_image_or_caption_again_is_no_stranger(side) -> None:
    image, text, _ = synthetic.pairs(ROWS, seed=3)
    (image if side == "image" else text)[: ROWS // 2] = (image if side == "image" else text)[0]
    found, _ = of_set(image, text)
    assert 0.6 * ROWS < len(found.strangers) < 0.9 * ROWS
    (image if side == "image" else text)[:] = (image if side == "image" else text)[0]
    none, _ = of_set(image, text)
    assert none.strangers.shape == (0, 3)


def test_rows_that_are_not_scored_take_no_part() -> None:
    image, text, _ = synthetic.pairs(ROWS, seed=4)
    scored = np.arange(ROWS) % 3 > 0
    image[~scored] = np.nan
    found, _ = of_set(image, text)
    assert found.values.shape == (scored.sum(), 3)
    assert sorted(found.sample) == list(range(int(scored.sum())))
    assert np.all(np.isfinite(found.values))
    assert np.all(np.isfinite(found.strangers))


def test_no_more_than_a_sample_is_looked_at(monkeypatch) -> None:
    monkeypatch.setattr("mmjax.scan.signals.STRANGERS", 100)
    image, text, _ = synthetic.pairs(ROWS, seed=5)
    found, _ = of_set(image, text)
    assert len(set(found.sample)) == 100
    assert found.strangers.shape == (100, 3)
    assert found.values.shape == (ROWS, 3)


def test_the_same_pairs_are_drawn_whatever_their_order(monkeypatch) -> None:
    monkeypatch.setattr("mmjax.scan.signals.STRANGERS", 100)
    image, text, _ = synthetic.pairs(ROWS, seed=6)
    moved = np.random.default_rng(0).permutation(ROWS)
    found, _ = of_set(image, text)
    other, _ = of_set(image[moved], text[moved], shards=2, chunk=64)
    np.testing.assert_array_equal(moved[other.sample], found.sample)
    np.testing.assert_allclose(other.strangers, found.strangers, atol=1e-3)
