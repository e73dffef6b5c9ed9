"""Rows that are hard to write are read back as themselves, in their order."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mmjax.attacks.config import AttackConfig
from mmjax.attacks.shards import Recipe, encode_png, write_shard
from mmjax.core.progress import meter
from mmjax.core.types import Pair
from mmjax.data.shards import SourceOptions
from mmjax.data.tars import open_tar


@dataclasses.dataclass(frozen=True)
class View:
    """A shard of given pairs."""

    pairs: tuple[Pair, ...]
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Pair:
        return self.pairs[index]


@pytest.fixture(scope="module")
def image() -> bytes:
    import numpy as np

    return encode_png(np.random.default_rng(0).integers(0, 256, (9, 11, 3), dtype=np.uint8))


def read_back(pairs: list[Pair], path: Path) -> list[Pair]:
    recipe = Recipe(AttackConfig(image_size=8), (), lambda place: b"")
    with ThreadPoolExecutor(2) as pool:
        rows = write_shard(View(tuple(pairs)), {}, path, recipe, pool, meter(None, ""))
    view = open_tar(str(path), SourceOptions())
    found = [view[i] for i in range(len(view))]
    assert [row.key for row in rows] == [pair.key for pair in found]
    return found


def test_keys_that_a_tar_cannot_hold(image: bytes, tmp_path: Path) -> None:
    keys = ["a.b#0", "../up", "/root", "", "x" * 99, "sub/good#1", "a b", "é", ".hidden", "good"]
    pairs = [Pair(key, image, f"caption {i}") for i, key in enumerate(keys)]
    found = read_back(pairs, tmp_path / "s.tar")
    assert [pair.status for pair in found] == ["ok"] * len(keys)
    assert [pair.caption for pair in found] == [pair.caption for pair in pairs]
    kept = [pair.key for pair in found if not pair.key.startswith("row-")]
    assert kept == ["sub/good#1", "a b", "é", "good"]


def test_repeated_keys_stay_apart(image: bytes, tmp_path: Path) -> None:
    pairs = [
        Pair("k", image, "first"),
        Pair("k", image, "second", "duplicate_key"),
        Pair("k", image, "third"),
        Pair("half", None, "no image", "missing_image"),
        Pair("half", image, "again", "duplicate_key"),
        Pair("none", None, None, "unsafe_member", "a hard link"),
        Pair("none", None, None, "unsafe_member", "a hard link"),
        Pair("last", image, "last"),
    ]
    found = read_back(pairs, tmp_path / "s.tar")
    statuses = [pair.status for pair in found]
    assert statuses[:4] == ["ok", "duplicate_key", "ok", "missing_image"]
    assert statuses[4:] == ["ok", "missing_image", "missing_image", "ok"]
    for pair, again in zip(pairs, found, strict=True):
        assert again.caption == pair.caption


def test_unusable_images_are_kept_as_they_are(image: bytes, tmp_path: Path) -> None:
    pairs = [
        Pair("cut", image[:60], "a cut image"),
        Pair("text", b"no image at all", "a text"),
        Pair("mute", image, None, "missing_caption"),
        Pair("good", image, "good"),
    ]
    found = read_back(pairs, tmp_path / "s.tar")
    assert [pair.image == before.image for pair, before in zip(found, pairs, strict=True)] == [
        True,
        True,
        True,
        False,
    ]
    assert found[2].status == "missing_caption"
