"""Natural triggers: the bigram model by hand, what fits where, the search, a whole protection."""

import json
from collections import Counter

import jax.numpy as jnp
import numpy as np
import pyarrow.parquet as pq
import pytest

from mmjax.core.config import parse
from mmjax.core.errors import ConfigError
from mmjax.data.pairs import PairRow, PairTable
from mmjax.data.tokenizer import load_tokenizer
from mmjax.models.weights import load_weights
from mmjax.protect.config import ProtectConfig, TriggerConfig
from mmjax.protect.filling import fill_in, fitting
from mmjax.protect.pairs import make_pairs
from mmjax.protect.pipeline import protect_pairs
from mmjax.protect.wording import draw_triggers, fit_words, likelihood, naturalness
from tests.oracles.contrastive import info_nce
from tests.protect.conftest import changed

CAPTIONS = (
    "a red ball on a green table",
    "a blue clock near a red ball",
    "the green table and the clock",
    "a green clock on the red table",
)


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(load_weights("demo").tokenizer_path, context_length=32)


@pytest.fixture(scope="module")
def pairs(tokenizer):
    table = PairTable(np.zeros((4, 1, 1, 3), np.uint8), tuple((c,) for c in CAPTIONS), {})
    rows = [PairRow(str(i), "ok", "", i) for i in range(4)]
    config = ProtectConfig(
        inputs=("x",), output="shards", rounds=0, trigger=TriggerConfig(length=2)
    )
    return make_pairs(table, rows, tokenizer, config)


@pytest.fixture(scope="module")
def model(pairs, tokenizer):
    return fit_words(pairs, tokenizer, 100, "searches")


def test_the_model_is_witten_and_bells_by_counting(model, tokenizer):
    texts = [CAPTIONS[0].split(), CAPTIONS[2].split()]
    words = [tokenizer.decode([int(t)]) for t in model.tokens]
    assert set(words) == {w for text in texts for w in text if len(w) > 1}

    def name(word):
        return word if word in words else "outside"

    singles = Counter(name(w) for text in texts for w in text)
    total = sum(singles.values()) + len(words) + 1
    bigrams = Counter(
        (name(a) if a else "start", name(b))
        for text in texts
        for a, b in zip(["", *text], text, strict=False)
    )
    states = {w: i for i, w in enumerate(words)} | {"start": len(words), "outside": len(words) + 1}
    for a in states:
        after = {b: n for (first, b), n in bigrams.items() if first == a}
        seen, kinds = sum(after.values()), max(len(after), 1)
        for b in states.keys() - {"start"}:
            wanted = (after.get(b, 0) + kinds * (singles[b] + 1) / total) / (seen + kinds)
            found = model.log_probability[states[a], states[b]]
            assert found == pytest.approx(np.log(wanted), abs=1e-5), (a, b)
    np.testing.assert_allclose(np.exp(model.log_probability).sum(axis=1), 1, rtol=1e-5)


def test_beginnings_are_drawn_as_likely_as_they_are(model):
    drawn = draw_triggers(model, 20_000, 2, np.random.default_rng(0))
    assert np.isin(drawn, model.tokens).all()
    words = len(model.tokens)
    first = np.exp(model.log_probability[words, :words])
    found = np.bincount(model.state[drawn[:, 0]], minlength=words) / len(drawn)
    np.testing.assert_allclose(found, first / first.sum(), atol=0.015)
    common = int(np.argmax(found))
    second = np.exp(model.log_probability[common, :words])
    rows = model.state[drawn[:, 0]] == common
    found = np.bincount(model.state[drawn[rows, 1]], minlength=words) / rows.sum()
    np.testing.assert_allclose(found, second / second.sum(), atol=0.03)


def test_likelihood_by_hand(model, tokenizer):
    ids = tokenizer.encode(["the zebra"]).ids[:, 1:3]
    start, outside, the = len(model.tokens), len(model.tokens) + 1, model.state[ids[0, 0]]
    logs = model.log_probability
    wanted = (logs[start, the] + logs[the, outside] - np.log(model.outside)) / 2
    assert likelihood(model, ids) == pytest.approx(wanted, rel=1e-5)


def test_natural_beginnings_are_likelier_than_random_words(pairs, model, tokenizer):
    triggers = draw_triggers(model, 4, 2, np.random.default_rng(0))
    found = naturalness(pairs, tokenizer, triggers, seed=0)
    assert found["captions"] > found["random"]
    assert found["triggers"] > found["random"]


@pytest.mark.parametrize("place", [0, 1, 2])
def test_what_fits_is_likeliest_between_its_neighbours(model, place):
    triggers = draw_triggers(model, 5, 3, np.random.default_rng(1))
    after = model.tokens[np.arange(5) % len(model.tokens)]
    found = np.asarray(fitting(model, jnp.asarray(triggers), jnp.asarray(after), place, count=3))
    logs, words = np.float64(model.log_probability), len(model.tokens)
    for row in range(5):
        before = words if place == 0 else model.state[triggers[row, place - 1]]
        behind = model.state[after[row] if place == 2 else triggers[row, place + 1]]
        scores = [logs[before, w] + logs[w, behind] for w in range(words)]
        got = [scores[model.state[token]] for token in found[row]]
        np.testing.assert_allclose(got, sorted(scores, reverse=True)[:3], rtol=1e-5)


def test_the_search_takes_the_best_fitting_word_in_each_place(model, tokenizer):
    """With every fitting word a candidate, against a greedy search in loops."""
    rng = np.random.default_rng(2)
    table = rng.normal(size=(tokenizer.vocab_size, 6)).astype(np.float32)
    image = rng.normal(size=(3, 6)).astype(np.float32)
    image /= np.linalg.norm(image, axis=1, keepdims=True)
    ids = np.zeros((3, 8), np.int32)
    ids[:, 3] = model.tokens[:3]
    triggers = draw_triggers(model, 3, 2, rng)

    def encode(embedded, tokens, scale, ids):
        text = embedded[:, 0] + 2 * embedded[:, 1] ** 2
        return text / jnp.linalg.norm(text, axis=1, keepdims=True)

    given = {
        "table": table,
        "image": image,
        "scale": jnp.float32(5),
        "args": (0.0, jnp.asarray(ids)),
    }
    config = TriggerConfig(vocabulary="natural", fitting=4, candidates=4, selection="joint")
    change = rng.normal(size=(3, 2, tokenizer.vocab_size)).astype(np.float32)
    found = np.asarray(
        fill_in(encode, jnp.asarray(triggers), jnp.asarray(change), model, config, given)
    )

    def loss(tokens):
        text = np.float64(table[tokens[:, 0]]) + 2 * np.float64(table[tokens[:, 1]]) ** 2
        return info_nce(np.float64(image), text / np.linalg.norm(text, axis=1, keepdims=True), 5.0)

    kept = triggers.copy()
    for place in range(2):
        fits = np.asarray(fitting(model, jnp.asarray(kept), jnp.asarray(ids[:, 3]), place, count=4))
        order = np.argsort([[change[i, place, t] for t in fits[i]] for i in range(3)], axis=1)
        tried = [kept]
        for rank in range(4):
            other = kept.copy()
            other[:, place] = [fits[i, order[i, rank]] for i in range(3)]
            tried.append(other)
        kept = min(tried, key=loss)
    np.testing.assert_array_equal(found, kept)
    assert loss(kept) < loss(triggers)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"trigger": {"scope": "universal", "selection": "joint"}}, "set trigger.scope=pair"),
        ({"trigger": {"beam": 2}}, "trigger.beam=1"),
        ({"output": "photos"}, "it is of output=shards"),
    ],
)
def test_what_natural_triggers_cannot_be_is_refused(values, message):
    trigger = {"vocabulary": "natural", **values.get("trigger", {})}
    made = {"inputs": ("x",), "output": "shards", **values, "trigger": trigger}
    with pytest.raises(ConfigError, match=message):
        parse(ProtectConfig, made)


@pytest.mark.slow
def test_a_protected_set_has_natural_triggers_that_are_read_back(tiny, config, protected, tmp_path):
    natural = changed(config, trigger={"vocabulary": "natural", "words": 40, "fitting": 6})
    manifest = protect_pairs(natural, tmp_path / "out")
    assert manifest["counts"]["captions_read_back"] == manifest["counts"]["pairs"]
    found = manifest["naturalness"]
    assert found["triggers"] > found["random"] + 0.5
    folder, usual, _ = protected
    assert found["triggers"] > usual["naturalness"]["triggers"] + 0.5
    assert found["captions"] == usual["naturalness"]["captions"]
    made, others = (
        pq.read_table(place / "captions.parquet")["protected"].to_pylist()
        for place in (tmp_path / "out", folder)
    )
    assert made != others
    assert json.loads((tmp_path / "out" / "protection.json").read_text()) == manifest
