"""The page of rehearsals: figures of every size, slopes between sizes, what follows for more."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

from mmjax.measure.chips import CHIPS
from mmjax.scan.calibration import SAMPLE
from mmjax.scan.groups import MOST_QUERIES

NAME = "rehearsal.md"
CC3M = 3_300_000
FAR = 400e6
"""Pairs that slopes are extended to."""

_HEAD = """# Rehearsals of large scans

Made by `python -m mmjax.measure.rehearsal` from the `rehearsal-*.json` beside this page:
embeddings drawn at random (float16, topics, poison, exchanged captions) instead of encoded images,
and everything that comes after encoding, each step a process of its own. The load is that of the
machine when a step ended, which others used too; CPU seconds do not depend on it.

| mode, mapping | pairs | step | s | CPU s | most memory, GB | load | store, GB | of the poison flagged | flagged wrongly |
|---|---:|---|---:|---:|---:|---:|---:|---:|---:|
"""  # noqa: E501


def page(found: Sequence[dict[str, Any]]) -> str:
    """The page as Markdown."""
    ranked = sorted(found, key=itemgetter("mode", "kind", "dimension", "pairs"))
    rows = [row for each in ranked for row in _rows(each)]
    told = [
        line
        for _, same in groupby(ranked, key=itemgetter("mode", "kind", "dimension"))
        for line in _slopes(list(same))
    ]
    return _HEAD + "\n".join([*rows, "", *told]) + "\n"


def _rows(found: dict[str, Any]) -> Iterator[str]:
    known = found["found"]
    for step in found["steps"]:
        scan = step["name"] == "scan"
        cells = [
            f"{found['mode']}, {found['kind']}",
            f"{found['pairs']:,}",
            step["name"],
            f"{step['seconds']:.1f}",
            f"{step['cpu']:.1f}",
            f"{step['resident'] / 1e9:.2f}",
            f"{step['load']:.1f}",
            f"{found['stored_bytes'] / 1e9:.2f}" if scan else "",
            f"{known['flagged']:,} of {known['poisoned']:,}" if scan else "",
            f"{known['wrongly']:,}" if scan else "",
        ]
        yield "| " + " | ".join(cells) + " |"


LEAST = 1.05
"""How much more the largest set must take than the smallest for a slope to be told."""


def _slopes(same: list[dict[str, Any]]) -> Iterator[str]:
    """What a million pairs more cost, from the smallest to the largest size; and the far end."""
    if len(same) < 2:
        return
    small, large = same[0], same[-1]
    if large["mode"] == "robust":
        yield _searched(small, large)
        return
    more = large["pairs"] - small["pairs"]
    for before, after in zip(small["steps"], large["steps"], strict=True):
        cpu, memory = (
            (after[name] - before[name]) / more if after[name] > LEAST * before[name] else 0.0
            for name in ("cpu", "resident")
        )
        told = [
            _grown(cpu, "CPU seconds", 1e6, f"{FAR * cpu / 3600:.1f} CPU hours"),
            _grown(memory, "MB of memory", 1.0, f"{FAR * memory / 1e9:.0f} GB"),
        ]
        yield (
            f"- {large['mode']}, {large['kind']}, {after['name']}, a million pairs more "
            f"({small['pairs']:,} to {large['pairs']:,}): {'; '.join(told)}."
        )


def _grown(slope: float, unit: str, scale: float, far: str) -> str:
    """A slope by the pair, by the million, and what it comes to; too small a one cannot be told."""
    if slope <= 0:
        return f"no growth in {unit} that these sizes could tell"
    return f"{scale * slope:,.1f} {unit}, on a line {far} for {FAR / 1e6:.0f} million"


def _searched(small: dict[str, Any], large: dict[str, Any]) -> str:
    """What the search for neighbours costs, most of the robust mode, and what it would cost."""
    cpu = [next(s["cpu"] for s in each["steps"] if s["name"] == "scan") for each in (small, large)]
    work = [_operations(each["pairs"], each["dimension"]) for each in (small, large)]
    rate = (work[1] - work[0]) / (cpu[1] - cpu[0])
    far = _operations(CC3M, large["dimension"])
    chip = CHIPS["v5e"]
    return (
        f"- {large['mode']}, {large['kind']}, scan: {rate / 1e9:.0f} GFLOP a CPU second in the "
        f"search for neighbours ({small['pairs']:,} to {large['pairs']:,}), 2 n d for each "
        f"of {SAMPLE:,} reference captions and for each of the captions, {MOST_QUERIES:,} at most. "
        f"{CC3M:,} pairs of {large['dimension']} dimensions are {far / 1e15:.1f} PFLOP: "
        f"{far / rate / 3600:.0f} CPU hours, or on 8 chips of v5e, whose float32 products take six "
        f"of bfloat16, at least {6 * far / (8 * chip.flops):.0f} s ({chip.source})."
    )


def _operations(pairs: int, dimension: int) -> float:
    """Of both searches: for what is usual in the reference, and for neighbours in the set."""
    return 2.0 * pairs * dimension * (SAMPLE + min(pairs, MOST_QUERIES))
