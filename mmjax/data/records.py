"""What every source is made of: shards, views of pairs, clean captions, safely read image files."""

import bisect
import dataclasses
import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

from mmjax.core.errors import InputError
from mmjax.core.types import Pair

MIB = 2**20
_UNSAFE_TEXT = re.compile("[\x00\ud800-\udfff]")
_SCHEME = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]+:")


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


class Row(NamedTuple):
    """A row of a table-like source before its image is read; `image` is bytes or a path."""

    key: str
    caption: bytes | str | None
    image: bytes | str | None
    status: str = "ok"
    message: str = ""


def clean_text(text: str) -> str:
    """Replaces NUL and lone surrogates, which neither Parquet nor HTML can hold, by U+FFFD."""
    return _UNSAFE_TEXT.sub("�", text)


def _decode(data: bytes) -> tuple[str, bool]:
    """Returns the text and whether it was plain UTF-8 (with or without its byte order mark)."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", errors="replace"), False
    zeros = data.count(0)
    if zeros and 0.4 * len(data) <= zeros <= 0.6 * len(data):  # UTF-16 without its mark
        order = "le" if data[1::2].count(0) > data[::2].count(0) else "be"
        return data.decode(f"utf-16-{order}", errors="replace"), False
    try:
        return data.decode("utf-8-sig"), True
    except UnicodeDecodeError:
        return data.decode("utf-8-sig", errors="replace"), False


def clean_caption(value: bytes | str | None) -> tuple[str | None, tuple[str, ...]]:
    """Returns the caption as storable text, None where it is absent or blank, and its flags."""
    if value is None:
        return None, ()
    text, plain = (value, True) if isinstance(value, str) else _decode(value)
    cleaned = clean_text(text.removeprefix("\ufeff")).strip()
    plain = plain and _UNSAFE_TEXT.search(text) is None
    return cleaned or None, () if plain or not cleaned else ("caption_encoding",)


def is_remote(location: str) -> bool:
    """Whether a location names a pipe, a URL or a bucket instead of a local path."""
    return bool(_SCHEME.match(location)) and not os.path.lexists(location)


def locate_image(root: Path, name: str, *, allow_absolute: bool) -> Row:
    """Resolves an image name of a table to a `Row` that has only its path or its refusal."""
    name = clean_text(name)
    if not name.strip():
        return Row("", None, None, "missing_image", "the image's name is empty")
    if re.match(r"^[A-Za-z][A-Za-z0-9+.-]+://|^pipe:", name):
        return Row(
            "", None, None, "missing_image", f"{name[:200]} is not a local file; not fetched"
        )
    if os.path.isabs(name):
        if not allow_absolute:
            return Row("", None, None, "unsafe_member", f"{name[:200]} is an absolute path")
    elif ".." in re.split(r"[/\\]", name):
        return Row("", None, None, "unsafe_member", f"{name[:200]} may leave the data folder")
    return Row("", None, str(root / name))


def read_image_file(path: str, limit: int) -> tuple[bytes | None, str, str]:
    """Reads a regular file of at most `limit` bytes; returns (bytes or None, status, message)."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except OSError as error:
        return None, "missing_image", f"{path}: {error.strerror}"
    with open(descriptor, "rb", buffering=0) as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            return None, "missing_image", f"{path} is not a plain file"
        if found.st_size > limit:
            message = f"{path} has {found.st_size} bytes, --max_member_bytes is {limit}"
            return None, "oversized_member", message
        try:
            return file.readall(), "ok", ""
        except OSError as error:
            return None, "missing_image", f"{path}: {error.strerror}"


def make_pair(row: Row, limit: int) -> Pair:
    """Reads a row's image and settles its status."""
    caption, flags = clean_caption(row.caption)
    key = clean_text(row.key)
    if row.status != "ok":
        return Pair(key, None, caption, row.status, clean_text(row.message), flags)
    image, status, message = row.image, "ok", ""
    if isinstance(image, str):
        image, status, message = read_image_file(image, limit)
    elif not image:
        image, status, message = None, "missing_image", "the row holds no image"
    elif len(image) > limit:
        message = f"the image has {len(image)} bytes, --max_member_bytes is {limit}"
        image, status = None, "oversized_member"
    if status == "ok" and caption is None:
        status, message = "missing_caption", "no caption, or an empty one"
    return Pair(key, image, caption, status, clean_text(message), flags)


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
    except OSError as error:
        return f"unreadable-{error.errno}"
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
    wanted = frozenset(name for part in split.split(",") if (name := part.strip()))
    if missing := sorted(wanted - known.keys()):
        has = ", ".join(f"{name} ({count})" for name, count in sorted(known.items()))
        raise InputError(
            f"{location} has no split {missing[0]!r}; it has {has or 'no splits'}; "
            "fix --split or leave it out"
        )
    return wanted


def table_source(
    kind: str,
    location: str,
    *,
    count: int,
    row: Callable[[int], Row],
    options: SourceOptions,
    warnings: tuple[str, ...] = (),
    fingerprint: Callable[[Shard], str] | None = None,
) -> Source:
    """A source of `count` rows cut into virtual shards 00000, 00001, ... of equal size.

    `warnings` about the whole table are shown by its first shard.
    """
    if not count:
        raise InputError(f"{location} holds no pairs; check the file or --split")
    step = max(1, options.shard_size)
    width = max(5, len(str((count - 1) // step)))
    shards = tuple(
        Shard(f"{number:0{width}d}", location, start, min(start + step, count))
        for number, start in enumerate(range(0, count, step))
    )

    def numbers(shard: Shard) -> range:
        return range(shard.start, count if shard.stop is None else shard.stop)

    def open_shard(shard: Shard) -> ShardView:
        span = numbers(shard)
        shown = () if shard.start else warnings
        return RowView(len(span), lambda i: row(span[i]), options.max_member_bytes, shown)

    def own_fingerprint(shard: Shard) -> str:
        return rows_fingerprint(row(i) for i in numbers(shard))

    sizes = {shard.name: len(numbers(shard)) for shard in shards}
    return Source(kind, location, shards, open_shard, fingerprint or own_fingerprint, sizes)


def part_of(boundaries: Sequence[int], index: int) -> tuple[int, int]:
    """Finds (part, index inside it) where part p holds rows boundaries[p] to boundaries[p + 1]."""
    part = bisect.bisect_right(boundaries, index) - 1
    return part, index - boundaries[part]
