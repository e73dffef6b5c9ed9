"""A stored shard is read back, and counts as stored only while it is what was written."""

from pathlib import Path

import numpy as np

from mmjax.core.rundir import RunDir
from mmjax.data.loader import Record
from mmjax.scan.config import StageConfig
from mmjax.scan.encode import EncodedShard
from mmjax.scan.store import PAIR_SCHEMA, is_stored, read_block, read_pairs, write_shard

RECORDS = (
    Record("a", "a cat", "ok", "", (), "12ab", 0),
    Record("../b", "", "missing_caption", "no caption", ("caption_encoding",), "", -1),
    Record("a", "grün\u2028\N{CAT}", "ok", "", (), "34cd", 1),
)


def shard() -> EncodedShard:
    image = np.arange(12, dtype=np.float16).reshape(3, 4)
    image[1] = 0
    return EncodedShard(image, -image, RECORDS, ("cut off",))


def opened(folder: Path) -> RunDir:
    return RunDir.open(folder, verb="scan", config=StageConfig())


def test_a_shard_is_read_back(tmp_path: Path) -> None:
    with opened(tmp_path) as run:
        write_shard(run, "x", shard(), fingerprint="f")
        assert run.journal("x")["warnings"] == ["cut off"]
        assert run.journal("x")["rows"] == 3
    block = read_block(tmp_path, "x")
    assert isinstance(block.image, np.memmap)
    assert block.image.dtype == np.float16
    np.testing.assert_array_equal(block.image, shard().image)
    np.testing.assert_array_equal(block.text, shard().text)
    assert block.valid.tolist() == [True, False, True]
    pairs = read_pairs(tmp_path, "x")
    assert pairs.schema.equals(PAIR_SCHEMA)
    assert pairs["key"].to_pylist() == ["a", "../b", "a"]
    assert pairs["flags"].to_pylist() == [[], ["caption_encoding"], []]
    assert pairs["caption"].to_pylist()[2] == RECORDS[2].caption


def test_stored_means_same_input_and_same_outputs(tmp_path: Path) -> None:
    with opened(tmp_path) as run:
        assert is_stored(run, "x", "f") is None
        write_shard(run, "x", shard(), fingerprint="f")
        write_shard(run, "x", shard(), fingerprint="other", prefix="reference/")
        assert is_stored(run, "x", "f")
        assert is_stored(run, "x", "changed") is None
        assert is_stored(run, "x", "other", "reference/")
        file = tmp_path / "embeddings" / "x.text.npy"
        data = file.read_bytes()
        file.write_bytes(data[:-1])
        assert is_stored(run, "x", "f") is None
        file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        assert is_stored(run, "x", "f") is None
        file.write_bytes(data)
        assert is_stored(run, "x", "f")
        (tmp_path / "journal" / "x.json").write_bytes(b"{")
        assert is_stored(run, "x", "f") is None
