"""Sets that memory cannot hold are the sets that it can, decoded later."""

from pathlib import Path

import numpy as np
import pytest

from mmjax.core.errors import InputError
from mmjax.data.pairs import PairTable, fingerprint, read_table
from mmjax.data.scenes import write_scenes
from mmjax.data.sources import open_source
from mmjax.data.stored_images import StoredImages
from tests.data.faults import pair, plain, write_tar

SIZE = 24
COUNT = 30


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three shards of scenes and one with an image twice and one that is none."""
    write_scenes(tmp_path, COUNT, 3, size=32, shard_size=10)
    twice = [m for i in range(2) for m in pair(f"twice{i}", 7, b"caption %d" % i)]
    bad = [plain("bad.jpg", b"no image"), plain("bad.txt", b"words")]
    write_tar(tmp_path / "last.tar", [*twice, *bad])
    return tmp_path


def read(folder: Path, memory: float) -> tuple[PairTable, tuple]:
    source = open_source(str(folder))
    return read_table(source, SIZE, workers=2, max_pixels=10**6, memory=memory)


@pytest.mark.parametrize("fits", [0, COUNT])
def test_decoded_later_they_are_the_same(folder: Path, fits: int) -> None:
    held, rows = read(folder, 3.0 * (COUNT + 1) * SIZE * SIZE)
    stored, same_rows = read(folder, 3.0 * fits * SIZE * SIZE)
    assert isinstance(held.images, np.ndarray)
    assert isinstance(stored.images, StoredImages)
    assert len(stored.images) == COUNT + 1
    assert stored.images.shape == held.images.shape
    assert stored[1:] == held[1:]
    assert same_rows == rows
    assert sum(held.skipped.values()) == 1
    chosen = np.array([COUNT, 3, 17, 3])
    np.testing.assert_array_equal(stored.images[chosen], held.images[chosen])
    np.testing.assert_array_equal(stored.images[5:9], held.images[5:9])
    np.testing.assert_array_equal(stored.images[:], held.images)


def test_the_fingerprint_is_that_of_the_files(folder: Path) -> None:
    before = fingerprint(read(folder, 0.0)[0])
    assert fingerprint(read(folder, 0.0)[0]) == before
    write_tar(folder / "last.tar", pair("other", 8, b"caption 0"))
    assert fingerprint(read(folder, 0.0)[0]) != before


def test_a_set_that_changes_meanwhile_is_told(folder: Path) -> None:
    table, _ = read(folder, 0.0)
    write_tar(
        folder / "last.tar", [plain("twice0.jpg", b"no image"), plain("twice0.txt", b"words")]
    )
    with pytest.raises(InputError, match=r"row 0 of .*last\.tar .* not any more"):
        table.images[np.array([COUNT])]
