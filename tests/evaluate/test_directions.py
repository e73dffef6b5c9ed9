"""Claims checked against numbers."""

import pytest

from mmjax.evaluate.directions import above, lines, rises


@pytest.mark.parametrize(
    ("values", "falls", "holds"),
    [
        ([1.0, 2.0, 2.0], False, True),
        ([1.0, 2.0, 1.9], False, False),
        ([3.0, 2.0, 2.0], True, True),
        ([3.0, None, 3.5], True, False),
        ([2.0, 2.0], False, None),
        ([None, 2.0], False, None),
        ([], True, None),
    ],
)
def test_an_order_is_checked(values, falls, holds) -> None:
    told = rises("x", values, [str(i) for i in range(len(values))], falls=falls)
    assert told.holds is holds


def test_two_numbers_are_compared() -> None:
    assert above("x", 2.0, 1.0, ("a", "b")) == ("x", True, "a: 2, b: 1")
    assert above("x", 1.0, 1.0, ("a", "b")).holds is False
    assert above("x", 1.0, None, ("a", "b")) == ("x", None, "b is not measured")


def test_the_page_says_what_holds() -> None:
    told = [above("one", 2.0, 1.0, ("a", "b")), rises("two", [1.0, 0.5], ["p", "q"])]
    assert lines(told)[2:] == [
        "- one: **holds** (a: 2, b: 1).",
        "- two: **does not hold** (p: 1, q: 0.5).",
    ]
