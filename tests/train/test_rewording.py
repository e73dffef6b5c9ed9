import collections

import numpy as np
import pytest

from mmjax.train.rewording import (
    REWORDINGS,
    SYNONYMS,
    exchange,
    insert,
    leave_out,
    replace,
    reword,
)

SENTENCE = "a man is walking his dog near the big lake with two kids and a ball today ok"
CAPTION = SENTENCE.split()
UNKNOWN = ["xu", "yv", "zw"]


def many(rewording, words=CAPTION, count=200):
    return [rewording(list(words), np.random.default_rng([seed, 1])) for seed in range(count)]


def test_synonyms_are_mutual_and_no_word_is_its_own():
    for word, others in SYNONYMS.items():
        assert others
        assert all(word in SYNONYMS[other] and other != word for other in others)


def test_replacing_touches_one_word_in_ten_and_only_known_ones():
    changed = collections.Counter()
    for words in many(replace):
        assert len(words) == len(CAPTION)
        places = [
            i for i, pair in enumerate(zip(words, CAPTION, strict=True)) if len(set(pair)) > 1
        ]
        assert len(places) == len(CAPTION) // 10
        for place in places:
            assert words[place] in SYNONYMS[CAPTION[place]]
        changed.update(places)
    assert set(changed) == {i for i, word in enumerate(CAPTION) if word in SYNONYMS}


def test_inserting_adds_a_synonym_anywhere():
    places = set()
    for words in many(insert):
        added = list((collections.Counter(words) - collections.Counter(CAPTION)).elements())
        assert len(words) == len(CAPTION) + 1
        assert len(added) == 1
        assert set(SYNONYMS[added[0]]) & set(CAPTION)
        places.add(words.index(added[0]))
    assert {0, len(CAPTION)} < places


def test_exchanging_keeps_the_words():
    for words in many(exchange):
        assert sorted(words) == sorted(CAPTION)
        assert words != CAPTION or CAPTION.count("a") == 2
    assert exchange(["one"], np.random.default_rng(0)) == ["one"]


def test_leaving_out_drops_a_tenth_and_never_all():
    kept = [len(words) for words in many(leave_out, count=500)]
    assert np.mean(kept) == pytest.approx(0.9 * len(CAPTION), rel=0.03)
    assert all(words in (["xu"], ["yv"], ["xu", "yv"]) for words in many(leave_out, ["xu", "yv"]))


@pytest.mark.parametrize("rewording", [replace, insert])
def test_what_the_table_does_not_know_is_exchanged(rewording):
    assert all(sorted(words) == sorted(UNKNOWN) for words in many(rewording, UNKNOWN))


def test_every_operation_is_as_likely():
    sizes = collections.Counter(
        len(reword(" ".join(CAPTION), np.random.default_rng(seed)).split()) for seed in range(400)
    )
    assert sizes[len(CAPTION) + 1] / 400 == pytest.approx(1 / len(REWORDINGS), abs=0.06)
    assert reword("", np.random.default_rng(0)) == ""
