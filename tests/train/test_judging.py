import types

import numpy as np
import pytest

from mmjax.core.mesh import MeshConfig, make_mesh
from mmjax.data.pairs import PairTable
from mmjax.data.tokenizer import train_bpe
from mmjax.learn.sharding import put_state
from mmjax.train.judging import PairEmbeddings, embed_table, fixed_losses, judge
from tests.oracles.pair_losses import pair_losses
from tests.train.test_objectives import PARAMS, linear_towers

RNG = np.random.default_rng(0)


def unit(*shape):
    x = RNG.normal(size=shape)
    return np.float32(x / np.linalg.norm(x, axis=-1, keepdims=True))


PAIRS = PairEmbeddings(unit(10, 5), unit(10, 5), 6.0)


def test_the_losses_are_the_oracles_over_partitions_into_batches(monkeypatch):
    """Of 10 pairs in batches of 4, the last batch is filled up; partitions are rebuilt here."""
    seen = []

    def permutation(count):
        seen.append(np.random.default_rng(len(seen)).permutation(count))
        return seen[-1]

    drawn = types.SimpleNamespace(permutation=permutation)
    monkeypatch.setattr("mmjax.train.judging.keys.host", lambda *names: drawn)
    found = fixed_losses(PAIRS, batch_size=4, seed=0)
    assert len(seen) == 4
    total = np.zeros(10)
    for order in seen:
        for batch in (order[:4], order[4:8], np.concatenate([order[8:], order[:2]])):
            image, text = PAIRS.image[batch], PAIRS.text[batch]
            everyone = np.ones(4, bool)
            there = pair_losses(image, text, PAIRS.scale, everyone)
            back = pair_losses(text, image, PAIRS.scale, everyone)
            counted = 4 if batch[-1] != order[1] else 2
            total[batch[:counted]] += (np.array(there) + back)[:counted] / 2
    np.testing.assert_allclose(found, total / 4, rtol=1e-5)


def test_more_batches_than_are_computed_at_a_time_change_nothing(monkeypatch):
    whole = fixed_losses(PAIRS, batch_size=2, seed=3)
    monkeypatch.setattr("mmjax.train.judging._BATCHES", 2)
    np.testing.assert_allclose(fixed_losses(PAIRS, batch_size=2, seed=3), whole, rtol=1e-6)
    assert not np.allclose(fixed_losses(PAIRS, batch_size=2, seed=4), whole)


@pytest.mark.parametrize("devices", [1, 4])
def test_every_caption_is_embedded_with_its_image(devices, tmp_path):
    mesh = make_mesh(MeshConfig(data=devices))
    images = RNG.integers(0, 256, (5, 2, 2, 3)).astype(np.uint8)
    captions = (("a b",), ("c",), ("a", "d e"), ("b",), ("e f",))
    table = PairTable(images, captions, {})
    tokenizer = train_bpe([c for each in captions for c in each], 540, tmp_path / "bpe.json")
    towers = linear_towers()._replace(
        encode_text=lambda variables, tokens: tokens[:, 1:3].astype(np.float32)
    )
    variables = put_state({"params": PARAMS}, mesh)
    pairs = embed_table(towers, variables, table, tokenizer, batch_size=4, mesh=mesh)
    owners = [0, 1, 2, 2, 3, 4]
    image = np.asarray(towers.encode_image({"params": PARAMS}, images))
    np.testing.assert_allclose(pairs.image, image[owners], rtol=1e-5)
    ids = tokenizer.encode(["a b", "c", "a", "d e", "b", "e f"]).ids
    np.testing.assert_array_equal(pairs.text, ids[:, 1:3])
    assert pairs.scale == pytest.approx(float(np.exp(2.0)))
    cosines = judge("cosine", PAIRS, batch_size=4, seed=0)
    wanted = [np.dot(*pair) for pair in zip(PAIRS.image, PAIRS.text, strict=True)]
    np.testing.assert_allclose(cosines, wanted, rtol=1e-5, atol=1e-6)
