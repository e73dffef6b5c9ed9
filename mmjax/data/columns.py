"""Questions to columns of Arrow tables, answered without making Python objects of their values."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool


def equals(column: pa.ChunkedArray, value: str | bool) -> Bool[np.ndarray, " n"]:
    """Where it holds `value`; null is no match."""
    found = pc.call_function("equal", [column, pa.scalar(value, column.type)])
    return found.fill_null(False).to_numpy(zero_copy_only=False)


def is_among(column: pa.ChunkedArray, values: frozenset[str]) -> pa.ChunkedArray:
    """Where it holds one of some values, as a mask that filters a table."""
    wanted = pc.SetLookupOptions(pa.array(sorted(values), column.type))
    return pc.call_function("is_in", [column], wanted)


def counted(column: pa.ChunkedArray) -> dict[str, int]:
    """How often every value occurs."""
    return {entry["values"]: entry["counts"] for entry in column.value_counts().to_pylist()}


def members(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """What the lists of a column hold, one after the other."""
    return pc.call_function("list_flatten", [column])


def has_members(column: pa.ChunkedArray) -> Bool[np.ndarray, " n"]:
    """Where a column of lists holds a list that is not empty; null is empty."""
    length = pc.call_function("list_value_length", [column])
    return length.fill_null(0).to_numpy(zero_copy_only=False) > 0


def is_plain_text(column: pa.ChunkedArray) -> bool:
    """Whether it is text, or null, that storing changes nothing in (`data.records.clean_text`)."""
    if not pa.types.is_string(column.type):
        return False
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:  # no UTF-8
        return False
    return not any(_contains(column, odd) for odd in ("\0", "\ufeff"))


def is_trimmed(column: pa.ChunkedArray) -> bool:
    """Whether no value begins or ends with white space."""
    trimmed = pc.call_function("utf8_trim_whitespace", [column])
    return bool(pc.call_function("all", [pc.call_function("equal", [column, trimmed])]).as_py())


def _contains(column: pa.ChunkedArray, part: str) -> bool:
    found = pc.call_function("match_substring", [column], pc.MatchSubstringOptions(part))
    return bool(pc.call_function("any", [found]).as_py())
