"""Numbering of noises and triggers, and the batches of rounds: on the host, nothing is compiled."""

import numpy as np
import pytest

from mmjax.core import keys
from mmjax.core.errors import ConfigError
from mmjax.data.pairs import PairRow, PairTable
from mmjax.data.tokenizer import load_tokenizer
from mmjax.models.weights import load_weights
from mmjax.protect.pairs import (
    add,
    cut,
    first_noise,
    make_pairs,
    passes_of,
    training_batches,
)
from mmjax.protect.wording import first_triggers
from tests.protect.conftest import changed

IMAGES = 20


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(load_weights("demo").tokenizer_path, context_length=32)


@pytest.fixture(scope="module")
def table():
    """Twenty images of one to three captions; the pixels say which image it is."""
    images = np.arange(IMAGES, dtype=np.uint8)[:, None, None, None] * np.ones((4, 4, 3), np.uint8)
    captions = tuple(tuple(f"image {i} way {k}" for k in range(1 + i % 3)) for i in range(IMAGES))
    return PairTable(images, captions, {})


@pytest.fixture(scope="module")
def rows(table):
    """Pairs of two users, in another order than the table's, and one that is not usable."""
    owners = table.owners
    names = [f"{'anna' if owners[c] % 2 else 'ben'}/{c}" for c in range(len(owners))]
    order = np.random.default_rng(0).permutation(len(owners))
    usable = [PairRow(names[c], "ok", "", int(c)) for c in order]
    return (PairRow("anna/x", "truncated_image", "", -1), *usable)


def made(table, rows, tokenizer, config, noise="image", trigger="pair", **groups):
    config = changed(config, noise={"scope": noise}, trigger={"scope": trigger}, **groups)
    return make_pairs(table, rows, tokenizer, config), config


def test_what_has_a_noise_and_a_trigger_of_its_own(table, rows, tokenizer, config):
    owners = table.owners
    wanted = {
        "image": owners,
        "pair": np.arange(len(owners)),
        "user": 1 - owners % 2,
        "universal": 0 * owners,
    }
    for noise in ("image", "pair", "user"):
        pairs, _ = made(table, rows, tokenizer, config, noise=noise)
        np.testing.assert_array_equal(pairs.noise, wanted[noise])
        assert pairs.noises == wanted[noise].max() + 1
    for trigger in ("pair", "user", "universal"):
        pairs, _ = made(table, rows, tokenizer, config, trigger=trigger)
        np.testing.assert_array_equal(pairs.trigger, wanted[trigger])
        assert pairs.triggers == wanted[trigger].max() + 1


@pytest.mark.parametrize("noise", ["image", "pair"])
@pytest.mark.parametrize("number", [0, 1, 5])
def test_a_round_changes_everything_once_and_no_batch_holds_an_image_twice(
    noise, number, table, rows, tokenizer, config
):
    pairs, config = made(table, rows, tokenizer, config, noise=noise, trigger="pair")
    searched, lowered = [], []
    for each in passes_of(pairs, config, number):
        for batch in cut(pairs, each.rows, 8, keys.host(0, number)):
            assert len(batch.rows) == 8
            assert len(set(pairs.owner[batch.rows])) == 8
            changing = batch.rows[: batch.changing].tolist()
            searched += changing if each.searches else []
            lowered += changing if each.descends else []
    everyone = list(range(len(pairs.owner)))
    assert sorted(searched) == (everyone if number < config.trigger.rounds else [])
    assert sorted(pairs.noise[lowered]) == list(range(pairs.noises))


def test_captions_take_turns_in_lending_their_image_its_noise(table, rows, tokenizer, config):
    pairs, config = made(table, rows, tokenizer, config)
    seen = [
        {int(row) for each in passes_of(pairs, config, n) if each.descends for row in each.rows}
        for n in range(6)
    ]
    assert set().union(*seen) == set(range(len(pairs.owner)))
    assert seen[0] != seen[1]


def test_nothing_to_do_is_no_pass(table, rows, tokenizer, config):
    pairs, config = made(table, rows, tokenizer, config)
    config = changed(config, noise={"steps": 0})
    assert [each.descends for each in passes_of(pairs, config, 0)] == [False] * 3
    assert passes_of(pairs, config, config.trigger.rounds) == []


@pytest.mark.parametrize("start", ["zeros", "random"])
def test_first_noise_is_in_budget_and_range(start, table, rows, tokenizer, config):
    pairs, config = made(table, rows, tokenizer, config)
    config = changed(config, noise={"start": start})
    noise = np.stack([first_noise(pairs, config, n) for n in range(pairs.noises)])
    assert np.any(noise) == (start == "random")
    exact = table.images.astype(int) + noise
    assert np.abs(noise.astype(int)).max() <= 8
    assert exact.min() >= 0
    np.testing.assert_array_equal(add(table.images, noise), exact)
    same = first_noise(pairs, config, 3)
    np.testing.assert_array_equal(same, noise[3])


def test_first_triggers(table, rows, tokenizer, config):
    pairs, config = made(table, rows, tokenizer, config)
    drawn = first_triggers(pairs, tokenizer, config)
    assert drawn.shape == (pairs.triggers, 2)
    assert len(np.unique(drawn)) > 10
    the = first_triggers(pairs, tokenizer, changed(config, trigger={"start": "the"}))
    assert {tokenizer.decode(row.tolist()) for row in the} == {"the the"}


@pytest.mark.parametrize("dropout", [0.0, 0.5, 1.0])
def test_the_surrogate_learns_from_what_is_protected(dropout, table, rows, tokenizer, config):
    pairs, config = made(table, rows, tokenizer, config)
    config = changed(config, trigger={"dropout": dropout})
    noise = np.full((pairs.noises, 4, 4, 3), 7, np.int8)
    triggers = first_triggers(pairs, tokenizer, config)
    batch_at = training_batches(pairs, noise, triggers, config)
    words = {tokenizer.decode(row.tolist()) for row in triggers}
    with_words = []
    for step in range(30):
        batch = batch_at(step)
        numbers = batch["images"][:, 0, 0, 0].astype(int) - 7
        for number, ids in zip(numbers, batch["tokens"], strict=True):
            text = tokenizer.decode(ids.tolist())
            assert f"image {' '.join(str(number))} way" in text
            with_words.append(any(text.startswith(w) for w in words))
    assert np.mean(with_words) == pytest.approx(1 - dropout, abs=0.15)
    again = training_batches(pairs, noise, triggers, config)(7)
    np.testing.assert_array_equal(again["tokens"], batch_at(7)["tokens"])


def test_a_clean_surrogate_learns_from_clean_pairs(table, rows, tokenizer, config):
    pairs, config = made(table, rows, tokenizer, config)
    config = changed(config, surrogate={"on": "clean"})
    noise = np.full((pairs.noises, 4, 4, 3), 7, np.int8)
    batch = training_batches(pairs, noise, first_triggers(pairs, tokenizer, config), config)(0)
    for pixels, ids in zip(batch["images"], batch["tokens"], strict=True):
        text = tokenizer.decode(ids.tolist())
        assert text.startswith(f"image {' '.join(str(pixels[0, 0, 0]))} way")


def test_more_pairs_in_a_batch_than_images_are_refused(table, rows, tokenizer, config):
    with pytest.raises(ConfigError, match="wants at least as many images, got 20"):
        made(table, rows, tokenizer, config, batch_size=21)
