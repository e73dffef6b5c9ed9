"""What is fuzzed: readers of everything that comes from strangers. A target eats bytes.

A target raises `MmjaxError` for what it refuses; anything else that it raises is a finding.
"""

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import save

from mmjax.core.config import parse
from mmjax.data.embeddings import open_embeddings, write_embeddings
from mmjax.data.images import read_rgb
from mmjax.data.shards import SourceOptions
from mmjax.data.sources import open_source
from mmjax.data.tars import open_tar
from mmjax.data.tokenizer import Tokenizer, load_tokenizer, train_bpe
from mmjax.models.tensors import open_tensors
from mmjax.scan.config import ScanConfig
from tests.data import faults


class Target(NamedTuple):
    """Inputs to start from, and what eats a mutated one, in an empty folder."""

    seeds: tuple[bytes, ...]
    eat: Callable[[bytes, Path], object]


def _read(source) -> None:
    for shard in source.shards:
        view = source.open_shard(shard)
        for index in range(len(view)):
            view[index]


def _tar(data: bytes, folder: Path) -> None:
    file = folder / "00000.tar"
    file.write_bytes(data)
    view = open_tar(str(file), SourceOptions())
    for index in range(len(view)):
        view[index]


def _table(suffix: str) -> Callable[[bytes, Path], None]:
    def eat(data: bytes, folder: Path) -> None:
        faults.write_photo_folder(folder / "photos", 2)
        file = folder / f"table{suffix}"
        file.write_bytes(data)
        _read(open_source(file))

    return eat


def _image(data: bytes, folder: Path) -> None:
    read_rgb(data, max_pixels=1_000_000)


def _weights(data: bytes, folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(data)
    with open_tensors(file) as tensors:
        for name in tensors.shapes:
            tensors.read(name)


def _array(data: bytes, folder: Path) -> None:
    rows = np.ones((3, 4), np.float32)
    write_embeddings(folder, rows, rows, captions=list("abc"), image_paths=list("abc"))
    (folder / "img_emb" / "img_emb_0.npy").write_bytes(data)
    source = open_embeddings(folder)
    source.open_shard(source.shards[0])


_TOKENIZERS: dict[Path, Tokenizer] = {}


def _caption(data: bytes, folder: Path) -> None:
    file = folder.parent / "tokenizer.json"
    if file not in _TOKENIZERS:
        train_bpe(["a cat on a mat", "two dogs"], 560, file)
        _TOKENIZERS[file] = load_tokenizer(file)
    tokens = _TOKENIZERS[file].encode([data.decode("utf-8", "replace")])
    assert tokens.ids.min() >= 0


def _tokenizer(data: bytes, folder: Path) -> None:
    file = folder / "tokenizer.json"
    file.write_bytes(data)
    load_tokenizer(file).encode(["a cat"])


def _config(data: bytes, folder: Path) -> None:
    try:
        values = json.loads(data)
    except ValueError:
        return
    if isinstance(values, dict):
        parse(ScanConfig, values)


def _bytes_of(write: Callable[[io.BytesIO], object]) -> bytes:
    file = io.BytesIO()
    write(file)
    return file.getvalue()


def _tokenizer_file() -> bytes:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        train_bpe(["a cat on a mat"], 530, Path(folder) / "tokenizer.json")
        return (Path(folder) / "tokenizer.json").read_bytes()


_MEMBERS = faults.faulty_members()[0]
_PARQUET = pa.table({"url": ["x"] * 3, "caption": ["a", "b", "c"], "image": [b"1", b"2", b"3"]})
_CSV = b'filepath\ttitle\nphotos/0.png\ta cat\nphotos/1.png\t"two\tdogs"\n'
_JSONL = b'{"file_name": "0.png", "text": "a cat"}\n{"file_name": "1.png", "text": "b"}\n'
_COCO = json.dumps(
    {
        "images": [{"id": 1, "file_name": "photos/0.png"}, {"id": 2, "file_name": "photos/1.png"}],
        "annotations": [{"id": 5, "image_id": 1, "caption": "a cat"}],
    }
).encode()

TARGETS: dict[str, Target] = {
    "tar": Target(
        (faults.tar_bytes(_MEMBERS)[:20_000], faults.tar_bytes(_MEMBERS[:6], tarfile.PAX_FORMAT)),
        _tar,
    ),
    "csv": Target((_CSV, _CSV.replace(b"\t", b",")), _table(".csv")),
    "parquet": Target((_bytes_of(lambda f: pq.write_table(_PARQUET, f)),), _table(".parquet")),
    "coco": Target((_COCO,), _table(".json")),
    "jsonl": Target((_JSONL,), _table(".jsonl")),
    "image": Target(
        tuple(faults.image_bytes(1, kind, 24) for kind in ("PNG", "JPEG", "GIF", "BMP", "WEBP")),
        _image,
    ),
    "safetensors": Target((save({"a": np.ones((2, 3)), "b": np.zeros(4, np.float32)}),), _weights),
    "npy": Target((_bytes_of(lambda f: np.save(f, np.ones((3, 4), np.float32))),), _array),
    "caption": Target(
        (b"a cat \xe2\x80\xae \xf0\x9f\xa6\x9c <script>", b"it's 5's \xef\xbb\xbf"), _caption
    ),
    "tokenizer": Target((_tokenizer_file(),), _tokenizer),
    "config": Target(
        (b'{"inputs": ["a"], "encode": {"batch_size": 3}, "stages": {"fdr": 0.1}}',),
        _config,
    ),
}
