"""Turns any source into deterministic WebDataset shards, and copies kept rows of one."""

import json
import os
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import pyarrow as pa
from pyarrow import parquet

from mmjax.core.errors import InputError, RunError
from mmjax.core.files import atomic_path, write_json
from mmjax.core.rundir import is_unclaimed
from mmjax.core.types import Pair
from mmjax.data.shards import ShardView, Source
from mmjax.data.tars import TarView, copy_raw

SKIPPED_SCHEMA = pa.schema(
    [
        ("shard", pa.string()),
        ("ordinal", pa.int32()),
        ("key", pa.string()),
        ("caption", pa.string()),
        ("status", pa.string()),
        ("error_message", pa.string()),
    ]
)
_UNREAD_MAGIC = (b"II*\0", b"MM\0*", b"%!PS", b"<svg", b"\0\0\0\x0cJXL ", b"\0\0\1\0")


class PackSummary(NamedTuple):
    """What `pack` did: `counts` of rows by status ("ok" were packed), `sizes` by shard file."""

    counts: dict[str, int]
    sizes: dict[str, int]
    warnings: tuple[str, ...]
    notes: tuple[str, ...]


def image_extension(data: bytes) -> str:
    """The extension that fits an image's first bytes; "" for anything but the five formats read."""
    if data[:3] == b"\xff\xd8\xff":
        return "jpg"
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return "png"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    if data[:6] in (b"GIF87a", b"GIF89a"):
        return "gif"
    return "bmp" if data[:2] == b"BM" else ""


class TarWriter:
    """Writes a WebDataset tar whose bytes depend on nothing but its rows."""

    def __init__(self, path: str | os.PathLike[str]):
        self._tar = tarfile.open(path, "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115

    def __enter__(self) -> "TarWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._tar.close()

    def add_member(self, name: str, data: bytes) -> None:
        """Adds a plain file with mode 0644 and no owner or time."""
        info = tarfile.TarInfo(name)
        info.size, info.mode = len(data), 0o644
        self._tar.addfile(info, BytesIO(data))

    def add_pair(self, number: int, pair: Pair) -> None:
        """Adds KEY.jpg (or what the bytes are), KEY.txt and KEY.json; KEY is the padded number.

        Raises:
            InputError: the pair has no image of a known format or no caption.
        """
        extension = image_extension(pair.image or b"")
        if not extension or pair.image is None or pair.caption is None:
            raise InputError(f"the pair {pair.key} has no image or no caption and cannot be packed")
        key = f"{number:09d}"
        original = json.dumps({"key": pair.key}, ensure_ascii=False)
        self.add_member(f"{key}.{extension}", pair.image)
        self.add_member(f"{key}.txt", pair.caption.encode())
        self.add_member(f"{key}.json", original.encode())


def _packable(pair: Pair) -> Pair:
    """The pair with the status that it would have in a tar."""
    if pair.status != "ok" or image_extension(pair.image or b""):
        return pair
    head = (pair.image or b"")[:16]
    known = head.lstrip().startswith(_UNREAD_MAGIC) or head[4:8] == b"ftyp"
    status = "unsupported_image" if known else "undecodable_image"
    message = "no JPEG, PNG, WebP, GIF or BMP by its first bytes"
    return pair._replace(status=status, message=message)


def copy_members(
    view: ShardView, rows: Iterable[int], out_path: str | Path, *, first: int = 0
) -> int:
    """Writes a tar of some rows of a shard; returns the number of rows written.

    The rows of a tar keep all their members byte for byte, headers included, in file order. Rows of
    other sources are packed as KEY.jpg, KEY.txt, KEY.json with KEY = `first` + row number; those
    that have no image of a known format or no caption are left out.
    """
    if isinstance(view, TarView):
        return copy_raw(view, rows, out_path)
    written = 0
    with atomic_path(out_path) as temporary, TarWriter(temporary) as writer:
        for row in sorted(set(rows)):
            pair = _packable(view[row])
            if pair.status == "ok":
                writer.add_pair(first + row, pair)
                written += 1
    return written


def pack(
    source: Source, out_dir: str | Path, shard_size: int = 10_000, *, resume: bool = False
) -> PackSummary:
    """Packs every usable row into WebDataset shards 00000.tar, 00001.tar, ...

    Image bytes are untouched, captions are UTF-8, keys are numbers and the original key is in
    KEY.json. Beside the shards: `sizes.json`, `skipped.parquet` (rows that could not be packed, and
    why) and, last, `pack.json`. The same source gives the same bytes.

    Args:
      source: what to pack.
      out_dir: a new or empty folder.
      shard_size: rows a shard.
      resume: go on after an interruption; shards that are there stay.

    Raises:
        RunError: the folder is not empty, or resumes another source or shard size.
    """
    if shard_size < 1:
        raise RunError(f"--shard_size must be at least 1, got {shard_size}")
    out = Path(out_dir)
    plan = {
        "kind": source.kind,
        "shard_size": shard_size,
        "source": {shard.name: source.fingerprint(shard) for shard in source.shards},
    }
    _claim(out, plan, resume=resume)
    counts: Counter[str] = Counter()
    messages: dict[str, list[str]] = {"warnings": [], "notes": []}
    skipped: list[tuple[str, int, str, str | None, str, str]] = []

    def usable() -> Iterator[Pair]:
        for shard in source.shards:
            view = source.open_shard(shard)
            for ordinal in range(len(view)):
                pair = _packable(view[ordinal])
                counts[pair.status] += 1
                if pair.status == "ok":
                    yield pair
                else:
                    skipped.append(
                        (shard.name, ordinal, pair.key, pair.caption, pair.status, pair.message)
                    )
            messages["warnings"].extend(view.warnings)
            messages["notes"].extend(view.notes)

    sizes = _write_shards(out, usable(), shard_size)
    with atomic_path(out / "skipped.parquet") as temporary:
        columns = [list(column) for column in zip(*skipped, strict=True)] or [[]] * 6
        table = pa.table(dict(zip(SKIPPED_SCHEMA.names, columns, strict=True)), SKIPPED_SCHEMA)
        parquet.write_table(table, temporary)
    write_json(out / "sizes.json", sizes)
    summary = PackSummary(dict(counts), sizes, *(tuple(m) for m in messages.values()))
    write_json(out / "pack.json", plan | {"complete": True} | summary._asdict())
    return summary


def _write_shards(out: Path, pairs: Iterator[Pair], shard_size: int) -> dict[str, int]:
    """Writes the shards that are not there yet; returns the number of rows of each."""
    sizes: dict[str, int] = {}
    number = 0
    pair = next(pairs, None)
    while pair is not None:
        name = f"{len(sizes):05d}.tar"
        start = number
        if (out / name).exists():
            while pair is not None and number < start + shard_size:
                number, pair = number + 1, next(pairs, None)
        else:
            with atomic_path(out / name) as temporary, TarWriter(temporary) as writer:
                while pair is not None and number < start + shard_size:
                    writer.add_pair(number, pair)
                    number, pair = number + 1, next(pairs, None)
        sizes[name] = number - start
    return sizes


def _claim(out: Path, plan: dict[str, object], *, resume: bool) -> None:
    """Writes the plan into an empty folder, or checks that an interrupted one has the same."""
    if is_unclaimed(out, "pack.json"):
        write_json(out / "pack.json", plan | {"complete": False})
        return
    if not resume:
        raise RunError(f"{out} is not empty; choose a new folder or pass --resume")
    try:
        earlier = json.loads((out / "pack.json").read_bytes())
    except (OSError, ValueError) as error:
        raise RunError(f"{out} was not begun by mmjax pack ({error}); choose another") from error
    differing = [key for key, value in plan.items() if earlier.get(key) != value]
    if differing:
        raise RunError(f"{out} was begun with another {differing[0]}; choose a new folder")
    for leftover in out.glob("*.tmp-*"):
        leftover.unlink(missing_ok=True)
