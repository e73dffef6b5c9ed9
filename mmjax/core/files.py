"""Files that are the old ones or the whole new ones, whatever happens while they are written."""

import contextlib
import errno
import hashlib
import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmjax.core.errors import MmjaxError, RunError


@contextlib.contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """A temporary path beside `path`; on success it is fsynced and renamed to `path`.

    Raises:
        RunError: the disk is full or the folder cannot be written.
    """
    path = Path(path)
    # a process number alone is not its own on a shared disk: every container's first one is 1
    temporary = path.with_name(f"{path.name}.tmp-{os.getpid()}-{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with open(temporary, "rb+") as f:
            os.fsync(f.fileno())
        os.replace(temporary, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise writing_error(error, path) from error
    finally:
        temporary.unlink(missing_ok=True)


def writing_error(error: OSError, path: Path) -> MmjaxError:
    """The one-line error for a failed write."""
    if error.errno == errno.ENOSPC:
        return RunError(f"disk full while writing {path}; free some space and run it again")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return RunError(f"cannot write {path} ({error.strerror}); choose another --out")
    if error.errno in (errno.EEXIST, errno.ENOTDIR):
        return RunError(f"cannot write {path}: a file is in the way; choose another --out")
    return RunError(f"cannot write {path}: {error}")


def write_bytes(path: Path | str, data: bytes) -> None:
    """Write a file so that it is either the old one or the whole new one."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: Path | str, value: Any) -> None:
    """Write sorted, indented JSON atomically; NaN and infinity are refused."""
    text = json.dumps(value, indent=2, sort_keys=True, allow_nan=False, default=plain)
    write_bytes(path, (text + "\n").encode())


def plain(value: Any) -> Any:
    """What JSON cannot hold as what it can: paths, NumPy values, sets."""
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):  # NumPy scalars and arrays
        return value.tolist()
    if isinstance(value, set | frozenset):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def file_sha256(path: Path | str) -> str:
    """The sha256 of a file's bytes, in hex."""
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()
