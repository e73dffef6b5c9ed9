"""What a paper claims of a table, checked against the numbers measured."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple


class Direction(NamedTuple):
    """A claim, whether the rows bear it out (None: they cannot tell), and the numbers behind."""

    claim: str
    holds: bool | None
    evidence: str


def rises(
    claim: str, values: Sequence[float | None], names: Sequence[str], *, falls: bool = False
) -> Direction:
    """The claim that values do not fall (or, with `falls`, do not rise) in their order.

    One whose values are all the same, or that has fewer than two, tells nothing.
    """
    known = [(n, v) for n, v in zip(names, values, strict=True) if v is not None]
    evidence = ", ".join(f"{name}: {value:.4g}" for name, value in known)
    steps = [b - a for (_, a), (_, b) in itertools.pairwise(known)]
    if not any(steps):
        return Direction(claim, None, evidence)
    return Direction(claim, all(s <= 0 if falls else s >= 0 for s in steps), evidence)


def above(claim: str, high: float | None, low: float | None, names: tuple[str, str]) -> Direction:
    """The claim that one number is larger than another."""
    if high is None or low is None:
        missing = names[0] if high is None else names[1]
        return Direction(claim, None, f"{missing} is not measured")
    return Direction(claim, high > low, f"{names[0]}: {high:.4g}, {names[1]}: {low:.4g}")


def lines(directions: Sequence[Direction], heading: str = "The paper's directions:") -> list[str]:
    """The Markdown lines that tell of them."""
    words = {True: "holds", False: "does not hold", None: "cannot be told"}
    return [
        heading,
        "",
        *(f"- {d.claim}: **{words[d.holds]}** ({d.evidence})." for d in directions),
    ]
