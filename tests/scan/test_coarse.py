import numpy as np
import pytest

from mmjax.ops.gmm import coverage_cut, fit_mixture
from mmjax.scan.blocks import EmbeddingBlock
from mmjax.scan.coarse import COARSE, assign, benign_rows, partition, score_blocks
from tests.oracles import consistency as oracle
from tests.scan import synthetic


@pytest.fixture(scope="module")
def scene():
    image, text, _ = synthetic.pairs(120, seed=0)
    return image, text


def test_equals_oracle_whatever_the_blocks(scene):
    image, text = scene
    wanted = oracle.consistency(image, text, image)  # F is the identity
    for shards, rows in ((1, 8192), (5, 7)):
        blocks = synthetic.blocks(image, text, shards, np.float32)
        found = score_blocks(blocks, synthetic.identity(), rows)
        np.testing.assert_allclose(found.sim_original, wanted[0], atol=1e-6)
        np.testing.assert_allclose(found.sim_generated, wanted[1], atol=1e-6)
        np.testing.assert_allclose(found.absolute, wanted[2], atol=1e-6)
        np.testing.assert_allclose(found.signed, wanted[3], atol=1e-6)
        np.testing.assert_allclose(found.mean, text.mean(axis=0), atol=1e-6)
        assert found.scored.all()


def test_unusable_rows_are_not_scored_and_leave_no_trace(scene):
    image, text = scene[0].copy(), scene[1].copy()
    valid = np.ones(120, bool)
    valid[3], image[5], text[6, 0], text[7] = False, np.nan, np.inf, 0.0
    block = EmbeddingBlock(image, text, valid)
    found = score_blocks([block], synthetic.identity(), 50)
    assert set(np.flatnonzero(~found.scored)) == {3, 5, 6, 7}
    assert np.all(np.isfinite(found.absolute))
    assert not np.any(found.absolute[[3, 5, 6, 7]])
    rest = np.setdiff1d(np.arange(120), [3, 5, 6, 7])
    np.testing.assert_allclose(found.mean, scene[1][rest].mean(axis=0), atol=1e-6)


def test_selections_differ():
    rng = np.random.default_rng(0)
    c = np.concatenate([rng.normal(0.1, 0.02, 900), rng.normal(0.3, 0.1, 300)])
    c = c.astype(np.float32)
    mixture = fit_mixture(c, components=2)
    assigned = assign(mixture, c)
    assert set(np.unique(assigned.component)) == {0, 1}
    assert np.all((assigned.lowest >= 0) & (assigned.lowest <= 1))
    covered = benign_rows(mixture, c, assigned.lowest, 0.9, "coverage")
    np.testing.assert_array_equal(covered, c <= coverage_cut(mixture, 0.9))
    certain = benign_rows(mixture, c, assigned.lowest, 0.9, "posterior")
    np.testing.assert_array_equal(certain, assigned.lowest >= 0.9)
    assert np.any(covered != certain)


def test_sets_are_disjoint_and_seeds_win():
    scored = np.array([1, 1, 1, 1, 0], bool)
    codes = partition(scored, np.array([1, 1, 0, 0, 1], bool), np.array([1, 2]))
    assert [COARSE[c] for c in codes] == ["benign", "seed", "seed", "suspicious", ""]
