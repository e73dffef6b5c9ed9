import functools

import pytest

from mmjax.scan.report_captions import SharedWord
from mmjax.scan.report_text import actions, cautions, verdict_sentence

BANANA = SharedWord("banana", 39, 0.95, 0.0)


@pytest.mark.parametrize(
    ("counts", "words", "sentence"),
    [
        ({"benign": 4000}, [], "No evidence of poisoning in 4,000 pairs."),
        ({"benign": 3999, "skipped": 1}, [], "No evidence of poisoning in 3,999 pairs."),
        ({"skipped": 3}, [], "None of the 3 pairs could be scored."),
        ({"undetermined": 4}, [], "Undecided: 4 pairs are too few or too alike to judge."),
        ({"poisoned": 1, "benign": 9}, [], "1 of 10 pairs looks poisoned."),
        ({"poisoned": 41, "benign": 59}, [], "41 of 100 pairs look poisoned."),
        (
            {"poisoned": 41, "benign": 59},
            [BANANA],
            "41 of 100 pairs look poisoned: 39 of them say “banana”.",
        ),
        (
            {"poisoned": 39, "benign": 61},
            [BANANA],
            "39 of 100 pairs look poisoned: all of them say “banana”.",
        ),
    ],
)
def test_the_verdict_is_one_sentence(counts, words, sentence):
    assert verdict_sentence(counts, words, [], None) == sentence


def test_actions_tell_whether_a_clean_copy_was_written():
    told = functools.partial(actions, drop="poisoned")
    assert (
        "--write_clean to get a copy without the flagged pairs"
        in told({"poisoned": 3, "mismatched": 1}, clean_written=False)[0]
    )
    assert (
        "“clean” holds a copy without the flagged pairs"
        in told({"poisoned": 3}, clean_written=True)[0]
    )
    assert told({"benign": 3, "mismatched": 1}, clean_written=False) == [
        "Nothing was dropped; the input is unchanged."
    ]
    assert "every scored pair" in told({"benign": 3}, clean_written=True)[0]


@pytest.mark.parametrize(
    ("counts", "dropped"),
    [
        ({"poisoned": 3, "mismatched": 1}, "the flagged and merely wrong pairs"),
        ({"poisoned": 3}, "the flagged pairs"),
        ({"mismatched": 1}, "the merely wrong pairs"),
    ],
)
def test_actions_tell_whether_mismatched_pairs_were_dropped(counts, dropped):
    told = actions(counts, drop="mismatched", clean_written=True)
    assert told[0].endswith(f"the folder “clean” holds a copy without {dropped}.")


def test_cautions_name_what_weakens_the_verdict():
    assert cautions({"benign": 5000}) == []
    assert len(cautions({"benign": 500})) == 1
    assert "skipped" in cautions({"benign": 5000, "skipped": 500})[0]
    assert "tenth" in cautions({"benign": 5000, "poisoned": 5000})[0]
