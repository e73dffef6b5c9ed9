"""The one table of input formats: what recognises each, and what opens it."""

import dataclasses
import glob
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import braceexpand

from mmjax.core.errors import InputError
from mmjax.data.arrayrecords import is_tfds, open_tfds
from mmjax.data.captions_json import json_kind, open_coco, open_karpathy
from mmjax.data.embeddings import is_embeddings
from mmjax.data.folders import metadata_files, open_captions_tsv, open_jsonl
from mmjax.data.img2dataset import is_folder_of_files, is_img2dataset, open_img2dataset
from mmjax.data.parquets import open_parquet, parquet_files
from mmjax.data.records import is_remote
from mmjax.data.shards import Shard, ShardView, Source, SourceOptions
from mmjax.data.tables import open_csv
from mmjax.data.webdataset import is_webdataset, open_webdataset, tar_files

__all__ = [
    "SOURCES",
    "Shard",
    "ShardView",
    "Source",
    "SourceKind",
    "SourceOptions",
    "detect_format",
    "open_source",
]

_MOST_PATHS = 1_000_000


class SourceKind(NamedTuple):
    """An input format: `recognises` one of its paths, `opens` paths of it."""

    title: str
    recognises: Callable[[Path], bool]
    opens: Callable[[list[str], SourceOptions], Source]


SOURCES: dict[str, SourceKind] = {
    "tfds": SourceKind(
        "a TFDS folder of ArrayRecord files", is_tfds, lambda p, o: open_tfds(_single(p), o)
    ),
    "img2dataset": SourceKind(
        "img2dataset's output, or folders of images and .txt captions of the same names",
        lambda path: is_img2dataset(path) or is_folder_of_files(path),
        open_img2dataset,
    ),
    "captions_tsv": SourceKind(
        "a folder of images with captions.tsv",
        lambda path: (path / "captions.tsv").is_file(),
        lambda p, o: open_captions_tsv(_single(p), o),
    ),
    "jsonl": SourceKind(
        "a JSON-lines file, or a folder of images with metadata.jsonl, .csv or .parquet",
        lambda path: path.suffix.lower() in (".jsonl", ".ndjson") or bool(metadata_files(path)),
        lambda p, o: open_jsonl(_single(p), o),
    ),
    "webdataset": SourceKind("WebDataset tar shards", is_webdataset, open_webdataset),
    "parquet": SourceKind(
        "Parquet files of image bytes or paths and captions",
        lambda path: (
            path.suffix == ".parquet" or (path.is_dir() and bool(parquet_files(str(path))))
        ),
        open_parquet,
    ),
    "coco": SourceKind(
        "COCO captions JSON",
        lambda path: json_kind(path) == "coco",
        lambda p, o: open_coco(_single(p), o),
    ),
    "karpathy": SourceKind(
        "Karpathy's split JSON",
        lambda path: json_kind(path) == "karpathy",
        lambda p, o: open_karpathy(_single(p), o),
    ),
    "csv": SourceKind(
        "a CSV or TSV file of image paths and captions",
        lambda path: path.suffix.lower() in (".csv", ".tsv"),
        lambda p, o: open_csv(_single(p), o),
    ),
}
"""Every input format by its `--input_format` name, in the order in which they are tried."""
_TABLES = (".csv", ".tsv", ".json")
_PICTURES = tuple(f".{kind}" for kind in SourceOptions().image_key.split(";"))
_WITH_COLUMNS = ("tfds", "jsonl", "parquet", "csv")


def _single(paths: Sequence[str]) -> str:
    if len(paths) != 1:
        raise InputError(
            f"{len(paths)} paths given; this format reads one file or folder at a time"
        )
    return paths[0]


def detect_format(path: Path) -> str:
    """The name of the first format that recognises a file or folder.

    Raises:
        InputError: none does.
    """
    if is_embeddings(path) and not tar_files(str(path)):
        raise InputError(f"{path} holds embeddings; images and captions are wanted here")
    for name, kind in SOURCES.items():
        if kind.recognises(path):
            return name
    what = "folder" if path.is_dir() else "file"
    holds = ""
    if path.is_dir():
        tables = sorted(p.name for p in path.iterdir() if p.suffix.lower() in _TABLES)
        if tables:
            holds = f"it holds {', '.join(tables[:3])}: name that file; or "
        elif any(p.suffix.lower() in _PICTURES for p in path.iterdir()):
            holds = "it holds images, and captions are wanted too; "
    raise InputError(
        f"{path} is no {what} of a known format; {holds}give --input_format, one of "
        f"{', '.join(SOURCES)}"
    )


def _expansions(pattern: str) -> int:
    """An upper bound of the number of paths of a brace pattern; braceexpand makes them all."""
    count = 1
    for first, last in re.findall(r"\{(-?\d+)\.\.(-?\d+)", pattern):
        count *= 1 + abs(int(last[:18]) - int(first[:18]))
    for alternatives in re.findall(r"\{([^{}]*)\}", pattern):
        count *= 1 + alternatives.count(",")
    return count


def expand_location(location: str) -> list[str]:
    """The existing paths that a path, a brace pattern, a glob or a list file (.txt) names.

    Raises:
        InputError: it is remote, malformed, names nothing, or a part of it does not exist.
    """
    if is_remote(location):
        raise InputError(
            f"{location[:200]} is not a local path; pipes, URLs and buckets are never opened: "
            "download the data first"
        )
    if os.path.exists(location):
        is_list = location.endswith(".txt") and os.path.isfile(location)
        return _listed(Path(location)) if is_list else [location]
    if _expansions(location) > _MOST_PATHS:
        raise InputError(f"{location} names more than {_MOST_PATHS} paths; narrow the pattern")
    try:
        patterns = list(braceexpand.braceexpand(location))
    except ValueError as error:
        raise InputError(f"{location} is no valid brace pattern ({error})") from error
    paths: list[str] = []
    missing: list[str] = []
    for pattern in patterns:
        found = [pattern] if os.path.exists(pattern) else sorted(glob.glob(pattern))
        paths.extend(found)
        if not found:
            missing.append(pattern)
    if not paths and len(patterns) == 1:
        what = "nothing matches" if glob.has_magic(location) else "no such file or folder:"
        raise InputError(f"{what} {location} (looked from {os.getcwd()})")
    if missing:
        raise InputError(
            f"{len(missing)} of the {len(patterns)} paths of {location} do not exist, the first is "
            f"{missing[0]} (looked from {os.getcwd()}); fix the pattern or fetch them"
        )
    return paths


def _listed(path: Path) -> list[str]:
    """The paths of a list file, one a line, relative to the file's folder; # begins a comment."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as a list of paths ({error})") from error
    names = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if not names:
        raise InputError(f"{path} lists no paths; write one tar a line")
    found: list[str] = []
    for name in names:
        if is_remote(name) or os.path.isabs(name):
            found.extend(expand_location(name))
        else:
            found.extend(expand_location(str(path.parent / name)))
    return found


def open_source(
    location: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    input_format: str = "auto",
    split: str = "",
    columns: str = "",
    max_member_bytes: int | None = None,
    options: SourceOptions | None = None,
) -> Source:
    """Opens image-caption pairs wherever they are; reads no more than is needed to list shards.

    Args:
      location: a path, brace pattern, glob or list file (.txt), or several of them.
      input_format: a key of `SOURCES`, or "auto".
      split: overrides `options.split`.
      columns: `IMAGE,CAPTION`, overrides `options.image_column` and `.caption_column`.
      max_member_bytes: overrides `options.max_member_bytes`.
      options: everything else.

    Raises:
        InputError: nothing is there, it is remote, or it is not of the format.
    """
    options = options or SourceOptions()
    if split:
        options = dataclasses.replace(options, split=split)
    if columns:
        image, _, caption = (name.strip() for name in columns.partition(","))
        if not image or not caption:
            raise InputError(f"--columns wants IMAGE,CAPTION, the names of two, got {columns!r}")
        options = dataclasses.replace(options, image_column=image, caption_column=caption)
    if max_member_bytes is not None:
        options = dataclasses.replace(options, max_member_bytes=max_member_bytes)
    if input_format != "auto" and input_format not in SOURCES:
        raise InputError(
            f"unknown --input_format={input_format}; it is one of auto, {', '.join(SOURCES)}"
        )
    given = [location] if isinstance(location, str | os.PathLike) else list(location)
    if not given or "" in given:
        raise InputError("no input given; name a folder, a file or a pattern of shards")
    paths = [path for part in given for path in expand_location(os.fspath(part))]
    for path in paths:
        if not os.path.isfile(path) and not os.path.isdir(path):
            raise InputError(f"{path} is neither a plain file nor a folder")
    try:
        name = detect_format(Path(paths[0])) if input_format == "auto" else input_format
        if columns and name not in _WITH_COLUMNS:
            raise InputError(
                f"{paths[0]} is {SOURCES[name].title}, whose columns have no names; leave "
                "--columns out"
            )
        source = SOURCES[name].opens(paths, options)
    except OSError as error:
        raise InputError(
            f"{error.filename or paths[0]} cannot be read ({error.strerror})"
        ) from error
    more = f" and {len(given) - 1} more" if len(given) > 1 else ""
    return source._replace(location=f"{os.fspath(given[0])}{more}")
