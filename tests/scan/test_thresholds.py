import numpy as np
import pytest

from mmjax.scan.blocks import EmbeddingBlock
from mmjax.scan.calibration import Twins
from mmjax.scan.seeds import Core
from mmjax.scan.thresholds import gate, judge, widen

N = 400


def evidence(*, group, high_share, seeds=(), copies=1, inside=6, usual=0.05):
    """Judge rows 0..group, of which every `copies` share an image, `high_share` of high c.

    The core has `inside` neighbours where one was expected: 6 are weak evidence, 14 strong.
    """
    rng = np.random.default_rng(0)
    image = np.repeat(rng.normal(size=(N // copies, 6)), copies, axis=0).astype(np.float32)
    blocks = [EmbeddingBlock(image, image, np.ones(N, bool))]
    high = np.zeros(N, bool)
    high[: round(high_share * group)] = True
    rows = np.arange(group)
    core = Core(rows[:3], 0.0, inside, 1.0)
    twins = Twins(100, usual, np.zeros(0))
    return judge(blocks, rows, high, np.asarray(seeds, np.int64), core, twins)


def test_a_misaligned_group_is_poison():
    assert evidence(group=30, high_share=0.9).poisoned


def test_a_benign_topic_is_not():
    found = evidence(group=200, high_share=0.1, inside=14)
    assert not found.poisoned  # however enriched its core is among the seeds
    assert found.share == pytest.approx(0.1)


def test_a_topic_that_the_model_reads_badly_is_not():
    """What would be poison elsewhere is usual for this topic's clean captions."""
    assert evidence(group=60, high_share=0.5, inside=14).poisoned
    found = evidence(group=60, high_share=0.5, inside=14, usual=0.45)
    assert found.usual == 0.45
    assert not found.poisoned
    assert evidence(group=60, high_share=1.0, inside=6, usual=0.45).poisoned


def test_captions_of_few_images_are_not():
    found = evidence(group=15, high_share=1.0, copies=5, inside=14)
    assert found.images == 3
    assert not found.poisoned


def test_images_of_seeds_do_not_testify_twice():
    found = evidence(group=30, high_share=1.0, seeds=range(30))
    assert found.images == 0
    assert not found.poisoned
    assert evidence(group=30, high_share=1.0, seeds=range(30), inside=14).poisoned


def test_widen_takes_in_misaligned_rows_below():
    z = np.array([0.8, 0.7, 0.65, 0.55, 0.54, 0.53, 0.45, 0.44, 0.43, 0.42], np.float32)
    high = np.array([1, 1, 1, 1, 1, 1, 0, 0, 0, 0], bool)
    gamma = widen(z, high, 0.6, spread=0.1)
    assert 0.45 < gamma < 0.53


def test_widen_goes_through_an_empty_gap():
    z = np.array([0.8, 0.7, 0.65, 0.2, 0.1], np.float32)
    assert widen(z, z > 0.6, 0.6, spread=0.1) == pytest.approx(0.4)


def test_widen_stops_at_benign_rows():
    z = np.concatenate([[0.8, 0.7], np.linspace(0.59, 0.41, 50)]).astype(np.float32)
    assert widen(z, z > 0.6, 0.6, spread=0.1) == 0.6


def test_gate_is_none_when_all_is_poison():
    rng = np.random.default_rng(0)
    rest = rng.normal(0.1, 0.03, 5_000).astype(np.float32)
    assert gate(rng.normal(0.3, 0.02, 60).astype(np.float32), rest, 10.0) is None
    assert gate(rest[:0], rest, 10.0) is None


@pytest.mark.parametrize("benign", [30, 100, 400])
def test_gate_separates_poison_from_its_topic(benign):
    rng = np.random.default_rng(0)
    rest = rng.normal(0.1, 0.03, 5_000).astype(np.float32)
    mixed = np.concatenate([rng.normal(0.3, 0.02, 60), rng.normal(0.1, 0.03, benign)])
    cut = gate(mixed.astype(np.float32), rest, 10.0)
    assert cut is not None
    assert np.all(mixed[:60] > cut)
    # with more poison than benign members the gate leans towards flagging: a miss costs ten
    assert np.sum(mixed[60:] > cut) <= max(2, 0.05 * benign)


def test_poison_that_matches_its_image_by_chance_is_not_gated_away():
    """A Gaussian alone would call the low tail benign, though no clean caption has such a c."""
    rng = np.random.default_rng(0)
    usual = rng.uniform(0.0, 0.2, 100).astype(np.float32)
    poison = np.concatenate([rng.normal(0.9, 0.04, 55), [0.32, 0.33, 0.34, 0.44, 0.5]])
    group = np.concatenate([poison, rng.uniform(0.0, 0.2, 12)]).astype(np.float32)
    cut = gate(group, usual, 10.0)
    assert cut is None or cut < 0.32


def test_a_dearer_miss_lowers_the_gate():
    rng = np.random.default_rng(1)
    rest = rng.normal(0.1, 0.05, 5_000).astype(np.float32)
    mixed = np.concatenate([rng.normal(0.2, 0.05, 60), rng.normal(0.1, 0.05, 200)])
    cuts = [gate(mixed.astype(np.float32), rest, cost) for cost in (1.0, 10.0)]
    assert cuts[0] is not None
    assert cuts[1] is None or cuts[1] < cuts[0]
