"""clip-retrieval's layout: parts in numeric order, disagreements refused, bad rows marked."""

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from mmjax.core.errors import InputError
from mmjax.data.embeddings import is_embeddings, open_embeddings, write_embeddings
from mmjax.data.mapped import release
from mmjax.data.sources import open_source

ROWS, WIDTH = 23, 4


@pytest.fixture
def folder(tmp_path, rng):
    image, text = rng.standard_normal((2, ROWS, WIDTH)).astype(np.float16)
    image[3, 1], image[4], text[5, 0], text[3, 2] = np.nan, 0, np.inf, -np.inf
    captions = [None if i == 7 else f"caption {i}" for i in range(ROWS)]
    paths = [f"{i}.jpg" for i in range(ROWS)]
    write_embeddings(
        tmp_path / "e", image, text, captions=captions, image_paths=paths, rows_per_part=2
    )
    return tmp_path / "e", image, text


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_round_trip_in_numeric_order(folder):
    path, image, text = folder
    source = open_embeddings(path)
    assert is_embeddings(path)
    assert len(source.shards) == 12
    assert [shard.name for shard in source.shards] == sorted(s.name for s in source.shards)
    assert sum(source.sizes.values()) == ROWS
    assert source.dimension == WIDTH
    parts = [source.open_shard(shard) for shard in source.shards]
    np.testing.assert_array_equal(np.concatenate([p.image for p in parts]), image)
    np.testing.assert_array_equal(np.concatenate([p.text for p in parts]), text)
    assert isinstance(parts[0].image, np.memmap)
    assert [key for part in parts for key in part.keys] == [f"{i}.jpg" for i in range(ROWS)]
    assert parts[0].captions == ("caption 0", "caption 1")


def test_bad_rows_have_a_status(folder):
    source = open_embeddings(folder[0])
    rows = [
        row
        for part in map(source.open_shard, source.shards)
        for row in zip(part.statuses, part.messages, part.valid, strict=True)
    ]
    bad = {i: row[:2] for i, row in enumerate(rows) if not row[2]}
    assert {i: status for i, (status, _) in bad.items()} == {
        3: "nonfinite_embedding",
        4: "nonfinite_embedding",
        5: "nonfinite_embedding",
        7: "missing_caption",
    }
    assert "image and caption" in bad[3][1]


def test_fingerprint_sees_each_of_the_three_files(folder):
    path = folder[0]
    source = open_embeddings(path)
    prints = {source.fingerprint(source.shards[0])}
    for name in ("img_emb/img_emb_0.npy", "text_emb/text_emb_0.npy", "metadata/metadata_0.parquet"):
        data = bytearray((path / name).read_bytes())
        data[-9] ^= 1
        (path / name).write_bytes(data)
        prints.add(source.fingerprint(source.shards[0]))
    assert len(prints) == 4


def test_own_keys_and_surrogates(tmp_path):
    ones = np.ones((2, 3), np.float32)
    write_embeddings(tmp_path, ones, ones, captions=["a", "b"], image_paths=["p", "q"])
    table = pa.table({"key": ["k1", None], "image_path": ["p", None], "caption": ["a\0", " "]})
    parquet.write_table(table, tmp_path / "metadata" / "metadata_0.parquet")
    source = open_embeddings(tmp_path)
    part = source.open_shard(source.shards[0])
    assert part.keys == ("k1", "00000#1")
    assert part.captions == ("a�", None)
    assert part.flags[0] == ("caption_encoding",)


def save(path, array, *, pickled=False):
    np.save(path, array, allow_pickle=pickled)


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("img_emb/img_emb_0.npy", np.ones((3, WIDTH), np.float32), "has 3 rows, .* 2 and .* 2"),
        ("text_emb/text_emb_0.npy", np.ones((2, 5), np.float32), "has 4 columns and .* 5"),
        ("img_emb/img_emb_1.npy", np.ones((2, 8), np.float32), "part 1: .* 8 columns"),
        ("img_emb/img_emb_0.npy", np.ones((2, WIDTH), np.int32), "type int32"),
        ("img_emb/img_emb_0.npy", np.ones(8, np.float32), r"shape \(8,\)"),
        ("img_emb/img_emb_0.npy", b"", "no readable array"),
        ("img_emb/img_emb_0.npy", b"\x80\x04\x95pickle", "no readable array"),
        ("metadata/metadata_0.parquet", b"PAR1", "no readable Parquet"),
        ("metadata/metadata_1.parquet", None, "metadata_1.parquet is missing"),
        ("text_emb/text_emb_1.npy", None, "text_emb_1.npy is missing"),
    ],
)
def test_disagreements_are_refused(folder, file, content, words):
    path = folder[0] / file
    path.unlink()
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        save(path, content)
    with pytest.raises(InputError, match=words):
        open_embeddings(folder[0])


def test_truncated_and_object_arrays(folder, tmp_path):
    path = folder[0] / "img_emb" / "img_emb_0.npy"
    whole = path.read_bytes()
    path.write_bytes(whole[:-2])
    with pytest.raises(InputError, match="no readable array"):
        open_embeddings(folder[0])
    canary = tmp_path / "canary"

    class Payload:
        def __reduce__(self):
            return (open, (str(canary), "w"))

    save(path, np.array([[Payload()] * WIDTH] * 2, dtype=object), pickled=True)
    with pytest.raises(InputError, match="no readable array"):
        open_embeddings(folder[0])
    assert not canary.exists()


@pytest.mark.parametrize("shape", [(3, 10**21), (2**40, 2**30), (2**32, 2**32 + 1), (-1, 4)])
def test_shapes_that_no_file_has(folder, shape):
    path = folder[0]
    file = path / "img_emb" / "img_emb_0.npy"
    with open(file, "wb") as opened:
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(opened, header)
        opened.write(bytes(64))
    with pytest.raises(InputError, match="no readable array"):
        open_embeddings(path)


def test_a_nan_that_signals_is_a_bad_row(folder):
    path = folder[0]
    file = path / "img_emb" / "img_emb_0.npy"
    rows = np.ones((2, WIDTH), np.float32)
    rows.view(np.uint32)[1, 2] = 0x7F800001
    np.save(file, rows)
    source = open_embeddings(path)
    assert source.open_shard(source.shards[0]).statuses == ("ok", "nonfinite_embedding")


def test_folders_without_embeddings(tmp_path, folder):
    with pytest.raises(InputError, match="holds no embeddings"):
        open_embeddings(tmp_path / "no")
    with pytest.raises(InputError, match="holds embeddings"):
        open_source(folder[0])
    with pytest.raises(InputError, match="must agree"):
        write_embeddings(
            tmp_path, np.ones((2, 3)), np.ones((2, 3)), captions=["a"], image_paths=["b", "c"]
        )


def test_what_is_released_can_be_read_again_and_changes_of_a_private_copy_stay(tmp_path):
    file = tmp_path / "rows.npy"
    np.save(file, np.arange(4096, dtype=np.float32).reshape(1024, 4))
    mapped = np.load(file, mmap_mode="r")
    release(mapped)
    np.testing.assert_array_equal(mapped[-1], [4092, 4093, 4094, 4095])
    private = np.load(file, mmap_mode="c")
    private[0] = 7
    release(private)
    release(np.ones((2, 2)))
    np.testing.assert_array_equal(private[0], 7)


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_norms_of_the_largest_and_smallest_rows_are_norms(kind, tmp_path):
    most, least = (float(f(np.finfo(kind))) for f in (lambda i: i.max, lambda i: i.tiny))
    rows = np.array([[0.6, 0.8], [most, 0], [least, 0], [0, 0], [np.nan, 1]], kind)
    write_embeddings(tmp_path, rows, rows, captions=["c"] * 5, image_paths=["p"] * 5)
    part = open_embeddings(tmp_path).open_shard(open_embeddings(tmp_path).shards[0])
    assert part.valid.tolist() == [True, True, True, False, False]
    assert part.norm_error == pytest.approx(most - 1)
