"""Parquet files of pairs: image bytes, Hugging Face's image struct, or image paths."""

import bisect
import functools
import os
import re
import threading
from collections import Counter, OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from mmjax.core.errors import InputError, ShardError
from mmjax.core.types import Pair
from mmjax.data.records import Row, locate_image, make_pair
from mmjax.data.shards import (
    Shard,
    Source,
    SourceOptions,
    Table,
    file_fingerprint,
    shard_sizes,
    virtual_shards,
)
from mmjax.data.tables import (
    CAPTION_COLUMNS,
    IMAGE_COLUMNS,
    URL_COLUMNS,
    find_column,
    refuse_urls,
    unknown_columns,
)

_CACHED_GROUPS = 2


class ParquetRows:
    """Random access to the rows of one Parquet file, by row group; thread-safe.

    Rows that img2dataset could not download (`status` other than "success") are left out and
    counted in `notes`. A caption column of lists gives one row a caption.
    """

    def __init__(self, path: str, options: SourceOptions, *, allow_absolute: bool = True):
        self.path = path
        self.warnings: tuple[str, ...] = ()
        self.notes: tuple[str, ...] = ()
        self._allow_absolute = allow_absolute
        self._root = Path(options.image_root) if options.image_root else Path(path).parent
        self._lock = threading.Lock()
        self._cache: OrderedDict[int, pa.Table] = OrderedDict()
        try:
            self._file = parquet.ParquetFile(path)
            schema = self._file.schema_arrow
            self._image, self._caption = _columns(path, schema, options)
            self._has_key = "key" in schema.names
            self._repeated = self._repeated_keys() if self._has_key else frozenset()
            self._rows = self._select(schema)
        except OSError as error:
            raise ShardError(f"{path} cannot be read ({error})") from error
        except (pa.ArrowException, UnicodeDecodeError) as error:
            raise ShardError(f"{path} is no readable Parquet file ({error})") from error
        counts = [
            self._file.metadata.row_group(g).num_rows for g in range(self._file.num_row_groups)
        ]
        self._starts = [sum(counts[:group]) for group in range(len(counts) + 1)]

    def __len__(self) -> int:
        return len(self._rows)

    def _select(self, schema: pa.Schema) -> Sequence[tuple[int, int]]:
        """The (row, number of its caption) of each pair; -1 stands for the only caption."""
        count = self._file.metadata.num_rows
        kept: Sequence[int] = range(count)
        if "status" in schema.names:
            statuses = texts(self._file.read(columns=["status"]).column(0))
            kept = [i for i, status in enumerate(statuses) if status in ("success", None)]
            if failed := Counter(s for s in statuses if s not in ("success", None)):
                self.notes = (failed_downloads(Path(self.path).name, failed),)
        if not _is_list(schema.field(self._caption).type):
            return _Singles(kept)
        lists = self._file.read(columns=[self._caption]).column(0)
        lengths = [len(value) if value.is_valid else 0 for value in lists]
        return [(i, n) for i in kept for n in (range(lengths[i]) if lengths[i] else (-1,))]

    def _repeated_keys(self) -> frozenset[int]:
        """The rows whose key an earlier row has."""
        keys = texts(self._file.read(columns=["key"]).column(0))
        first: dict[object, int] = {}
        return frozenset(
            i for i, key in enumerate(keys) if key is not None and first.setdefault(key, i) != i
        )

    def _group(self, group: int) -> pa.Table:
        with self._lock:
            if group in self._cache:
                self._cache.move_to_end(group)
                return self._cache[group]
            names = [self._image, self._caption, *(["key"] if self._has_key else [])]
            table = self._file.read_row_group(group, columns=list(dict.fromkeys(names)))
            self._cache[group] = table
            if len(self._cache) > _CACHED_GROUPS:
                self._cache.popitem(last=False)
            return table

    def row(self, index: int) -> Row:
        """One row before its status is settled; an unreadable row group gives bad rows."""
        number, caption_number = self._rows[index]
        group = bisect.bisect_right(self._starts, number) - 1
        suffix = f"#{caption_number}" if caption_number >= 0 else ""
        key = f"{Path(self.path).stem}#{number}{suffix}"
        try:
            table = self._group(group)
        except (OSError, pa.ArrowException) as error:
            warning = f"{self.path}: row group {group} cannot be read ({error}); download it again"
            with self._lock:
                self.warnings = tuple(dict.fromkeys((*self.warnings, warning)))
            return Row(key, None, None, "missing_image", warning)
        local = number - self._starts[group]
        if self._has_key and (own := texts(table.column("key")[local : local + 1])[0]) is not None:
            key = f"{own}{suffix}"
        caption = _as_bytes(table.column(self._caption)[local : local + 1])[0].as_py()
        if isinstance(caption, list):
            caption = caption[caption_number] if caption_number >= 0 else None
        if not isinstance(caption, str | bytes):
            caption = None
        try:
            image = table.column(self._image)[local].as_py()
        except UnicodeDecodeError:
            return Row(key, caption, None, "missing_image", "the image's path is no UTF-8")
        if number in self._repeated:
            message = f"the key {key} appears a second time in {Path(self.path).name}"
            return Row(key, caption, None, "duplicate_key", message)
        if isinstance(image, dict):  # Hugging Face's {bytes, path}
            image = image.get("bytes") or image.get("path")
        if not isinstance(image, str):
            return Row(key, caption, image)
        found = locate_image(self._root, image, allow_absolute=self._allow_absolute)
        return found._replace(key=key, caption=caption)


class _Singles(Sequence[tuple[int, int]]):
    """(row, -1) for each of some rows, without a list of a million tuples."""

    def __init__(self, rows: Sequence[int]):
        self._numbers = rows

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: int) -> tuple[int, int]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self._numbers[index], -1


class ParquetView:
    """A `ShardView` of rows `start` to `stop` of a Parquet file."""

    def __init__(self, rows: ParquetRows, start: int, stop: int, limit: int):
        self._all = rows
        self._span = range(start, stop)
        self._limit = limit
        self.notes = rows.notes if start == 0 else ()

    @property
    def warnings(self) -> tuple[str, ...]:
        """Row groups that could not be read so far."""
        return self._all.warnings

    def __len__(self) -> int:
        return len(self._span)

    def __getitem__(self, index: int) -> Pair:
        return make_pair(self._all.row(self._span[index]), self._limit)


def failed_downloads(name: str, failed: Counter[str]) -> str:
    """The note about rows that img2dataset lists and has no image for."""
    counts = ", ".join(f"{status} {count}" for status, count in sorted(failed.items()))
    return f"{name} lists {failed.total()} pairs that were never downloaded ({counts})"


def _as_bytes(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Text as bytes, in lists too: what is stored as text need not be UTF-8."""
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return column.cast(pa.large_binary())
    if _is_list(column.type) and pa.types.is_string(column.type.value_type):
        return column.cast(pa.list_(pa.binary()))
    return column


def texts(column: pa.ChunkedArray) -> list[Any]:
    """The values; text that is no UTF-8 with replacement characters."""
    values = _as_bytes(column).to_pylist()
    return [v.decode("utf-8", "replace") if isinstance(v, bytes) else v for v in values]


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind)


def _columns(path: str, schema: pa.Schema, options: SourceOptions) -> tuple[str, str]:
    """The image and the caption column of a file.

    Raises:
        InputError: a table of links, or none of the known columns.
    """
    names = schema.names
    image = find_column(names, options.image_column, (*IMAGE_COLUMNS, "jpeg", "webp"))
    caption = find_column(names, options.caption_column, CAPTION_COLUMNS)
    if image is None and (url := find_column(names, "", URL_COLUMNS)):
        columns = f"--url_col={url} --caption_col={caption or 'caption'}"
        raise refuse_urls(path, "parquet", columns)
    if image is None or caption is None:
        raise unknown_columns(path, names)
    kind = schema.field(image).type
    readable = (
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or (pa.types.is_struct(kind) and {"bytes", "path"} & {field.name for field in kind})
    )
    if not readable:
        raise InputError(
            f"{path}: column {image} has type {kind}; image bytes, paths or the struct "
            "{bytes, path} are read; name another with --columns=IMAGE,CAPTION"
        )
    return image, caption


def parquet_table(path: Path, options: SourceOptions, *, allow_absolute: bool) -> Table:
    """The rows of a small Parquet file of metadata, with image paths relative to it."""
    rows = ParquetRows(str(path), options, allow_absolute=allow_absolute)
    return Table(len(rows), rows.row)


def parquet_files(location: str) -> list[str]:
    """The Parquet files that a path names: itself, or those in a folder or in its subfolders."""
    path = Path(location)
    if path.is_file():
        return [location]
    return [str(p) for p in sorted(path.glob("*.parquet")) or sorted(path.glob("*/*.parquet"))]


@functools.lru_cache(maxsize=4096)
def _fingerprint(path: str, size: int, mtime_ns: int) -> str:
    """The fingerprint of a file as it was at a time, for the many shards of one file."""
    del size, mtime_ns
    return file_fingerprint(path)


def open_parquet(paths: Sequence[str], options: SourceOptions) -> Source:
    """Parquet files in the order of their names, a virtual shard for each 10,000 rows of each.

    `split` keeps the files named SPLIT-*.parquet (Hugging Face) or inside a folder SPLIT.

    Raises:
        InputError: no files, no known columns, a list of URLs, no rows.
    """
    files = sorted({file for path in paths for file in parquet_files(path)})
    if options.split:
        wanted = {name.strip() for name in options.split.split(",")}
        files = [
            f for f in files
            if re.split(r"[-_.]", Path(f).name)[0] in wanted or Path(f).parent.name in wanted
        ]  # fmt: skip
    if not files:
        raise InputError(
            f"{', '.join(paths)[:200]} holds no Parquet files"
            + (f" of split {options.split}" if options.split else "")
        )
    counts = [(file, len(ParquetRows(file, options))) for file in files]
    shards = virtual_shards(counts, options.shard_size)
    if not shards:
        raise InputError(f"{', '.join(paths)[:200]} holds no pairs; check the files or --split")

    @functools.lru_cache(maxsize=2)
    def rows_of(path: str) -> ParquetRows:
        return ParquetRows(path, options)

    def open_shard(shard: Shard) -> ParquetView:
        rows = rows_of(shard.path)
        stop = len(rows) if shard.stop is None else shard.stop
        return ParquetView(rows, shard.start, stop, options.max_member_bytes)

    def fingerprint(shard: Shard) -> str:
        try:
            found = os.stat(shard.path)
        except OSError as error:
            return f"unreadable-{error.errno}"
        content = _fingerprint(shard.path, found.st_size, found.st_mtime_ns)
        return f"{content}-{shard.start}-{shard.stop}"

    return Source("parquet", paths[0], shards, open_shard, fingerprint, shard_sizes(shards))
