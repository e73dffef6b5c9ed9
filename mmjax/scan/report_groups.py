"""The second look at the verdict tables: groups of poisoned pairs, repeated captions, wrong pairs.

Of each file only the rows that may be shown are read. Kept are the captions of the poisoned rows
and a few rows of everything else, so memory does not grow with the set.
"""

import functools
import itertools
import operator
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mmjax.scan.report_captions import CaptionCluster, collect_clusters

MOST_GROUPS = 12
"""Groups that are shown."""
MOST_PICTURES = 6
"""Pairs of a group that are shown."""
MOST_WRONG = 12
"""Mismatched pairs that are shown."""

_WORDINGS = 3
_COLUMNS = ("shard", "ordinal", "key", "caption")


class Row(NamedTuple):
    """A row of the verdict tables that is shown; `jpeg` is its picture, where there is one."""

    shard: str
    ordinal: int
    key: str
    caption: str
    jpeg: bytes | None = None

    @property
    def place(self) -> tuple[str, int]:
        """Shard and ordinal."""
        return self.shard, self.ordinal


class WrongRow(NamedTuple):
    """A pair that is merely wrong, and how probably it is."""

    row: Row
    probability: float


class Wording(NamedTuple):
    """A caption and on how many pairs of a group it stands, in whatever spelling."""

    caption: str
    pairs: int


class PoisonedGroup(NamedTuple):
    """A group of poisoned pairs: its number in the tables, its size, and some of its rows.

    Pairs of a group that is not `linked` share only the looks of their images.
    """

    number: int
    pairs: int
    captions: int
    linked: bool
    wordings: tuple[Wording, ...]
    rows: tuple[Row, ...]


class RepeatedCaption(NamedTuple):
    """A wording that repeats among pairs that are not flagged, and some of its rows."""

    cluster: CaptionCluster
    rows: tuple[Row, ...]


class Findings(NamedTuple):
    """What is shown of groups, repeated captions and wrong pairs.

    `groups` are the largest of `group_count`; `wrong` are the surest mismatched pairs, one of each
    caption, surest first.
    """

    groups: tuple[PoisonedGroup, ...] = ()
    group_count: int = 0
    repeated: tuple[RepeatedCaption, ...] = ()
    wrong: tuple[WrongRow, ...] = ()

    @property
    def rows(self) -> list[Row]:
        """All rows that are shown."""
        several = [group.rows for group in (*self.groups, *self.repeated)]
        return [*itertools.chain(*several), *(pair.row for pair in self.wrong)]

    def map_rows(self, change: Callable[[Row], Row]) -> "Findings":
        """Returns the same findings with every row changed."""
        return self._replace(
            groups=tuple(g._replace(rows=tuple(map(change, g.rows))) for g in self.groups),
            repeated=tuple(r._replace(rows=tuple(map(change, r.rows))) for r in self.repeated),
            wrong=tuple(pair._replace(row=change(pair.row)) for pair in self.wrong),
        )


@dataclass
class _Gathered:
    """Rows that belong together, added up a shard at a time."""

    pairs: int = 0
    captions: Counter[str] = field(default_factory=Counter)
    fullest: list[tuple[int, list[Row]]] = field(default_factory=list)

    def add(self, table: pa.Table) -> None:
        """Adds the rows of one shard; of the six shards with most rows, six spread evenly stay."""
        n = table.num_rows
        self.pairs += n
        spread = np.linspace(0, n - 1, min(n, MOST_PICTURES)).astype(int)
        self.fullest.append((-n, _rows(table.take(pa.array(spread)))))
        self.fullest = sorted(self.fullest)[:MOST_PICTURES]

    def rows(self) -> tuple[Row, ...]:
        """A few rows, of as few shards as they come from: each has to be opened for pictures."""
        return tuple(row for _, rows in self.fullest for row in rows)[:MOST_PICTURES]


def look_again(
    folder: Path, clusters: Sequence[CaptionCluster], *, loose_group: int | None = None
) -> Findings:
    """Reads what the report shows of single rows.

    Args:
        folder: holds the verdict tables.
        clusters: of repeated captions among pairs that are not flagged; rows with the exemplar's
            spelling are looked for.
        loose_group: number of the group that is not linked.
    """
    groups: dict[int, _Gathered] = {}
    repeated = {cluster.exemplar: _Gathered() for cluster in clusters}
    wrong: list[WrongRow] = []
    for path in sorted(folder.glob("*.parquet")):
        table = _read(path, list(repeated))
        grouped = table.filter(pc.field("group").is_valid())
        for number in grouped["group"].unique().to_pylist():
            part = grouped.filter(pc.field("group") == number)
            group = groups.setdefault(number, _Gathered())
            group.captions.update(caption or "" for caption in part["caption"].to_pylist())
            group.add(part)
        unflagged = table.filter(~pc.field("is_poisoned"))
        for caption, gathered in repeated.items():
            part = unflagged.filter(pc.field("caption") == caption)
            if part.num_rows:
                gathered.add(part)
        wrong = _surest([*wrong, *_wrong(table)])
    largest = sorted(groups.items(), key=lambda item: (-item[1].pairs, item[0]))[:MOST_GROUPS]
    return Findings(
        groups=tuple(
            _group(number, gathered, linked=number != loose_group) for number, gathered in largest
        ),
        group_count=len(groups),
        repeated=tuple(RepeatedCaption(c, repeated[c.exemplar].rows()) for c in clusters),
        wrong=tuple(wrong),
    )


def _read(path: Path, captions: list[str]) -> pa.Table:
    """The rows of one verdict table that are grouped, mismatched or have one of the captions."""
    wanted = [
        pc.field("group").is_valid(),
        pc.field("verdict") == "mismatched",
        (pc.field("status") == "ok") & pc.field("caption").isin(pa.array(captions, pa.string())),
    ]
    columns = [*_COLUMNS, "group", "is_poisoned", "verdict", "mismatch_probability"]
    return pq.read_table(path, columns=columns, filters=functools.reduce(operator.or_, wanted))


def _rows(table: pa.Table) -> list[Row]:
    return [
        Row(row["shard"], row["ordinal"], row["key"] or "", row["caption"] or "")
        for row in table.select(_COLUMNS).to_pylist()
    ]


def _wrong(table: pa.Table) -> list[WrongRow]:
    """The surest mismatched pairs of a shard."""
    table = table.filter(pc.field("verdict") == "mismatched")
    probabilities = table["mismatch_probability"].to_pylist()
    return _surest([WrongRow(*pair) for pair in zip(_rows(table), probabilities, strict=True)])


def _surest(wrong: list[WrongRow]) -> list[WrongRow]:
    """The surest pair of each caption, the surest first."""
    ranked = sorted(wrong, key=lambda pair: (-pair.probability, pair.row))
    by_caption: dict[str, WrongRow] = {}
    for pair in ranked:
        by_caption.setdefault(pair.row.caption, pair)
    return list(by_caption.values())[:MOST_WRONG]


def _group(number: int, gathered: _Gathered, *, linked: bool) -> PoisonedGroup:
    wordings = collect_clusters(gathered.captions, similarity=1.0, limit=_WORDINGS)
    return PoisonedGroup(
        number=number,
        pairs=gathered.pairs,
        captions=len(gathered.captions),
        linked=linked,
        wordings=tuple(Wording(cluster.exemplar, cluster.pairs) for cluster in wordings),
        rows=gathered.rows(),
    )
