"""WebDataset shards: which files, under which names, with which known sizes."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

from mmjax.core.errors import InputError
from mmjax.data.archives import BLOCK, check_head, is_gzip, is_tar_header
from mmjax.data.shards import Shard, Source, SourceOptions, file_fingerprint
from mmjax.data.tars import open_tar

_TAR_NAMES = ("*.tar", "*.tar.gz", "*.tgz")


def tar_files(location: str) -> list[str]:
    """The tars that a path names: itself, or those in a folder, or those in its subfolders."""
    path = Path(location)
    if not path.is_dir():
        return [location]
    for folder in ("", "*/"):
        found = [p for name in _TAR_NAMES for p in path.glob(folder + name) if p.is_file()]
        if found:
            return [str(p) for p in found]
    return []


def read_head(path: Path) -> bytes:
    """The first 512 bytes of a file.

    Raises:
        InputError: it cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return file.read(BLOCK)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror})") from error


def is_webdataset(path: Path) -> bool:
    """Whether a path is a tar or a folder of them."""
    if path.is_dir():
        return bool(tar_files(str(path)))
    if path.name.endswith((".tar", ".tar.gz", ".tgz")):
        return True
    head = read_head(path)
    return bool(head) and (is_gzip(head) or is_tar_header(head))


def open_webdataset(paths: Sequence[str], options: SourceOptions) -> Source:
    """Tar shards, in the order of their names.

    Raises:
        InputError: no tars, or a file that is none (a `ShardError` names what it looks like).
    """
    if options.split:
        raise InputError("tar shards have no splits; leave --split out and name the shards instead")
    tars = sorted({tar for path in paths for tar in tar_files(path)})
    if not tars:
        raise InputError(f"{', '.join(paths)[:200]} holds no tars (tried *.tar, *.tar.gz, *.tgz)")
    for tar in tars:
        check_head(tar, read_head(Path(tar)))
    shards = tuple(
        sorted(Shard(name, tar) for name, tar in zip(unique_names(tars), tars, strict=True))
    )
    return Source(
        "webdataset",
        paths[0],
        shards,
        lambda shard: open_tar(shard.path, options),
        lambda shard: file_fingerprint(shard.path),
        known_sizes(shards),
    )


def known_sizes(shards: Sequence[Shard]) -> dict[str, int]:
    """Numbers of rows from `sizes.json` (open_clip) or img2dataset's `_stats.json`, unchecked."""
    sizes: dict[str, int] = {}
    folders: dict[Path, dict[str, object]] = {}
    for shard in shards:
        path = Path(shard.path)
        if path.parent not in folders:
            folders[path.parent] = _small_json(path.parent / "sizes.json")
        count = folders[path.parent].get(path.name)
        if not isinstance(count, int):
            count = _small_json(path.with_name(f"{path.stem}_stats.json")).get("successes")
        if isinstance(count, int) and count >= 0:
            sizes[shard.name] = count
    return sizes


def _small_json(path: Path) -> dict[str, object]:
    """A JSON object that is only a hint: {} where it is absent or damaged."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def unique_names(paths: Sequence[str]) -> list[str]:
    """File-safe, unique output names for shard paths: the stem, with its folder where needed."""
    stems = [_safe(re.sub(r"(\.tar)?(\.gz)?$|\.tgz$", "", Path(p).name)) for p in paths]
    counts: dict[str, int] = {}
    for stem in stems:
        counts[stem.casefold()] = counts.get(stem.casefold(), 0) + 1
    names: list[str] = []
    used: set[str] = set()
    for path, stem in zip(paths, stems, strict=True):
        name = stem
        if counts[stem.casefold()] > 1:
            name = _safe(f"{Path(path).parent.name}_{stem}")
        base, number = name, 1
        while name.casefold() in used:
            number += 1
            name = f"{base}-{number}"
        used.add(name.casefold())
        names.append(name)
    return names


def _safe(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "_", name).lstrip(".") or "shard"
