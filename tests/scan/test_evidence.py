import numpy as np
import pytest

from mmjax.scan.blocks import EmbeddingBlock
from mmjax.scan.calibration import Twins
from mmjax.scan.evidence import judge
from mmjax.scan.seeds import Core

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
    twins = Twins(100, usual)
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
