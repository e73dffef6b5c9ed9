"""Files are whole or not there."""

import errno
import os
from pathlib import Path

import pytest

from mmjax.core.errors import RunError
from mmjax.core.files import atomic_path, write_bytes


def test_atomic_path_leaves_nothing_half_written(tmp_path: Path) -> None:
    target = tmp_path / "a"
    write_bytes(target, b"old")

    def fail() -> None:
        with atomic_path(target) as temporary:
            temporary.write_bytes(b"ne")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_disk_full_is_one_line(tmp_path: Path) -> None:
    def fail() -> None:
        with atomic_path(tmp_path / "a"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(RunError, match="disk full while writing"):
        fail()
