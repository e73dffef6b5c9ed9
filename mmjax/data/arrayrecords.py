"""Prepared TFDS folders of ArrayRecord files, read without TensorFlow."""

import itertools
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmjax.core.errors import InputError
from mmjax.core.types import Pair
from mmjax.data.records import Row, make_pair
from mmjax.data.shards import (
    Shard,
    Source,
    SourceOptions,
    file_fingerprint,
    select_splits,
    shard_sizes,
    virtual_shards,
)
from mmjax.data.tables import CAPTION_COLUMNS, IMAGE_COLUMNS, find_column

_KEY_NAMES = ("key", "id", "image_id", "file_name", "filename", "image/id", "image/filename")


def _prepared(path: Path) -> Path | None:
    """The folder with `dataset_info.json`: the path itself or its only NAME/VERSION below."""
    for pattern in ("dataset_info.json", "*/dataset_info.json", "*/*/dataset_info.json"):
        found = sorted(
            p.parent for p in path.glob(pattern) if (p.parent / "features.json").exists()
        )
        if found:
            return found[-1]
    return None


def is_tfds(path: Path) -> bool:
    """Whether a folder holds a prepared TFDS dataset."""
    return path.is_dir() and _prepared(path) is not None


class RecordView:
    """A `ShardView` of records `start` to `stop` of a data source; thread-safe.

    A feature that is a sequence of captions gives one row a caption.
    """

    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __init__(self, records: Any, names: Mapping[str, str], shard: Shard, limit: int):
        self._records = records
        self._names = names
        self._limit = limit
        self._prefix = Path(shard.path).name
        self._lock = threading.Lock()
        numbers = range(shard.start, len(records) if shard.stop is None else shard.stop)
        self._rows = [(n, -1) for n in numbers]
        if names["many"]:
            counts = {n: len(_captions(self._record(n), names)) for n in numbers}
            self._rows = [
                (n, c) for n in numbers for c in (range(counts[n]) if counts[n] else [-1])
            ]

    def _record(self, number: int) -> Mapping[str, Any]:
        """One record, {} where it cannot be read."""
        try:
            with self._lock:
                return self._records[number]
        except (OSError, ValueError, RuntimeError, IndexError, KeyError):
            return {}

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Pair:
        number, caption_number = self._rows[index]
        record = self._record(number)
        suffix = f"#{caption_number}" if caption_number >= 0 else ""
        key = f"{self._prefix}#{number}{suffix}"
        if not record:
            message = f"record {number} cannot be read"
            return make_pair(Row(key, None, None, "missing_image", message), self._limit)
        own = record.get(self._names["key"])
        if own is not None:
            own = own.decode("utf-8", errors="replace") if isinstance(own, bytes) else str(own)
            key = f"{own}{suffix}"
        captions = _captions(record, self._names)
        caption = captions[max(caption_number, 0)] if captions else None
        image = record.get(self._names["image"])
        return make_pair(
            Row(key, caption, image if isinstance(image, bytes) else None), self._limit
        )


def _captions(record: Mapping[str, Any], names: Mapping[str, str]) -> list[bytes | str]:
    value = record.get(names["caption"])
    if isinstance(value, Mapping):
        value = value.get(names["many"])
    if isinstance(value, bytes | str):
        return [value]
    return [] if value is None else [v for v in value if isinstance(v, bytes | str)]


def _features(features: Any, options: SourceOptions, location: str) -> dict[str, str]:
    """The names of the image, caption and key features; "many" is set for caption sequences."""
    image = find_column(list(features), options.image_column, IMAGE_COLUMNS)
    caption = find_column(list(features), options.caption_column, CAPTION_COLUMNS)
    if image is None or caption is None or type(features[image]).__name__ != "Image":
        raise InputError(
            f"{location} has the features {', '.join(features)}; an image and a caption "
            "are wanted; name them with --columns=IMAGE,CAPTION"
        )
    many, inner = "", getattr(features[caption], "feature", None)
    if inner is not None:
        keys = list(inner) if isinstance(inner, Mapping) else []
        many = find_column(keys, "", ("text", "caption", "raw")) or "text"
    key = find_column(list(features), "", _KEY_NAMES) or ""
    return {"image": image, "caption": caption, "key": key, "many": many}


def open_tfds(location: str, options: SourceOptions) -> Source:
    """A prepared TFDS dataset in ArrayRecord format; images stay encoded (`SkipDecoding`).

    Records were shuffled when they were written: rows go by the dataset's own key feature where it
    has one, else by "SPLIT#NUMBER".

    Raises:
        InputError: not prepared as ArrayRecord, no image or caption feature, no such split.
    """
    folder = _prepared(Path(location))
    if folder is None:
        raise InputError(f"{location} holds no prepared TFDS dataset (no dataset_info.json)")
    if not any(folder.glob("*.array_record*")):
        raise InputError(
            f"{folder} is not in ArrayRecord format, the only one that reads without TensorFlow; "
            'prepare it again with file_format="array_record"'
        )
    import tensorflow_datasets as tfds  # 2 s to import
    from google.protobuf import json_format

    try:
        builder: Any = tfds.builder_from_directory(str(folder))
        names = _features(builder.info.features, options, location)
        counts = {name: info.num_examples for name, info in builder.info.splits.items()}
        wanted = select_splits(options.split, counts, location) or counts.keys()
        decoders = {names["image"]: tfds.decode.SkipDecoding()}
        records = {
            name: builder.as_data_source(name, decoders=decoders)
            for name in sorted(counts)
            if name in wanted
        }
    except (OSError, ValueError, KeyError, RuntimeError, json_format.Error) as error:
        raise InputError(f"{folder} is no readable TFDS dataset ({str(error)[:300]})") from error
    parts = [(str(folder / name), len(data)) for name, data in records.items()]
    shards = virtual_shards(parts, options.shard_size)
    if not shards:
        raise InputError(f"{location} holds no records")

    def open_shard(shard: Shard) -> RecordView:
        return RecordView(records[Path(shard.path).name], names, shard, options.max_member_bytes)

    def fingerprint(shard: Shard) -> str:
        files = sorted(folder.glob(f"*-{Path(shard.path).name}.array_record*"))
        parts = [
            file_fingerprint(file) for file in itertools.chain(files, [folder / "features.json"])
        ]
        return f"{'+'.join(parts)}-{shard.start}-{shard.stop}"

    sizes = {} if names["many"] else shard_sizes(shards)
    return Source("tfds", location, shards, open_shard, fingerprint, sizes)
