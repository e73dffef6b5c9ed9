import numpy as np
import pytest

from mmjax.core import keys
from mmjax.scan.blocks import EmbeddingBlock
from mmjax.scan.seeds import POOL, draw_pool, null_test, pick_rows, rule_r1, seed_count
from tests.oracles import correlation as oracle
from tests.scan import synthetic


@pytest.mark.parametrize(
    ("scored", "requested", "count"),
    [
        (0, 0, 0),
        (3, 0, 3),
        (40, 0, 5),
        (600, 0, 30),
        (2_000, 0, 50),
        (500_000, 0, 50),
        (3_300_000, 0, 330),
        (20_000, 400, 400),
        (600, 400, 30),
    ],
)
def test_seed_count(scored, requested, count):
    assert seed_count(scored, requested) == count


def single_block(image):
    image = np.asarray(image, np.float32)
    return [EmbeddingBlock(image, image, np.ones(len(image), bool))]


def test_pick_rows_ranks_and_breaks_ties_by_row():
    blocks = single_block(np.eye(6))
    ranking = np.array([0.1, 0.5, 0.5, 0.9, 0.5, 0.2], np.float32)
    scored = np.array([0, 1, 2, 4, 5])
    for one_per_image in (False, True):
        rows = pick_rows(blocks, ranking, scored, 3, one_per_image=one_per_image)
        np.testing.assert_array_equal(rows, [1, 2, 4])


def test_pick_rows_takes_one_pair_of_an_image():
    image = np.eye(4)[[0, 0, 1, 1, 2, 3]]
    ranking = np.array([0.9, 0.8, 0.7, 0.75, 0.6, 0.1], np.float32)
    rows = pick_rows(single_block(image), ranking, np.arange(6), 3, one_per_image=True)
    np.testing.assert_array_equal(rows, [0, 3, 4])
    rows = pick_rows(single_block(image), ranking, np.arange(6), 3, one_per_image=False)
    np.testing.assert_array_equal(rows, [0, 1, 3])


def centred(text):
    return oracle.centre(text).astype(np.float32)


def seeds_of(text, poisoned, purity, q=50, seed=0):
    rng = np.random.default_rng(seed)
    bad = rng.choice(np.flatnonzero(poisoned), round(purity * q), replace=False)
    good = rng.choice(np.flatnonzero(~poisoned), q - bad.size, replace=False)
    return text[np.concatenate([bad, good])]


@pytest.fixture(scope="module")
def scene():
    image, text, poisoned = synthetic.pairs(3_000, seed=0, poison=60, popular=0.3)
    blocks = synthetic.blocks(image, text, dtype=np.float32)
    mean = text.mean(axis=0)
    pool = draw_pool(blocks, np.arange(3_000), mean, keys.host(0, "pool"))
    return centred(text), poisoned, pool


def test_small_sets_are_their_own_pool(scene):
    text, _, pool = scene
    np.testing.assert_allclose(pool, text, atol=1e-5)


def test_null_test_tells_poison_from_random(scene):
    text, poisoned, pool = scene
    seeds = seeds_of(text, poisoned, 0.8)
    found = null_test(seeds, pool, keys.host(0, "null"))
    assert found.exceeds
    assert found.observed == pytest.approx(oracle.mean_pairwise_cosine(seeds), abs=1e-5)
    clean = null_test(seeds_of(text, poisoned, 0.0, seed=1), pool, keys.host(0, "null"))
    assert clean.observed < found.quantile99
    assert clean.quantile99 == found.quantile99  # the same subsets, of the same size


def test_more_seeds_than_the_pool_are_tested_too():
    rng = np.random.default_rng(0)
    drawn = rng.normal(size=(2 * POOL + 8_192, 4)).astype(np.float32)
    drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
    pool, seeds = drawn[:POOL], drawn[POOL:]
    alike = seeds + np.float32([1, 0, 0, 0])
    alike /= np.linalg.norm(alike, axis=1, keepdims=True)
    assert null_test(alike, pool, keys.host(0), subsets=20).exceeds
    assert not null_test(seeds, pool, keys.host(0), subsets=20).exceeds


def test_null_test_of_next_to_nothing_is_negative(scene):
    text, _, pool = scene
    assert not null_test(text[:5], pool[:3], keys.host(0)).exceeds


def test_rule_r1():
    rng = np.random.default_rng(0)
    loo = rng.normal(0.7, 0.05, 200)
    assert rule_r1(loo) == pytest.approx(np.quantile(loo, 0.05) - loo.std())
    assert rule_r1(np.full(9, 0.8)) == pytest.approx(0.78)  # copies: at least .02 below
