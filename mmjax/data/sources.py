"""The one table of input formats: what recognises each, and what opens it."""

import dataclasses
import glob
import itertools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import braceexpand

from mmjax.core.errors import InputError
from mmjax.data.archives import BLOCK, check_head, is_gzip, is_tar_header
from mmjax.data.folders import open_captions_tsv
from mmjax.data.records import (
    Shard,
    ShardView,
    Source,
    SourceOptions,
    file_fingerprint,
    is_remote,
)
from mmjax.data.tables import open_csv
from mmjax.data.tars import open_tar, unique_names

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


def _tars_of(paths: Sequence[str]) -> list[str]:
    """The tar files that paths name: themselves, or those inside a folder."""
    tars: list[str] = []
    for path in map(Path, paths):
        if path.is_dir():
            found = [p for pattern in _TAR_NAMES for p in path.glob(pattern)]
            found = found or [p for pattern in _TAR_NAMES for p in path.glob(f"*/{pattern}")]
            if not found:
                raise InputError(
                    f"{path} holds no tar files (tried *.tar, *.tar.gz, *.tgz, */*.tar)"
                )
            tars.extend(str(p) for p in found)
        else:
            tars.append(str(path))
    return list(dict.fromkeys(tars))


_TAR_NAMES = ("*.tar", "*.tar.gz", "*.tgz")


def _head(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(BLOCK)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror})") from error


def open_webdataset(paths: Sequence[str], options: SourceOptions) -> Source:
    """Tar shards, in the order of their names.

    Raises:
        InputError: no tars, or a file that is none (a `ShardError` names what it looks like).
    """
    if options.split:
        raise InputError("tar shards have no splits; leave --split out and name the shards instead")
    tars = sorted(_tars_of(paths))
    for tar in tars:
        check_head(tar, _head(Path(tar)))
    shards = tuple(
        sorted(Shard(name, tar) for name, tar in zip(unique_names(tars), tars, strict=True))
    )
    return Source(
        "webdataset",
        os.path.commonpath([os.path.dirname(tar) or "." for tar in tars])
        if len(tars) > 1
        else tars[0],
        shards,
        lambda shard: open_tar(shard.path, options),
        lambda shard: file_fingerprint(shard.path),
    )


def _is_webdataset(path: Path) -> bool:
    if path.is_dir():
        return any(next(path.glob(p), None) for p in (*_TAR_NAMES, "*/*.tar"))
    head = _head(path)
    return path.name.endswith((".tar", ".tar.gz", ".tgz")) or bool(
        head and (is_gzip(head) or is_tar_header(head))
    )


SOURCES: dict[str, SourceKind] = {
    "captions_tsv": SourceKind(
        "a folder of images with captions.tsv",
        lambda path: (path / "captions.tsv").is_file(),
        lambda paths, options: open_captions_tsv(_single(paths), options),
    ),
    "csv": SourceKind(
        "a CSV or TSV file of image paths and captions",
        lambda path: path.suffix.lower() in (".csv", ".tsv"),
        lambda paths, options: open_csv(_single(paths), options),
    ),
    "webdataset": SourceKind("WebDataset tar shards", _is_webdataset, open_webdataset),
}
"""Every input format by its `--input_format` name, in the order in which they are tried."""


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
    for name, kind in SOURCES.items():
        if kind.recognises(path):
            return name
    what = "folder" if path.is_dir() else "file"
    raise InputError(
        f"{path} is no {what} of a known format; give --input_format, one of {', '.join(SOURCES)}"
    )


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
        return _listed(Path(location)) if location.endswith(".txt") else [location]
    try:
        patterns = list(itertools.islice(braceexpand.braceexpand(location), _MOST_PATHS + 1))
    except ValueError as error:
        raise InputError(f"{location} is no valid brace pattern ({error})") from error
    if len(patterns) > _MOST_PATHS:
        raise InputError(f"{location} names more than {_MOST_PATHS} paths; narrow the pattern")
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
    max_member_bytes: int | None = None,
    options: SourceOptions | None = None,
) -> Source:
    """Opens image-caption pairs wherever they are; reads no more than is needed to list shards.

    Args:
      location: a path, brace pattern, glob or list file (.txt), or several of them.
      input_format: a key of `SOURCES`, or "auto".
      split: overrides `options.split`.
      max_member_bytes: overrides `options.max_member_bytes`.
      options: everything else.

    Raises:
        InputError: nothing is there, it is remote, or it is not of the format.
    """
    options = options or SourceOptions()
    if split:
        options = dataclasses.replace(options, split=split)
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
    name = detect_format(Path(paths[0])) if input_format == "auto" else input_format
    return SOURCES[name].opens(paths, options)
