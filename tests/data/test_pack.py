"""Packing: the same source gives the same bytes, and every row is in a shard or in the list."""

import hashlib
import json
import tarfile
from collections import Counter

import pytest
from pyarrow import parquet

from mmjax.core.errors import RunError
from mmjax.data import pack as packing
from mmjax.data.pack import copy_members, image_extension, pack
from mmjax.data.sources import open_source
from tests.data import faults

COUNT = 7


@pytest.fixture
def source(tmp_path):
    folder = faults.write_photo_folder(tmp_path / "photos", COUNT)
    (folder / "5.png").write_bytes(b"<html>not found</html>")
    (folder / "7.png").write_bytes(b"II*\0 a TIFF")
    (folder / "8.png").write_bytes(faults.image_bytes(8, "JPEG"))
    lines = [f"{i}.png\tcaption {i} ☃\n" for i in range(9)] + ["gone.png\tgone\n", "0.png\t\n"]
    (folder / "captions.tsv").write_text("".join(lines))
    return open_source(folder)


def digests(folder) -> dict:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}


def test_every_row_is_packed_or_listed(source, tmp_path):
    summary = pack(source, tmp_path / "out", shard_size=3)
    assert summary.sizes == {"00000.tar": 3, "00001.tar": 3, "00002.tar": 1}
    assert summary.counts == {
        "ok": 7, "undecodable_image": 1, "unsupported_image": 1, "missing_image": 1,
        "missing_caption": 1,
    }  # fmt: skip
    skipped = parquet.read_table(tmp_path / "out" / "skipped.parquet")
    assert Counter(skipped.column("status").to_pylist()) == Counter(summary.counts) - Counter(ok=7)
    assert skipped.column("ordinal").to_pylist() == [5, 7, 9, 10]
    assert json.loads((tmp_path / "out" / "sizes.json").read_text()) == summary.sizes
    report = json.loads((tmp_path / "out" / "pack.json").read_text())
    assert (report["complete"], report["counts"]) == (True, summary.counts)

    packed = open_source(tmp_path / "out")
    assert packed.sizes == {"00000": 3, "00001": 3, "00002": 1}
    rows = [pair for shard in packed.shards for pair in packed.open_shard(shard)]
    view = source.open_shard(source.shards[0])
    wanted = [view[i] for i in (0, 1, 2, 3, 4, 6, 8)]
    assert [(p.image, p.caption) for p in rows] == [(p.image, p.caption) for p in wanted]
    assert [p.key for p in rows] == [f"{i:09d}" for i in range(7)]
    with tarfile.open(tmp_path / "out" / "00002.tar") as tar:
        assert tar.getnames() == ["000000006.jpg", "000000006.txt", "000000006.json"]
        assert json.load(tar.extractfile("000000006.json")) == {"key": "8#0"}
        assert {(m.mtime, m.uid, m.mode, m.uname) for m in tar} == {(0, 0, 0o644, "")}


def test_the_same_bytes_again(source, tmp_path):
    pack(source, tmp_path / "a", shard_size=3)
    pack(source, tmp_path / "b", shard_size=3)
    assert digests(tmp_path / "a") == digests(tmp_path / "b")


def test_resume_equals_an_uninterrupted_run(source, tmp_path, monkeypatch):
    pack(source, tmp_path / "whole", shard_size=3)
    add = packing.TarWriter.add_pair

    def stop(self, number, pair):
        if number == 4:
            raise KeyboardInterrupt
        add(self, number, pair)

    monkeypatch.setattr(packing.TarWriter, "add_pair", stop)
    with pytest.raises(KeyboardInterrupt):
        pack(source, tmp_path / "cut", shard_size=3)
    monkeypatch.undo()
    assert sorted(p.name for p in (tmp_path / "cut").iterdir()) == ["00000.tar", "pack.json"]
    (tmp_path / "cut" / "00001.tar.tmp-1").write_bytes(b"left over")
    with pytest.raises(RunError, match="not empty"):
        pack(source, tmp_path / "cut", shard_size=3)
    with pytest.raises(RunError, match="another shard_size"):
        pack(source, tmp_path / "cut", shard_size=4, resume=True)
    pack(source, tmp_path / "cut", shard_size=3, resume=True)
    assert digests(tmp_path / "cut") == digests(tmp_path / "whole")


def test_folders_that_are_refused(source, tmp_path):
    (tmp_path / "photo.txt").write_text("mine")
    for resume in (False, True):
        with pytest.raises(RunError):
            pack(source, tmp_path, resume=resume)
    with pytest.raises(RunError, match="at least 1"):
        pack(source, tmp_path / "out", shard_size=0)
    assert (tmp_path / "photo.txt").read_text() == "mine"


def test_packing_faulty_tars(tmp_path):
    members, statuses = faults.faulty_members()
    faults.write_tar(tmp_path / "in" / "00000.tar", members)
    source = open_source(tmp_path / "in", max_member_bytes=50_000)
    summary = pack(source, tmp_path / "out")
    assert summary.counts == Counter(statuses.values())
    packed = open_source(tmp_path / "out")
    rows = list(packed.open_shard(packed.shards[0]))
    assert {pair.status for pair in rows} == {"ok"}


def test_copying_rows_of_other_sources(source, tmp_path):
    view = source.open_shard(source.shards[0])
    assert copy_members(view, [6, 0, 5], tmp_path / "x.tar", first=100) == 2
    with tarfile.open(tmp_path / "x.tar") as tar:
        assert tar.getnames()[::3] == ["000000100.png", "000000106.png"]
    copied = open_source(tmp_path / "x.tar")
    rows = list(copied.open_shard(copied.shards[0]))
    assert [pair.caption for pair in rows] == ["caption 0 ☃", "caption 6 ☃"]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
def test_extensions_by_first_bytes(kind):
    wanted = {"JPEG": "jpg"}.get(kind, kind.lower())
    assert image_extension(faults.image_bytes(1, kind)) == wanted
    assert image_extension(b"") == ""
