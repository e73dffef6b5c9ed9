"""What every source is made of: shards, their views and fingerprints, tables cut to shards."""

import bisect
import dataclasses
import hashlib
import itertools
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from mmjax.core.config import split_names
from mmjax.core.errors import InputError
from mmjax.core.types import Pair
from mmjax.data.records import Row, make_pair

MIB = 2**20


class Shard(NamedTuple):
    """A part of a source that is scanned, journalled and redone as one.

    `name` is unique in its source and safe as a file stem; `start` and `stop` are row numbers for
    the virtual shards of table-like sources (`stop` is None where only a scan can tell).
    """

    name: str
    path: str
    start: int = 0
    stop: int | None = None


@runtime_checkable
class ShardView(Protocol):
    """Random access to the pairs of one shard; a bad row is a `Pair` with a status, never an error.

    `warnings` say what could not be read (the scan ends as degraded), `notes` what is worth
    knowing and nobody's fault here.
    """

    @property
    def warnings(self) -> tuple[str, ...]: ...  # noqa: D102

    @property
    def notes(self) -> tuple[str, ...]: ...  # noqa: D102

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Pair: ...


class Source(NamedTuple):
    """A readable set of pairs.

    `fingerprint` changes when a shard's content changes and survives `touch` and copying. `sizes`
    holds the number of rows by shard name where it is known without reading (a hint for ETAs).
    """

    kind: str
    location: str
    shards: tuple[Shard, ...]
    open_shard: Callable[[Shard], ShardView]
    fingerprint: Callable[[Shard], str]
    sizes: Mapping[str, int] = {}


@dataclasses.dataclass(frozen=True)
class SourceOptions:
    """How a source is read; the defaults fit what img2dataset, open_clip and Hugging Face write.

    Attributes:
      split: comma-separated split names; "" takes every row.
      image_key: image extensions in a tar, the preferred one first (open_clip's `--image-key`).
      text_key: caption extensions in a tar (open_clip's `--text-key`).
      json_text_key: key of the caption in a tar's `.json` members, read where there is no text.
      image_column: image column of a table; "" tries the common names.
      caption_column: caption column of a table; "" tries the common names.
      separator: separator of a CSV file; "" takes TAB where the first line has one, else a comma.
      image_root: folder that image names are relative to; "" looks beside the annotation file.
      max_member_bytes: larger images and captions become `oversized_member` rows.
      shard_size: rows in a virtual shard of a table-like source.
    """

    split: str = ""
    image_key: str = "jpg;png;jpeg;webp;gif;bmp"
    text_key: str = "txt"
    json_text_key: str = "caption"
    image_column: str = ""
    caption_column: str = ""
    separator: str = ""
    image_root: str = ""
    max_member_bytes: int = 64 * MIB
    shard_size: int = 10_000


@dataclasses.dataclass(frozen=True)
class RowView:
    """A `ShardView` over rows that a function gives by number."""

    length: int
    row: Callable[[int], Row]
    limit: int
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Pair:
        return make_pair(self.row(range(self.length)[index]), self.limit)


def file_fingerprint(
    path: str | os.PathLike[str], *, whole_below: int = 64 * MIB, blocks: int = 256
) -> str:
    """Size and SHA-256 of a file's content, which copying and `touch` do not change.

    A file of more than `whole_below` bytes is sampled: `blocks` blocks of 16 KiB, evenly spread
    from its first to its last byte (4 MiB of reading whatever its size), so an edit that keeps the
    size of such a file and falls between the blocks goes unnoticed.
    """
    digest = hashlib.sha256()
    block = 16 * 1024
    try:
        with open(path, "rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            if size <= max(whole_below, block * blocks):
                while data := file.read(MIB):
                    digest.update(data)
            else:
                for number in range(blocks):
                    file.seek((size - block) * number // (blocks - 1))
                    digest.update(file.read(block))
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        return f"unreadable-{getattr(error, 'errno', 'name')}"
    return f"{size}-{digest.hexdigest()[:32]}"


def rows_fingerprint(rows: Iterable[Row]) -> str:
    """Fingerprint of rows and of the image files that they name."""
    digest, known = hashlib.sha256(), {}
    for row in rows:
        image = row.image
        if isinstance(image, str) and image not in known:
            known[image] = file_fingerprint(image, whole_below=4 * 16 * 1024, blocks=4)
        content = known[image] if isinstance(image, str) else hashlib.sha256(image or b"").digest()
        digest.update(repr((row.key, row.caption, row.status, content)).encode())
    return digest.hexdigest()[:32]


def select_splits(split: str, known: Mapping[str, int], location: str) -> frozenset[str]:
    """Parses "val,test" against the splits (name to number of rows) that a source has."""
    wanted = split_names(split)
    if missing := sorted(wanted - known.keys()):
        has = ", ".join(f"{name} ({count})" for name, count in sorted(known.items()))
        raise InputError(
            f"{location} has no split {missing[0]!r}; it has {has or 'no splits'}; "
            "fix --split or leave it out"
        )
    return wanted


class Table(NamedTuple):
    """`length` rows that a function gives by number, and what could not be read of them."""

    length: int
    row: Callable[[int], Row]
    warnings: tuple[str, ...] = ()


def join_tables(tables: Sequence[Table]) -> Table:
    """One table after the other."""
    starts = list(itertools.accumulate((table.length for table in tables), initial=0))

    def row(number: int) -> Row:
        part = bisect.bisect_right(starts, number) - 1
        return tables[part].row(number - starts[part])

    return Table(starts[-1], row, tuple(w for table in tables for w in table.warnings))


def table_source(kind: str, location: str, table: Table, options: SourceOptions) -> Source:
    """A source over a table cut into virtual shards 00000, 00001, ... of `options.shard_size`.

    The first shard shows the warnings about the whole table.

    Raises:
        InputError: the table has no rows.
    """
    shards = virtual_shards([(location, table.length)], options.shard_size)
    if not shards:
        raise InputError(f"{location} holds no pairs; check the file or --split")

    def open_shard(shard: Shard) -> ShardView:
        span = range(shard.start, table.length if shard.stop is None else shard.stop)
        shown = () if shard.start else table.warnings
        return RowView(len(span), lambda i: table.row(span[i]), options.max_member_bytes, shown)

    def fingerprint(shard: Shard) -> str:
        stop = table.length if shard.stop is None else shard.stop
        return rows_fingerprint(table.row(number) for number in range(shard.start, stop))

    return Source(kind, location, shards, open_shard, fingerprint, shard_sizes(shards))


def virtual_shards(parts: Iterable[tuple[str, int]], step: int) -> tuple[Shard, ...]:
    """Cuts (path, number of rows) parts into shards of at most `step` rows, numbered throughout."""
    step = max(1, step)
    spans = [
        (path, start, min(start + step, count))
        for path, count in parts
        for start in range(0, count, step)
    ]
    width = max(5, len(str(len(spans))))
    return tuple(Shard(f"{number:0{width}d}", *span) for number, span in enumerate(spans))


def shard_sizes(shards: Iterable[Shard]) -> dict[str, int]:
    """The number of rows of each shard whose `stop` is known."""
    return {shard.name: shard.stop - shard.start for shard in shards if shard.stop is not None}
