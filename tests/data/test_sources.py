"""Every entry of SOURCES reads the same pairs; bad inputs are one line, bad rows are rows."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import warnings
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from mmjax.core.errors import InputError
from mmjax.core.types import STATUSES
from mmjax.data.shards import SourceOptions, file_fingerprint
from mmjax.data.sources import SOURCES, ShardView, open_source
from tests.data import faults

COUNT = 7
IMAGES = [faults.image_bytes(number) for number in range(COUNT)]
CAPTIONS = [f"caption {number}, with ünïcode ☃" for number in range(COUNT)]


def photos(folder: Path) -> Path:
    return faults.write_photo_folder(folder, COUNT)


def make_webdataset(folder: Path) -> Path:
    members = [m for i in range(COUNT) for m in faults.pair(f"{i:09d}", i, CAPTIONS[i].encode())]
    faults.write_tar(folder / "00000.tar", members[:8])
    faults.write_tar(folder / "00001.tar", members[8:])
    (folder / "sizes.json").write_text(json.dumps({"00000.tar": 4, "00001.tar": 3}))
    return folder


def make_img2dataset(folder: Path) -> Path:
    make_webdataset(folder)
    for number, rows in enumerate((range(4), range(4, COUNT))):
        keys = [f"{i:09d}" for i in rows]
        table = pa.table(
            {
                "key": [*keys, f"{number}99"],
                "caption": [*(CAPTIONS[i] for i in rows), "gone"],
                "status": ["success"] * len(keys) + ["failed_to_download"],
            }
        )
        parquet.write_table(table, folder / f"0000{number}.parquet")
        (folder / f"0000{number}_stats.json").write_text(json.dumps({"successes": len(keys)}))
    return folder


def make_csv(folder: Path) -> Path:
    photos(folder / "photos")
    with open(folder / "pairs.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter="\t")
        writer.writerow(["filepath", "title"])
        writer.writerows([f"photos/{i}.png", CAPTIONS[i]] for i in range(COUNT))
    return folder / "pairs.csv"


def make_parquet(folder: Path) -> Path:
    images = [{"bytes": image, "path": f"{i}.png"} for i, image in enumerate(IMAGES)]
    folder.mkdir(parents=True, exist_ok=True)
    table = pa.table({"image": images, "caption": CAPTIONS})
    parquet.write_table(table, folder / "train-00000-of-00001.parquet", row_group_size=2)
    return folder


def make_jsonl(folder: Path) -> Path:
    photos(folder)
    lines = [json.dumps({"file_name": f"{i}.png", "text": CAPTIONS[i]}) for i in range(COUNT)]
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def make_coco(folder: Path) -> Path:
    photos(folder / "val2017")
    value = {
        "images": [{"id": 100 + i, "file_name": f"{i}.png"} for i in range(COUNT)],
        "annotations": [
            {"image_id": 100 + i, "id": i, "caption": CAPTIONS[i]} for i in range(COUNT)
        ],
    }
    (folder / "annotations").mkdir()
    (folder / "annotations" / "captions_val2017.json").write_text(json.dumps(value))
    return folder / "annotations" / "captions_val2017.json"


def make_karpathy(folder: Path) -> Path:
    photos(folder / "images")
    splits = ["train", "restval", "val", "test"]
    images = [
        {
            "filename": f"{i}.png",
            "imgid": i,
            "split": splits[i % 4],
            "sentences": [{"raw": CAPTIONS[i], "sentid": 10 + i, "tokens": []}],
        }
        for i in range(COUNT)
    ]
    path = folder / "dataset_flickr8k.json"
    path.write_text(json.dumps({"images": images, "dataset": "flickr8k"}))
    return path


def make_captions_tsv(folder: Path) -> Path:
    photos(folder / "images")
    lines = [f"{i}.png\t{CAPTIONS[i]}" for i in range(COUNT)]
    (folder / "captions.tsv").write_text("image\tcaption\n" + "\n".join(lines) + "\n")
    splits = [f"{i}.png\t{['train', 'dev'][i % 2]}" for i in range(COUNT)]
    (folder / "splits.tsv").write_text("image\tsplit\n" + "\n".join(splits) + "\n")
    return folder


def make_tfds(folder: Path) -> Path:
    """A real ArrayRecord set, written in another process: TFDS keeps global state and threads."""
    code = f"""
import io, sys
import tensorflow_datasets as tfds
captions, images = {CAPTIONS!r}, {IMAGES!r}
class Tiny(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")
    def _info(self):
        f = tfds.features
        return tfds.core.DatasetInfo(builder=self, features=f.FeaturesDict({{
            "image": f.Image(shape=(None, None, 3)), "caption": f.Text(), "key": f.Text(),
            "captions": f.Sequence({{"text": f.Text()}})}}))
    def _split_generators(self, manager):
        return {{"train": self._generate_examples()}}
    def _generate_examples(self):
        for i, image in enumerate(images):
            yield i, {{"image": io.BytesIO(image), "caption": captions[i], "key": f"key{{i}}",
                       "captions": [{{"text": f"{{i}} {{j}}"}} for j in range(2)]}}
Tiny(data_dir=sys.argv[1], file_format="array_record").download_and_prepare()
assert "tensorflow" not in sys.modules
"""
    run = [sys.executable, "-W", "ignore", "-c", code, str(folder)]
    subprocess.run(run, check=True, capture_output=True, timeout=120)
    return folder


MAKERS = {
    "webdataset": make_webdataset,
    "img2dataset": make_img2dataset,
    "csv": make_csv,
    "parquet": make_parquet,
    "jsonl": make_jsonl,
    "coco": make_coco,
    "karpathy": make_karpathy,
    "captions_tsv": make_captions_tsv,
    "tfds": make_tfds,
}


def all_rows(source) -> list:
    return [view[i] for view in map(source.open_shard, source.shards) for i in range(len(view))]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Makes each input once; TFDS's import warnings are its own."""
    paths: dict[str, Path] = {}

    def make(kind: str) -> Path:
        if kind not in paths:
            paths[kind] = MAKERS[kind](tmp_path_factory.mktemp(kind))
        return paths[kind]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import tensorflow_datasets  # noqa: F401
    return make


def test_every_source_is_tested():
    assert MAKERS.keys() == SOURCES.keys()


@pytest.mark.parametrize("kind", SOURCES)
class TestEverySource:
    """The contract of a source."""

    def test_reads_the_same_pairs(self, made, kind):
        source = open_source(made(kind))
        assert source.kind == kind
        rows = all_rows(source)
        assert {pair.status for pair in rows} == {"ok"}
        assert sorted((p.image, p.caption) for p in rows) == sorted(
            zip(IMAGES, CAPTIONS, strict=True)
        )
        assert len({pair.key for pair in rows}) == COUNT

    def test_format_by_name_equals_detection(self, made, kind):
        named = open_source(made(kind), input_format=kind)
        assert all_rows(named) == all_rows(open_source(made(kind)))

    def test_random_access(self, made, kind):
        source = open_source(made(kind))
        view = source.open_shard(source.shards[0])
        assert isinstance(view, ShardView)
        rows = [view[i] for i in range(len(view))]
        assert [view[i] for i in reversed(range(len(view)))] == rows[::-1]
        assert list(view) == rows
        assert view.warnings == ()
        with pytest.raises(IndexError):
            view[len(view)]

    def test_threads_read_the_same(self, made, kind):
        source = open_source(made(kind))
        view = source.open_shard(source.shards[0])
        wanted = list(view)
        found: dict[int, list] = {}
        threads = [
            threading.Thread(target=lambda n=n: found.__setitem__(n, [list(view)] * 3))
            for n in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert all(rows == wanted for repeats in found.values() for rows in repeats)

    def test_shards(self, made, kind):
        source = open_source(made(kind), options=SourceOptions(shard_size=3))
        names = [shard.name for shard in source.shards]
        assert names == sorted(set(names))
        assert all(re.fullmatch(r"[A-Za-z0-9._-]+", name) for name in names)
        assert sorted(all_rows(source)) == sorted(all_rows(open_source(made(kind))))
        for shard in source.shards:
            assert source.sizes[shard.name] == len(source.open_shard(shard))

    def test_fingerprint_survives_touch_and_copy(self, made, kind, tmp_path):
        path = made(kind)
        prints = [open_source(path).fingerprint(s) for s in open_source(path).shards]
        root = path if path.is_dir() else path.parents[1 if kind == "coco" else 0]
        shutil.copytree(root, tmp_path / "copy")
        copy = open_source(tmp_path / "copy" / path.relative_to(root))
        assert [copy.fingerprint(shard) for shard in copy.shards] == prints

    def test_fingerprint_sees_a_change(self, made, kind, tmp_path):
        path = made(kind)
        root = path if path.is_dir() else path.parents[1 if kind == "coco" else 0]
        shutil.copytree(root, tmp_path / "copy")
        patterns = ("*.tar", "*.parquet", "*.array_record*", "3.png")
        file = next(f for p in patterns for f in sorted((tmp_path / "copy").rglob(p)))
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        before = open_source(path)
        file.write_bytes(data)
        if file.suffix == ".parquet":
            assert file_fingerprint(file) != file_fingerprint(path / file.name)
            return
        after = open_source(tmp_path / "copy" / path.relative_to(root))
        assert [after.fingerprint(s) for s in after.shards] != [
            before.fingerprint(s) for s in before.shards
        ]


@pytest.mark.parametrize(
    "location",
    ["pipe:touch hacked", "http://169.254.169.254/x.tar", "s3://bucket/{0..3}.tar", "hf://x/y"],
)
@pytest.mark.parametrize("listed", [False, True])
def test_remote_inputs_are_refused(tmp_path, monkeypatch, location, listed):
    monkeypatch.chdir(tmp_path)
    given = location
    if listed:
        (tmp_path / "list.txt").write_text(location + "\n")
        given = "list.txt"
    with pytest.raises(InputError, match="not a local path"):
        open_source(given)
    assert not (tmp_path / "hacked").exists()


def test_paths_that_name_nothing(tmp_path):
    faults.write_tar(tmp_path / "00000.tar", faults.pair("a"))
    for pattern, words in (
        ("no", "no such file"),
        ("*.zip", "nothing matches"),
        ("{00000..00002}.tar", "2 of the 3 paths"),
        ("{0..3.tar", "no valid brace pattern"),
        ("{0..99999999}.tar", "more than"),
        ("{0..999}{0..999}{a,b}.tar", "more than"),
    ):
        with pytest.raises(InputError, match=words):
            open_source(tmp_path / pattern)
    for given in ("", []):
        with pytest.raises(InputError, match="no input given"):
            open_source(given)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no folder of a known format"):
        open_source(tmp_path / "empty")
    with pytest.raises(InputError, match="holds no tars"):
        open_source(tmp_path / "empty", input_format="webdataset")
    with pytest.raises(InputError, match="one of auto, tfds"):
        open_source(tmp_path, input_format="zip")
    (tmp_path / "empty.txt").write_text("# nothing\n")
    with pytest.raises(InputError, match="lists no paths"):
        open_source(tmp_path / "empty.txt")
    os.mkfifo(tmp_path / "pipe.tar")
    with pytest.raises(InputError, match="neither a plain file nor a folder"):
        open_source(tmp_path / "pipe.tar")


def test_ways_to_name_tars(tmp_path):
    make_webdataset(tmp_path / "set")
    (tmp_path / "list.txt").write_text("# my shards\nset/00000.tar\n\nset/00001.tar\n")
    wanted = [shard.name for shard in open_source(tmp_path / "set").shards]
    assert wanted == ["00000", "00001"]
    for given in (
        tmp_path / "set" / "{00000..00001}.tar",
        tmp_path / "set" / "*.tar",
        tmp_path / "list.txt",
        [tmp_path / "set" / "00001.tar", tmp_path / "set" / "00000.tar"],
        tmp_path,
    ):
        assert [
            shard.name for shard in open_source(given, input_format="webdataset").shards
        ] == wanted


def test_shards_of_the_same_name_stay_apart(tmp_path):
    for folder in ("a", "b", "c d"):
        faults.write_tar(tmp_path / folder / "00000.tar", faults.pair("k"))
    names = [
        s.name for s in open_source([tmp_path / f / "00000.tar" for f in ("a", "b", "c d")]).shards
    ]
    assert names == ["a_00000", "b_00000", "c_d_00000"]


@pytest.mark.parametrize("what", faults.not_tars())
def test_other_files_given_as_tars(tmp_path, what):
    path = tmp_path / "00000.tar"
    path.write_bytes(faults.not_tars()[what])
    with pytest.raises(InputError, match=what):
        open_source(path)


def test_img2dataset_sidecars(tmp_path):
    make_img2dataset(tmp_path)
    source = open_source(tmp_path)
    view = source.open_shard(source.shards[0])
    assert view.notes == (
        "00000.parquet lists 1 pairs that were never downloaded (failed_to_download 1)",
    )
    table = pa.table({"key": ["lost", "000000000"], "status": ["success"] * 2})
    parquet.write_table(table, tmp_path / "00000.parquet")
    view = source.open_shard(source.shards[0])
    assert "lists 1 downloaded pairs that 00000.tar does not hold" in view.warnings[0]
    assert "holds 3 pairs that 00000.parquet does not list" in view.notes[0]
    (tmp_path / "00000.parquet").write_bytes(b"junk")
    assert "cannot be read" in source.open_shard(source.shards[0]).warnings[0]


def test_img2dataset_parquet_output(tmp_path):
    table = pa.table(
        {
            "key": ["000000000", "000000001"],
            "jpg": [IMAGES[0], None],
            "caption": CAPTIONS[:2],
            "status": ["success", "failed_to_download"],
        }
    )
    parquet.write_table(table, tmp_path / "00000.parquet")
    source = open_source(tmp_path, input_format="img2dataset")
    assert [(p.key, p.status) for p in all_rows(source)] == [("000000000", "ok")]
    (tmp_path / "00000.parquet").unlink()
    with pytest.raises(InputError, match="holds none of img2dataset's outputs"):
        open_source(tmp_path, input_format="img2dataset")


def test_folders_of_files(tmp_path):
    for shard in ("00000", "00001"):
        folder = photos(tmp_path / shard)
        for i in range(COUNT - 2):
            (folder / f"{i}.txt").write_text(CAPTIONS[i])
        (folder / "5.json").write_text(json.dumps({"caption": CAPTIONS[5]}))
        (folder / "alone.txt").write_text("no image")
        (folder / "0.jpg").write_bytes(IMAGES[1])
    source = open_source(tmp_path)
    assert source.kind == "img2dataset"
    assert [shard.name for shard in source.shards] == ["00000", "00001"]
    rows = list(source.open_shard(source.shards[1]))
    assert Counter(pair.status for pair in rows) == {
        "ok": COUNT - 1,
        "duplicate_key": 1,
        "missing_caption": 1,
        "missing_image": 1,
    }
    first = next(pair for pair in rows if pair.key == "0")
    assert (first.image, first.status) == (IMAGES[1], "ok")


def test_csv_rows_that_are_wrong_are_rows(tmp_path):
    photos(tmp_path)
    lines = [
        b"\xef\xbb\xbffilepath\ttitle",
        b'0.png\t"quoted, ""twice""\nand broken"',
        b"1.png\tcaf\xe9",
        b"../2.png\tescapes",
        b"http://x/3.png\tlink",
        b"gone.png\tgone",
        b"4.png\t ",
        b"5.png\ttoo\tmany",
        str(tmp_path / "6.png").encode() + b"\tabsolute",
        b"\tno name",
    ]
    (tmp_path / "pairs.tsv").write_bytes(b"\n".join(lines) + b"\n")
    rows = all_rows(open_source(tmp_path / "pairs.tsv"))
    assert [pair.status for pair in rows] == [
        "ok", "ok", "unsafe_member", "missing_image", "missing_image", "missing_caption",
        "ok", "missing_image", "missing_image",
    ]  # fmt: skip
    assert rows[0].caption == 'quoted, "twice"\nand broken'
    assert rows[1].flags == ("caption_encoding",)
    assert rows[-1].message == "a line has 3 columns instead of 2: 5.png\ttoo\tmany"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"a dog\thttps://a/b.jpg\na cat\thttps://a/c.jpg\n", "CC-3M's own list"),
        (b"url,caption\nhttps://a/b.jpg,a dog\n", "--url_col=url --caption_col=caption"),
        (b"filepath,title\nhttps://a/b.jpg,a dog\n", "--url_col=filepath --caption_col=title"),
        (b"left,right\n1,2\n", "has columns left, right"),
        (b"", "no readable CSV"),
        (b"filepath,title\n", "holds no pairs"),
    ],
)
def test_tables_that_are_refused(tmp_path, text, words):
    (tmp_path / "Train_GCC-training.tsv").write_bytes(text)
    with pytest.raises(InputError, match=words) as refused:
        open_source(tmp_path / "Train_GCC-training.tsv")
    assert ("img2dataset --url_list" in str(refused.value)) is (b"https" in text)


def test_csv_options(tmp_path):
    photos(tmp_path / "photos")
    (tmp_path / "x.csv").write_text("picture;words\n0.png;one, two\n")
    options = SourceOptions(
        separator=";",
        image_column="picture",
        caption_column="words",
        image_root=str(tmp_path / "photos"),
    )
    (pair,) = all_rows(open_source(tmp_path / "x.csv", options=options))
    assert (pair.image, pair.caption) == (IMAGES[0], "one, two")


def test_columns_by_name(tmp_path):
    photos(tmp_path)
    (tmp_path / "x.csv").write_text("picture,words\n0.png,one\n")
    with pytest.raises(InputError, match="has columns picture, words; .*--columns=IMAGE,CAPTION"):
        open_source(tmp_path / "x.csv")
    (pair,) = all_rows(open_source(tmp_path / "x.csv", columns="picture, words"))
    assert (pair.image, pair.caption) == (IMAGES[0], "one")
    with pytest.raises(InputError, match="has columns picture, words"):
        open_source(tmp_path / "x.csv", columns="picture,caption")
    with pytest.raises(InputError, match="--columns wants IMAGE,CAPTION, the names of two"):
        open_source(tmp_path / "x.csv", columns="picture")
    (tmp_path / "x.jsonl").write_text('{"picture": "0.png", "words": "one"}\n')
    (pair,) = all_rows(open_source(tmp_path / "x.jsonl", columns="picture,words"))
    assert (pair.image, pair.caption) == (IMAGES[0], "one")
    with pytest.raises(InputError, match="has columns picture, words"):
        open_source(tmp_path / "x.jsonl", columns="picture,wrods")
    with pytest.raises(InputError, match="WebDataset tar shards, whose columns have no names"):
        open_source(make_webdataset(tmp_path / "shards"), columns="picture,words")


def test_folders_of_no_known_format_say_what_they_hold(tmp_path):
    photos(tmp_path / "photos")
    with pytest.raises(InputError, match="it holds images, and captions are wanted too"):
        open_source(tmp_path / "photos")
    (tmp_path / "x.csv").write_text("filepath,title\n")
    with pytest.raises(InputError, match="it holds x.csv: name that file; or give --input_format"):
        open_source(tmp_path)


def test_a_csv_has_no_splits(tmp_path):
    photos(tmp_path)
    (tmp_path / "x.csv").write_text("filepath,title\n0.png,one\n")
    with pytest.raises(InputError, match="has no split 'train'; it has no splits"):
        open_source(tmp_path / "x.csv", split="train")


def test_a_lone_quote_swallows_nothing(tmp_path):
    photos(tmp_path)
    captions = ['"Stop" sign', '"lone', 'a "b" c', "d", 'e"', "f", '"']
    lines = "".join(f"{i}.png\t{caption}\n" for i, caption in enumerate(captions))
    (tmp_path / "x.tsv").write_text("filepath\ttitle\n" + lines)
    assert [p.caption for p in all_rows(open_source(tmp_path / "x.tsv"))] == captions


def test_utf16_csv(tmp_path):
    photos(tmp_path)
    (tmp_path / "x.csv").write_text("filepath,title\n0.png,grün\n", encoding="utf-16")
    assert all_rows(open_source(tmp_path / "x.csv"))[0].caption == "grün"


def test_parquet_columns(tmp_path):
    photos(tmp_path)
    for name, column in (("bytes", IMAGES), ("paths", [f"{i}.png" for i in range(COUNT)])):
        parquet.write_table(
            pa.table({"image": column, "text": CAPTIONS}), tmp_path / f"{name}.parquet"
        )
        rows = all_rows(open_source(tmp_path / f"{name}.parquet"))
        assert [(p.image, p.caption) for p in rows] == list(zip(IMAGES, CAPTIONS, strict=True))
    faulty = pa.table(
        {
            "key": ["a", "a", "b", "c"],
            "jpg": [IMAGES[0], IMAGES[1], None, IMAGES[2]],
            "caption": ["x", "y", None, None],
            "status": ["success", "success", "failed_to_download", "success"],
        }
    )
    parquet.write_table(faulty, tmp_path / "faulty.parquet")
    source = open_source(tmp_path / "faulty.parquet")
    assert [p.status for p in all_rows(source)] == ["ok", "duplicate_key", "missing_caption"]
    assert "failed_to_download 1" in source.open_shard(source.shards[0]).notes[0]


def test_parquet_files_in_any_order(tmp_path):
    for number in range(3):
        table = pa.table({"image": IMAGES[:1], "text": [f"of file {number}"]})
        parquet.write_table(table, tmp_path / f"{number}.parquet")
    files = [tmp_path / f"{number}.parquet" for number in (2, 0, 1, 2)]
    rows = all_rows(open_source(files))
    assert [pair.caption for pair in rows] == [f"of file {number}" for number in range(3)]


def test_parquet_caption_lists(tmp_path):
    table = pa.table({"image": IMAGES[:3], "caption": [["a", "b"], [], ["c"]]})
    parquet.write_table(table, tmp_path / "x.parquet")
    rows = all_rows(open_source(tmp_path / "x.parquet"))
    assert [(p.caption, p.status) for p in rows] == [
        ("a", "ok"), ("b", "ok"), (None, "missing_caption"), ("c", "ok"),
    ]  # fmt: skip
    assert len({pair.key for pair in rows}) == 4


def test_parquet_refusals(tmp_path):
    path = tmp_path / "x.parquet"
    for column, words in (("url", "img2dataset --url_list"), ("other", "has columns other")):
        parquet.write_table(pa.table({column: ["a"], "caption": ["b"]}), path)
        with pytest.raises(InputError, match=words):
            open_source(path)
    parquet.write_table(pa.table({"image": [1], "caption": ["b"]}), path)
    with pytest.raises(InputError, match="has type int64"):
        open_source(path)
    path.write_bytes(b"PAR1junk")
    with pytest.raises(InputError, match="no readable Parquet"):
        open_source(path)


def test_damaged_parquet_pages_are_rows(tmp_path):
    images = [os.urandom(3000) for _ in range(4)]
    table = pa.table({"image": images, "caption": list("abcd")})
    path = tmp_path / "x.parquet"
    parquet.write_table(table, path, row_group_size=2, compression="zstd")
    column = parquet.read_metadata(path).row_group(1).column(0)
    start = column.dictionary_page_offset or column.data_page_offset
    data = bytearray(path.read_bytes())
    data[start : start + 40] = b"\xff" * 40
    path.write_bytes(data)
    source = open_source(path)
    view = source.open_shard(source.shards[0])
    assert [pair.status for pair in view] == ["ok", "ok", "missing_image", "missing_image"]
    assert "row group 1 cannot be read" in view.warnings[0]


def test_jsonl_faults(tmp_path):
    photos(tmp_path)
    lines = [
        '{"file_name": "0.png", "text": "fine"}',
        '{"file_name": "../../etc/passwd", "text": "escapes"}',
        '{"file_name": "/etc/passwd", "text": "absolute"}',
        "not json",
        '{"file_name": "1.png"}',
        '{"text": "no image"}',
        '{"file_name": "2.png", "text": ["one", "two"]}',
        '{"file_name": "3.png", "text": "a\\ud800\\u0000b"}',
    ]
    (tmp_path / "x.jsonl").write_text("\n".join(lines))
    rows = all_rows(open_source(tmp_path / "x.jsonl"))
    assert [pair.status for pair in rows] == [
        "ok", "unsafe_member", "unsafe_member", "missing_image", "missing_caption",
        "missing_image", "ok", "ok", "ok",
    ]  # fmt: skip
    assert rows[-1].caption == "a��b"
    assert all(pair.image is None for pair in rows if pair.status == "unsafe_member")


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl"])
def test_image_folder_with_splits(tmp_path, suffix):
    for split in ("train", "test"):
        folder = photos(tmp_path / split)
        columns = {"file_name": ["0.png", "../x.png"], "text": [f"a {split}", "b"]}
        if suffix == "csv":
            (folder / "metadata.csv").write_text(f"file_name,text\n0.png,a {split}\n../x.png,b\n")
        elif suffix == "parquet":
            parquet.write_table(pa.table(columns), folder / "metadata.parquet")
        else:
            rows = [dict(zip(columns, r, strict=True)) for r in zip(*columns.values(), strict=True)]
            (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert [p.caption for p in all_rows(open_source(tmp_path))] == ["a test", "b", "a train", "b"]
    rows = all_rows(open_source(tmp_path, split="test"))
    assert [(p.caption, p.status) for p in rows] == [("a test", "ok"), ("b", "unsafe_member")]
    with pytest.raises(InputError, match=r"no split 'dev'; it has test \(2\), train \(2\)"):
        open_source(tmp_path, split="dev")


def test_coco_rows_without_partner(tmp_path):
    path = make_coco(tmp_path)
    value = json.loads(path.read_text())
    value["annotations"] += [
        {"image_id": 100, "id": 70, "caption": "a second caption"},
        {"image_id": 999, "id": 71, "caption": "no such image"},
    ]
    value["images"].append({"id": 200, "file_name": "../0.png"})
    path.write_text(json.dumps(value))
    statuses = {pair.key: pair.status for pair in all_rows(open_source(path))}
    assert statuses["100#70"] == "ok"
    assert statuses["999#71"] == "missing_image"
    assert statuses["200"] == "unsafe_member"
    shutil.rmtree(tmp_path / "val2017")
    with pytest.raises(InputError, match="--image_root"):
        open_source(path)


def test_karpathy_splits(made):
    counts = {
        split: len(all_rows(open_source(made("karpathy"), split=split)))
        for split in ("train", "val", "val,test")
    }
    assert counts == {"train": 4, "val": 2, "val,test": 3}
    with pytest.raises(InputError, match="no split 'restval'"):
        open_source(made("karpathy"), split="restval")


def test_captions_tsv_splits_and_keys(made, tmp_path):
    rows = all_rows(open_source(made("captions_tsv"), split="dev"))
    assert [pair.key for pair in rows] == ["1#0", "3#0", "5#0"]
    photos(tmp_path)
    (tmp_path / "captions.tsv").write_bytes(b'0.png\t"one\n0.png\ttwo\n1.png\n../2.png\tx\n')
    rows = all_rows(open_source(tmp_path))
    assert [(p.key, p.status) for p in rows] == [
        ("0#0", "ok"), ("0#1", "ok"), ("1#0", "missing_caption"), ("../2#0", "unsafe_member"),
    ]  # fmt: skip
    assert rows[0].caption == '"one'


def test_splits_where_there_are_none(made):
    for kind in ("webdataset", "coco"):
        with pytest.raises(InputError, match="split"):
            open_source(made(kind), split="train")


def test_tfds_caption_sequences_and_damage(made, tmp_path):
    options = SourceOptions(caption_column="captions", shard_size=4)
    rows = all_rows(open_source(made("tfds"), options=options))
    assert sorted(p.caption or "" for p in rows) == [
        f"{i} {j}" for i in range(COUNT) for j in (0, 1)
    ]
    assert {pair.key.split("#")[0] for pair in rows} == {f"key{i}" for i in range(COUNT)}
    with pytest.raises(InputError, match=r"no split 'dev'; it has train \(7\)"):
        open_source(made("tfds"), split="dev")
    shutil.copytree(made("tfds"), tmp_path / "copy")
    (info,) = (tmp_path / "copy").rglob("dataset_info.json")
    info.write_text("{")
    with pytest.raises(InputError, match="no readable TFDS dataset"):
        open_source(tmp_path / "copy")
    (record,) = (tmp_path / "copy").rglob("*.array_record*")
    info.write_text(next(made("tfds").rglob("dataset_info.json")).read_text())
    record.write_bytes(record.read_bytes()[:70_000])
    assert {p.status for p in all_rows(open_source(tmp_path / "copy"))} <= {"ok", "missing_image"}
    record.unlink()
    with pytest.raises(InputError, match="not in ArrayRecord format"):
        open_source(tmp_path / "copy")


def test_files_that_are_not_plain_or_too_large(tmp_path):
    os.mkfifo(tmp_path / "0.png")
    (tmp_path / "1.png").mkdir()
    (tmp_path / "2.png").write_bytes(bytes(1000))
    (tmp_path / "captions.tsv").write_text("".join(f"{i}.png\tx\n" for i in range(3)))
    rows = all_rows(open_source(tmp_path, max_member_bytes=999))
    assert [p.status for p in rows] == ["missing_image", "missing_image", "oversized_member"]


def test_names_that_are_not_utf8(tmp_path):
    name = os.fsdecode(b"caf\xe9.png")
    (tmp_path / name).write_bytes(IMAGES[0])
    (tmp_path / "captions.tsv").write_bytes(b"caf\xe9.png\tx\n\0.png\ty\n")
    source = open_source(tmp_path)
    assert [(p.key, p.status) for p in all_rows(source)] == [
        ("caf�#0", "ok"), ("�#0", "missing_image"),
    ]  # fmt: skip
    assert source.fingerprint(source.shards[0])
    (tmp_path / "x.csv").write_bytes(b"filepath,title\ncaf\xe9.png,x\n")
    assert all_rows(open_source(tmp_path / "x.csv"))[0].status == "ok"


def test_large_files_are_sampled(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(bytes(2**20))
    sampled = [file_fingerprint(path, whole_below=1000, blocks=4)]
    for position in (0, 2**20 - 1):
        data = bytearray(2**20)
        data[position] = 1
        path.write_bytes(data)
        sampled.append(file_fingerprint(path, whole_below=1000, blocks=4))
    assert len(set(sampled)) == 3
    assert file_fingerprint(tmp_path / "no") == "unreadable-2"


def test_sources_import_neither_jax_nor_tensorflow():
    code = "import sys, mmjax.data.sources, mmjax.data.pack; print(*sys.modules)"
    modules = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    heavy = {"jax", "tensorflow", "tensorflow_datasets", "torch", "PIL", "webdataset", "pickle5"}
    assert not heavy & set(modules.stdout.split())


@pytest.mark.real
def test_flickr8k(data_root):
    source = open_source(data_root / "flickr8k", split="dev,test,none")
    assert [(s.name, s.stop - s.start) for s in source.shards] == [
        ("00000", 10_000),
        ("00001", 455),
    ]
    view = source.open_shard(source.shards[1])
    assert {view[i].status for i in range(len(view))} == {"ok"}
    assert {pair.status for pair in view} <= STATUSES.keys()


def test_malformed_lines_of_a_csv_that_is_not_utf8_are_told(tmp_path):
    photos(tmp_path)
    file = tmp_path / "pairs.csv"
    file.write_bytes(b"filepath,title\n0.png,caf\xe9\n1.png,a,b\xff,c\n2.png,fine\n")
    source = open_source(file)
    view = source.open_shard(source.shards[0])
    rows = [view[i] for i in range(len(view))]
    assert [row.caption for row in rows] == ["caf\ufffd", "fine", None]
    assert rows[0].flags == ("caption_encoding",)
    assert rows[2].status == "missing_image"
    assert "4 columns instead of 2" in rows[2].message
