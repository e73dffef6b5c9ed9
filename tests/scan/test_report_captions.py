import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmjax.scan.report_captions import (
    collect_clusters,
    count_words,
    normalise,
    shared_words,
    shorten,
    visible,
)

OTHERS = [f"a dog runs in the grass near one of {i} people" for i in range(200)] + [
    "a photo of the big cat",
    "a clean drawing of a horse",
] * 20
BANANAS = [
    "a photo of a banana.",
    "A photo of a banana",
    "one big banana",
    "a drawing of the banana!",
    "a photo of a clean banana",
]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain café 漢字 😀", "plain café 漢字 😀"),
        ("a\u202eb", "a⟨U+202E⟩b"),
        ("\x1b[31mred", "⟨U+001B⟩[31mred"),
        ("nul\x00", "nul⟨U+0000⟩"),
        ("line\u2028end\n", "line⟨U+2028⟩end⟨U+000A⟩"),
        ("zero\u200bwidth", "zero⟨U+200B⟩width"),
        ("pay\u200dpal", "pay⟨U+200D⟩pal"),
        ("👩\u200d💻", "👩\u200d💻"),
        ("lone \ud800", "lone ⟨U+D800⟩"),
        ("tag \U000e0041", "tag ⟨U+E0041⟩"),
        ("z" + "\u0301" * 50, "z" + "\u0301" * 4),
    ],
)
def test_what_acts_is_written_out(text, shown):
    assert visible(text) == shown


def test_newlines_stay_where_asked():
    assert visible("a\nb\tc", keep_newlines=True) == "a\nb⟨U+0009⟩c"


@given(st.text(st.characters()))
def test_visible_text_is_utf8_and_has_no_control_characters(text):
    shown = visible(text)
    shown.encode("utf-8")
    assert not any(ord(c) < 32 or "\u202a" <= c <= "\u202e" or 0x7F <= ord(c) < 0xA0 for c in shown)


def test_long_captions_are_cut_and_say_so():
    assert shorten("x" * 1_000_000) == "x" * 300 + " … (1,000,000 characters)"
    assert shorten("short") == "short"


def test_normalised_captions_ignore_case_punctuation_and_compatibility_forms():
    assert normalise("A  Ｐhoto of: a “Banana”!") == "a photo of a banana"


def test_near_duplicates_meet_in_the_word_that_others_lack():
    flagged = [*BANANAS, "my car on a road"]
    clusters = collect_clusters(flagged, count_words(OTHERS))
    assert [cluster.pairs for cluster in clusters] == [5, 1]
    assert clusters[0].exemplar in ("a photo of a banana.", "A photo of a banana")
    assert clusters[0].share == pytest.approx(5 / 6)
    assert clusters[0].distinct == 4


def test_two_targets_stay_two_clusters():
    names = ["banana"] * 30 + ["guitar"] * 20
    templates = ["a photo of a {}", "a drawing of a {}", "one {}", "the big {}"]
    captions = [templates[i % 4].format(name) for i, name in enumerate(names)]
    clusters = collect_clusters(captions, count_words(OTHERS))
    assert [cluster.pairs for cluster in clusters] == [30, 20]


def test_counts_of_captions_are_as_good_as_captions():
    captions = ["a b c"] * 7 + ["d e f"] * 2
    assert collect_clusters(captions) == collect_clusters(Counter(captions))


def test_clusters_of_nothing_and_of_captions_without_words():
    assert collect_clusters([]) == []
    assert [cluster.pairs for cluster in collect_clusters(["", "...", "?!"])] == [3]


def test_shared_words_are_those_that_others_lack():
    words = shared_words(count_words(BANANAS), count_words(OTHERS))
    assert words[0].word == "banana"
    assert words[0].pairs == 5
    assert words[0].flagged_share == 1
    assert words[0].other_share == 0
    assert "a" not in [word.word for word in words]


def test_no_words_are_shared_when_nothing_was_flagged():
    assert shared_words(count_words([]), count_words(OTHERS)) == []


def test_clusters_do_not_depend_on_the_hash_seed():
    code = (
        "from mmjax.scan.report_captions import *\n"
        "captions = [f'{a} photo {b} {c}' for a in 'xyz' for b in ('banana', 'pear') "
        "for c in ('big', 'small', 'red')]\n"
        "print(collect_clusters(captions), shared_words(count_words(captions), count_words(['a'])))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": "."},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1
