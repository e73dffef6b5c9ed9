"""Columns of Arrow tables: the same answers as from Python values."""

import pyarrow as pa
import pytest

from mmjax.data import columns
from mmjax.data.records import clean_caption, clean_text

WORDS = pa.chunked_array([["a", None, "b"], [], ["a"]])


def test_equality_membership_and_counts() -> None:
    assert columns.equals(WORDS, "a").tolist() == [True, False, False, True]
    assert columns.equals(pa.chunked_array([[True, None, False]]), True).tolist() == [1, 0, 0]
    assert columns.is_among(WORDS, frozenset({"b", "c"})).to_pylist() == [False, False, True, False]
    assert columns.counted(WORDS) == {"a": 2, None: 1, "b": 1}


def test_lists() -> None:
    lists = pa.chunked_array([[["x", "y"], [], None]], pa.list_(pa.string()))
    assert columns.has_members(lists).tolist() == [True, False, False]
    assert columns.members(lists).to_pylist() == ["x", "y"]


@pytest.mark.parametrize(
    "text", ["plain", "", "naïve café 日本", " before", "after\u2003", "nul\0", "\ufeffmark", "\n"]
)
def test_plain_text_is_what_cleaning_leaves_alone(text: str) -> None:
    column = pa.chunked_array([["other", text, None]])
    if columns.is_plain_text(column):
        assert clean_text(text) == text
        if columns.is_trimmed(column):
            assert clean_caption(text) == (text or None, ())
    else:
        assert clean_caption(text) != (text, ())


def test_what_is_no_text_is_not_plain() -> None:
    assert not columns.is_plain_text(pa.chunked_array([[1, 2]]))
    broken = pa.array([b"\xff"]).view(pa.string())
    assert not columns.is_plain_text(pa.chunked_array([broken]))
