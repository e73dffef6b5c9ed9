"""One pass over the verdict tables of a run: everything of the report that is not a picture.

Memory is bounded by the number of flagged captions and `MOST_CAPTIONS`, not by the rows.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Bool, Float

from mmjax.core.errors import InputError
from mmjax.data.columns import equals, has_members
from mmjax.scan.report_captions import CaptionCluster, WordCounts, collect_clusters, count_words
from mmjax.scan.report_figures import Histogram
from mmjax.scan.report_text import SCORES

MOST_CAPTIONS = 1_000_000
"""Captions of unflagged pairs that are looked at for repetition; above it, every k-th shard."""

_WORST = 24
_FIRST_KEYS = 5
_FINE_BINS = 4_000
_SHOWN_BINS = 80
_REPEATS = 5  # a caption on fewer unflagged pairs is nothing to review
_WORD_SAMPLE = 50_000


class WorstRow(NamedTuple):
    """A row of the verdict table that is shown with its picture."""

    shard: str
    ordinal: int
    key: str
    caption: str
    verdict: str
    scores: Mapping[str, float]

    @property
    def place(self) -> tuple[str, int]:
        """Shard and ordinal."""
        return self.shard, self.ordinal


@dataclass
class Tally:
    """What one pass over the verdict tables adds up."""

    verdicts: Counter[str] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)
    remarks: Counter[str] = field(default_factory=Counter)
    first_keys: dict[str, list[str]] = field(default_factory=dict)
    consistency: "FineHistogram" = field(default_factory=lambda: FineHistogram(0.0, 2.0))
    correlation: "FineHistogram" = field(default_factory=lambda: FineHistogram(-1.0, 1.0))
    flagged_captions: Counter[str] = field(default_factory=Counter)
    other_captions: Counter[str] = field(default_factory=Counter)
    word_sample: list[str] = field(default_factory=list)
    flagged_rows: dict[str, np.ndarray] = field(default_factory=dict)
    benign_rows: dict[str, np.ndarray] = field(default_factory=dict)
    candidates: list[tuple[bool, float, WorstRow]] = field(default_factory=list)
    lowest_seed: float | None = None

    @property
    def rows(self) -> int:
        """All rows read."""
        return self.verdicts.total()

    def worst(self) -> list[WorstRow]:
        """The flagged rows with the highest scores; with none flagged, the highest of all."""
        ranked = sorted(self.candidates, key=_badness)
        if ranked and ranked[0][0]:
            ranked = [candidate for candidate in ranked if candidate[0]]
        return [row for _, _, row in ranked[:_WORST]]

    def word_counts(self) -> tuple[WordCounts, WordCounts]:
        """Word counts of the flagged captions and of a sample of the others."""
        return count_words(self.flagged_captions), count_words(self.word_sample)


class FineHistogram:
    """Counts in many fine bins over a known range; shown in few bins over what is occupied."""

    def __init__(self, low: float, high: float):
        self._edges = np.linspace(low, high, _FINE_BINS + 1)
        self._counts = np.zeros(_FINE_BINS, np.int64)
        self._flagged = np.zeros(_FINE_BINS, np.int64)

    def add(self, values: Float[np.ndarray, " n"], flagged: Bool[np.ndarray, " n"]) -> None:
        """Adds the finite values; those beyond the range count in the outermost bin."""
        finite = np.isfinite(values)
        clipped = np.clip(values, self._edges[0], self._edges[-1])
        self._counts += np.histogram(clipped[finite], self._edges)[0]
        self._flagged += np.histogram(clipped[finite & flagged], self._edges)[0]

    def shown(self) -> Histogram | None:
        """At most 80 equal bins over the occupied range, None when empty."""
        occupied = np.flatnonzero(self._counts)
        if occupied.size == 0:
            return None
        start, stop = int(occupied[0]), int(occupied[-1]) + 1
        width = -(-(stop - start) // _SHOWN_BINS)
        stop = min(start + width * -(-(stop - start) // width), _FINE_BINS)
        cuts = np.arange(start, stop, width)
        return Histogram(
            edges=self._edges[np.append(cuts, stop)],
            counts=np.add.reduceat(self._counts[:stop], cuts),
            flagged=np.add.reduceat(self._flagged[:stop], cuts),
        )


def read_tables(folder: Path) -> Iterator[pa.Table]:
    """Yields the verdict table of each shard, in the order of their names.

    Raises:
        InputError: there is none, or one cannot be read.
    """
    paths = sorted(folder.glob("*.parquet"))
    if not paths:
        raise InputError(f"{folder} holds no verdict tables; finish the scan first")
    for path in paths:
        try:
            yield pq.read_table(path)
        except (OSError, pa.ArrowInvalid) as error:
            raise InputError(f"{path} cannot be read ({error}); run the scan again") from error


def tally(tables: Iterable[pa.Table], rows: int) -> Tally:
    """Adds up verdict tables; `rows` is their total, known from the Parquet footers."""
    every = max(1, -(-rows // MOST_CAPTIONS))
    result = Tally()
    for index, table in enumerate(tables):
        _add_counts(result, table)
        _add_scores(result, table)
        _add_captions(result, table, sampled=index % every == 0, rows=rows)
    return result


def _add_counts(result: Tally, table: pa.Table) -> None:
    for verdict in table["verdict"].value_counts().to_pylist():
        result.verdicts[verdict["values"]] += verdict["counts"]
    bad = table.filter(pa.array(~matches(table, "status", "ok")))
    for status, key in zip(bad["status"].to_pylist(), bad["key"].to_pylist(), strict=True):
        result.statuses[status] += 1
        _remember(result, status, key)
    remarked = table.filter(pa.array(has_members(table["flags"])))
    for flags, key in zip(remarked["flags"].to_pylist(), remarked["key"].to_pylist(), strict=True):
        for flag in flags or ():
            result.remarks[flag] += 1
            _remember(result, flag, key)


def _remember(result: Tally, reason: str, key: str | None) -> None:
    keys = result.first_keys.setdefault(reason, [])
    if len(keys) < _FIRST_KEYS:
        keys.append(key or "(no key)")


def _add_scores(result: Tally, table: pa.Table) -> None:
    if table.num_rows == 0:
        return
    flagged = is_flagged(table)
    result.consistency.add(column(table, "consistency"), flagged)
    result.correlation.add(column(table, "text_correlation"), flagged)
    seeds = column(table, "consistency")[matches(table, "coarse", "seed")]
    if seeds.size:
        lowest = float(seeds.min())
        result.lowest_seed = min(lowest, result.lowest_seed or lowest)
    shard = table["shard"][0].as_py()
    ordinals = table["ordinal"].to_numpy()
    result.flagged_rows[shard] = ordinals[flagged]
    result.benign_rows[shard] = ordinals[matches(table, "verdict", "benign")]

    score = _ranking(table)
    pool = np.flatnonzero(flagged if flagged.any() else np.isfinite(score))
    best = pool[np.lexsort((pool, -np.nan_to_num(score[pool], nan=-1.0)))][:_WORST]
    rows = table.take(pa.array(best)).to_pylist()
    for row, index in zip(rows, best, strict=True):
        scores = {name: _number(row[name]) for name in SCORES}
        worst = WorstRow(
            row["shard"], row["ordinal"], row["key"], row["caption"] or "", row["verdict"], scores
        )
        result.candidates.append((bool(flagged[index]), float(score[index]), worst))
    result.candidates = sorted(result.candidates, key=_badness)[:_WORST]


def _badness(candidate: tuple[bool, float, WorstRow]) -> tuple[bool, float, str, int]:
    """Sorts flagged rows first, then by falling score, then by place."""
    flagged, score, row = candidate
    return (not flagged, -(score if score == score else -1.0), row.shard, row.ordinal)


def _add_captions(result: Tally, table: pa.Table, *, sampled: bool, rows: int) -> None:
    flagged = is_flagged(table)
    for caption in table.filter(pa.array(flagged))["caption"].to_pylist():
        result.flagged_captions[caption or ""] += 1
    if not sampled:
        return
    scored = matches(table, "status", "ok") & ~flagged
    captions = table.filter(pa.array(scored))["caption"].drop_null()
    for entry in captions.value_counts().to_pylist():
        result.other_captions[entry["values"]] += entry["counts"]
    stride = max(1, rows // _WORD_SAMPLE)
    sample = pa.array(range(0, len(captions), stride), pa.int64())
    result.word_sample.extend(captions.take(sample).to_pylist())


def repeated(tallied: Tally, limit: int = 8) -> list[CaptionCluster]:
    """Caption clusters among the pairs that were not flagged, for review."""
    often = Counter({c: n for c, n in tallied.other_captions.items() if n >= _REPEATS})
    top = Counter(dict(often.most_common(1_000)))
    whole = max(tallied.other_captions.total(), 1)
    return [
        cluster._replace(share=cluster.pairs / whole)
        for cluster in collect_clusters(top, similarity=0.75, limit=limit)
    ]


def column(table: pa.Table, name: str) -> Float[np.ndarray, " n"]:
    """A score column as float64 with NaN for null."""
    return table[name].cast(pa.float64()).to_numpy(zero_copy_only=False)


def matches(table: pa.Table, name: str, value: str) -> Bool[np.ndarray, " n"]:
    """Where a text column holds `value`; null is no match."""
    return equals(table[name], value)


def is_flagged(table: pa.Table) -> Bool[np.ndarray, " n"]:
    """Where the scan flagged a pair; skipped rows are not flagged."""
    return equals(table["is_poisoned"], True)


def _ranking(table: pa.Table) -> Float[np.ndarray, " n"]:
    """The poison score; ties and rows without one are ordered by c far below it."""
    score, gap = column(table, "poison_score"), column(table, "consistency")
    return np.where(np.isfinite(score), score, 0.0) + 1e-6 * np.where(np.isfinite(gap), gap, np.nan)


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)
