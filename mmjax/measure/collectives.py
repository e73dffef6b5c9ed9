"""The collectives of a compiled program, read from its text."""

import math
import re
from typing import NamedTuple

_COLLECTIVE = re.compile(
    r"= (?P<shape>.*?) (?P<kind>all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute)"
    r"(?P<start>-start)?\("
)
_ARRAY = re.compile(r"(?P<type>pred|[a-z]+\d+)\[(?P<sizes>[\d,]*)\]")
_COMPUTATION = re.compile(r"^(?:ENTRY )?(?P<name>%[\w.\-]+) .*\{$")
_BODY = re.compile(r" while\(.*body=(?P<name>%[\w.\-]+)")
_CALLED = re.compile(r"(?:calls|to_apply|body)=(?P<name>%[\w.\-]+)")


_CHAINED, _BEGINS = 'chain_id="', 'custom_call_target="AsyncCollectiveStart"'
"""On TPUs a collective may go on while fusions compute: each of them repeats it, one begins it."""


class Traffic(NamedTuple):
    """Collectives of one kind: how many, the bytes of their results, those of the largest."""

    number: int
    bytes: int
    largest: int


def collectives(text: str, repeats: int = 1) -> dict[str, Traffic]:
    """The collectives of a program by kind.

    Args:
        text: the program, as the compiler prints it.
        repeats: how often a collective inside a loop counts; the text does not tell how often a
            loop runs.
    """
    lines: dict[str, list[str]] = {}
    name = ""
    for line in text.splitlines():
        opened = _COMPUTATION.match(line)
        name = opened["name"] if opened else name
        lines.setdefault(name, []).append(line)
    looped = _reached(lines)
    found: dict[str, Traffic] = {}
    for computation, body in lines.items():
        times = repeats if computation in looped else 1
        begun = " ".join(line for line in body if _BEGINS in line)
        for line in body:
            match = _COLLECTIVE.search(line)
            if match is None or (_CHAINED in line and not _uses(begun, line)):
                continue
            arrays = [
                math.prod(int(n) for n in array["sizes"].split(",") if n) * _width(array["type"])
                for array in _ARRAY.finditer(match["shape"])
            ]
            # an asynchronous start gives (operands, results, ...): the largest is the result
            size = max(arrays, default=0) if match["start"] else sum(arrays)
            known = found.get(match["kind"], Traffic(0, 0, 0))
            found[match["kind"]] = Traffic(
                known.number + times, known.bytes + times * size, max(known.largest, size)
            )
    return dict(sorted(found.items()))


def _uses(text: str, line: str) -> bool:
    """Whether a text has the name that a line defines."""
    name = line.split("=")[0].split()[-1]
    return re.search(re.escape(name) + r"(?![\w.\-])", text) is not None


def _reached(lines: dict[str, list[str]]) -> set[str]:
    """Computations that run inside a loop."""
    left = [m["name"] for body in lines.values() for line in body if (m := _BODY.search(line))]
    reached: set[str] = set()
    while left:
        name = left.pop()
        if name not in reached:
            reached.add(name)
            left += [m["name"] for line in lines.get(name, ()) for m in _CALLED.finditer(line)]
    return reached


def _width(kind: str) -> int:
    """Bytes of an element of an HLO type, as `bf16`."""
    return 1 if kind == "pred" else max(1, int(re.sub(r"\D", "", kind)) // 8)
