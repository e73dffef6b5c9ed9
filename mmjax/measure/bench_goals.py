"""What the parts are meant to reach beside their peers, checked against results of `bench`.

Goals are stated for `--size=full`; of other sizes the ratio is told and not judged.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

COMPUTES = ("float32", "bfloat16")
Row = Mapping[str, Any]


class Goal(NamedTuple):
    """A ratio of two parts of one case.

    Fields:
        case: of the bench.
        own: the part's name; `{cores}` stands for the machine's cores, `{compute}` for the type, of
            the two, that it is faster in.
        peer: the name of what it is compared with.
        least: the ratio that is the goal.
        beyond: the one that would be better than the goal.
        of: rates, rates against as many peers as there are cores, or the memory of temporaries.
    """

    case: str
    own: str
    peer: str
    least: float
    beyond: float | None = None
    of: Literal["rate", "rate a core", "temporaries"] = "rate"


_VIT = "ViT-B-32"
GOALS = (
    Goal("encode", "RN50 images, {compute}", "RN50 images, torch", 0.95, 1.1),
    Goal("encode", f"{_VIT} images, {{compute}}", f"{_VIT} images, torch", 0.7, 1.0),
    Goal(
        "encode",
        f"{_VIT} images, {{compute}}",
        f"{_VIT} images, plain flax, bfloat16",
        2.0,
        4.0,
    ),
    Goal(
        "text",
        f"{_VIT} captions, real lengths, {{compute}}",
        f"{_VIT} captions, real lengths, torch",
        3.0,
        5.0,
    ),
    Goal("pair", f"{_VIT} pairs, real lengths, {{compute}}", f"{_VIT} pairs, torch", 1.3, 2.0),
    Goal("loss", "loss and gradient, chunked", "loss and gradient, torch, whole matrix", 0.95),
    Goal(
        "loss",
        "loss and gradient, chunked",
        "loss and gradient, torch, whole matrix",
        12.0,
        of="temporaries",
    ),
    Goal("gmm", "mixture, exact", "scikit-learn", 20.0),
    Goal("gmm", "mixture, 4,096 bins", "scikit-learn", 100.0),
    Goal("z", "z of float16 captions", "a sum of the same array", 0.7),
    Goal("neighbours", "counts above 3 thresholds", "the bare product, torch", 0.95),
    Goal(
        "loader",
        "JPEG 500 px to 224, simplejpeg, threads: 1",
        "JPEG 500 px to 224, pillow, threads: 1",
        1.1,
        1.8,
    ),
    Goal(
        "loader",
        "JPEG 256 px to 224, simplejpeg, threads: {cores}",
        "JPEG 256 px to 224, simplejpeg, bare loop",
        0.9,
        of="rate a core",
    ),
    Goal("photos", "RN50 JPEG shards to embeddings", "RN50 encode steps alone", 0.95),
    Goal("pgd", "RN50 noise, float32", "RN50 noise, torch, float32, folded", 1.2, 1.5),
    Goal(
        "hotflip",
        "RN50 trigger search, {compute}",
        "RN50 trigger search, torch, float32, images encoded for each candidate",
        10.0,
        20.0,
    ),
)


class Verdict(NamedTuple):
    """What became of a goal; ratios by the clock and by CPU time are None where not measured."""

    goal: Goal
    size: str
    wall: float | None
    cpu: float | None

    @property
    def word(self) -> str:
        """Holds, missed, or why neither can be said."""
        if self.wall is None:
            return "not measured"
        if self.size != "full":
            return f"not judged at size {self.size}"
        return "holds" if self.wall >= self.goal.least else "missed"


def judge(results: Mapping[str, Mapping[str, Any]]) -> list[Verdict]:
    """The verdict on every goal from the results of `bench`, by their cases."""
    return [_verdict(goal, results.get(goal.case)) for goal in GOALS]


def _verdict(goal: Goal, found: Mapping[str, Any] | None) -> Verdict:
    if found is None:
        return Verdict(goal, "", None, None)
    # results of before the goals do not say how many cores there were
    cores = found.get("cores", 0)
    rows = {row["name"]: row for row in found["rows"]}
    names = {goal.own.format(cores=cores, compute=compute) for compute in COMPUTES}
    owns, peer = [rows[name] for name in names & set(rows)], rows.get(goal.peer)
    if not owns or peer is None:
        return Verdict(goal, found["size"], None, None)
    own = max(owns, key=lambda row: row["items_per_second"])
    if goal.of == "temporaries":
        return Verdict(goal, found["size"], peer["temporary_bytes"] / own["temporary_bytes"], None)
    wall = own["items_per_second"] / peer["items_per_second"]
    if goal.of == "rate a core":
        return Verdict(goal, found["size"], wall / cores, None)
    return Verdict(goal, found["size"], wall, _by_cpu(own) / _by_cpu(peer))


def _by_cpu(row: Row) -> float:
    """Items a second of CPU time."""
    return row["items_per_second"] * row["seconds"] / row["cpu_seconds"]


def table(verdicts: list[Verdict]) -> Iterator[str]:
    """The Markdown lines of a table of goals."""
    yield "| case | part | beside | goal | beyond | reached | by CPU time | |"
    yield "|---|---|---|---:|---:|---:|---:|---|"
    for verdict in verdicts:
        goal = verdict.goal
        peer = goal.peer
        if goal.of != "rate":
            peer += {
                "rate a core": ", times the cores",
                "temporaries": " (how many times its temporaries)",
            }[goal.of]
        own = goal.own.format(cores="all", compute="").rstrip(", ")
        yield (
            f"| {goal.case} | {own} | {peer} | {goal.least:g} x "
            f"| {_ratio(goal.beyond)} | {_ratio(verdict.wall)} | {_ratio(verdict.cpu)} "
            f"| {verdict.word} |"
        )


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.3g} x"
