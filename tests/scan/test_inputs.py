"""Sets that can be scored: encoded once each shard, or brought along and normalised once."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mmjax.core.config import MeshConfig
from mmjax.core.errors import InputError
from mmjax.core.mesh import make_mesh
from mmjax.core.rundir import RunDir
from mmjax.data.embeddings import open_embeddings, write_embeddings
from mmjax.data.loader import Record
from mmjax.data.shards import Shard, ShardView, Source
from mmjax.scan import inputs
from mmjax.scan.config import EncodeConfig, StageConfig
from mmjax.scan.encode import EncodedShard
from mmjax.scan.inputs import embed, read_embeddings
from mmjax.scan.prepare import Model


@dataclasses.dataclass(frozen=True)
class View:
    name: str
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> None:
        raise AssertionError("the fake encoder reads nothing")


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the shards that are encoded, by an encoder that computes nothing."""
    names: list[str] = []

    def encode_views(
        encoder: object, views: Iterator[View], meter: object
    ) -> Iterator[EncodedShard]:
        for view in views:
            names.append(view.name)
            row = Record(view.name, "x", "ok", "", (), "", 0)
            empty = view.name == "empty"
            rows = np.full((0 if empty else 2, 4), 0.5, np.float16)
            yield EncodedShard(rows, rows, (row,) * len(rows), view.warnings)

    monkeypatch.setattr(inputs, "encode_views", encode_views)
    monkeypatch.setattr(inputs, "make_encoder", lambda *a, **k: None)
    return names


def source(*names: str, changed: tuple[str, ...] = ()) -> Source:
    def view(shard: Shard) -> ShardView:
        return View(shard.name, ("cut",) if shard.name == "b" else ())

    return Source(
        "webdataset",
        "somewhere",
        tuple(Shard(name, name) for name in names),
        view,
        lambda shard: shard.name + "2" * (shard.name in changed),
    )


def encode(folder: Path, given: Source, prefix: str = "") -> inputs.ScannedSet:
    model = Model._make([object(), object()])  # the fake encoder looks at neither
    with RunDir.open(folder, verb="scan", config=StageConfig()) as run:
        return embed(
            run,
            given,
            model,
            EncodeConfig(),
            what="test",
            prefix=prefix,
            mesh=make_mesh(MeshConfig(data=1)),
        )


def test_only_what_is_not_stored_is_encoded(tmp_path: Path, encoded: list[str]) -> None:
    scanned = encode(tmp_path, source("a", "b"))
    assert encoded == ["a", "b"]
    assert [shard.name for shard in scanned.shards] == ["a", "b"]
    assert scanned.warnings == ["b: cut"]
    assert [block.valid.sum() for block in scanned.blocks] == [2, 2]
    assert scanned.shards[1].pairs()["key"].to_pylist() == ["b", "b"]
    encode(tmp_path, source("c", "a", "b", changed=("a",)))
    assert encoded == ["a", "b", "c", "a"]
    encode(tmp_path, source("a"), prefix="reference/")
    assert encoded[4:] == ["a"], "the reference has shards of its own"
    assert (tmp_path / "reference" / "embeddings" / "a.image.npy").is_file()


def test_no_row_at_all_is_refused(tmp_path: Path, encoded: list[str]) -> None:
    with pytest.raises(InputError, match="somewhere holds no pairs"):
        encode(tmp_path, source("empty"))
    assert len(encode(tmp_path, source("empty", "a")).shards) == 2


def test_images_without_weights_are_refused(tmp_path: Path) -> None:
    with (
        RunDir.open(tmp_path, verb="scan", config=StageConfig()) as run,
        pytest.raises(InputError, match="needs weights"),
    ):
        embed(
            run,
            source("a"),
            Model(None, None),
            EncodeConfig(),
            what="test",
            prefix="",
            mesh=make_mesh(MeshConfig(data=1)),
        )


@pytest.mark.parametrize(
    ("kind", "stored"),
    [(np.float16, np.float16), (np.float32, np.float32), (np.float64, np.float32)],
)
def test_embeddings_are_normalised_once(
    kind: type[np.floating], stored: type[np.floating], tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    image, text = rng.normal(size=(2, 9, 4)).astype(kind)
    image[4] = np.nan
    folder = tmp_path / "in"
    write_embeddings(
        folder, image, text, captions=["x"] * 9, image_paths=["y"] * 9, rows_per_part=5
    )
    out = tmp_path / "out"
    for _ in range(2):
        with RunDir.open(out, verb="scan", config=StageConfig()) as run:
            scanned = read_embeddings(run, open_embeddings(folder), prefix="")
        block = scanned.blocks[0]
        assert block.image.dtype == stored
        assert block.valid.tolist() == [True, True, True, True, False]
        assert not block.image[4].any()
        wanted = image[:4] / np.linalg.norm(image[:4].astype(np.float64), axis=1)[:, None]
        np.testing.assert_allclose(
            block.image[:4], wanted, rtol=2e-3 if stored == np.float16 else 1e-6
        )
        written = (out / "embeddings" / "00000.image.npy").stat().st_mtime_ns
    with RunDir.open(out, verb="scan", config=StageConfig()) as run:
        read_embeddings(run, open_embeddings(folder), prefix="")
    assert (out / "embeddings" / "00000.image.npy").stat().st_mtime_ns == written


def test_unit_norm_embeddings_are_read_where_they_lie(tmp_path: Path) -> None:
    rows = np.eye(6, 4, dtype=np.float32)
    rows[4:] = 0  # zero rows cannot be scored and are no reason to copy
    folder = tmp_path / "in"
    write_embeddings(folder, rows, rows, captions=["x"] * 6, image_paths=["y"] * 6)
    with RunDir.open(tmp_path / "out", verb="scan", config=StageConfig()) as run:
        scanned = read_embeddings(run, open_embeddings(folder), prefix="")
    assert not (tmp_path / "out" / "embeddings").exists()
    assert scanned.blocks[0].valid.tolist() == [True] * 4 + [False] * 2
    table = scanned.shards[0].pairs()
    assert table["status"].to_pylist() == ["ok"] * 4 + ["nonfinite_embedding"] * 2
