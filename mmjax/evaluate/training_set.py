"""Sets to train on, in memory row by row: clean, poisoned, and what a scan keeps of them."""

import dataclasses
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq
from jaxtyping import Bool, Int64, UInt8

from mmjax.attacks.config import AttackConfig
from mmjax.attacks.poison import LABELS, MANIFEST, poison
from mmjax.core.errors import InputError
from mmjax.core.types import Pair
from mmjax.data.images import decode
from mmjax.data.pairs import PairTable, read_table
from mmjax.data.shards import Source
from mmjax.data.sources import open_source


class TrainingSet(NamedTuple):
    """The pairs of a source, a row each, in its order.

    Fields:
        images: pixels.
        captions: one an image; several rows may hold the same image.
        rows: numbers of the source's rows that these are; the others could not be read.
    """

    images: UInt8[np.ndarray, "n s s 3"]
    captions: tuple[str, ...]
    rows: Int64[np.ndarray, " n"]

    def table(self, kept: Bool[np.ndarray, " m"] | None = None) -> PairTable:
        """What `train` learns from: all pairs, or those of the source's rows that are kept."""
        chosen = np.flatnonzero(np.ones(len(self.rows), bool) if kept is None else kept[self.rows])
        captions = tuple((self.captions[row],) for row in chosen)
        return PairTable(self.images[chosen], captions, {})


class Victims(NamedTuple):
    """The poisoned rows of a set: their numbers, and what they are now."""

    rows: Int64[np.ndarray, " k"]
    pairs: tuple[Pair, ...]


def read_set(source: Source, image_size: int, *, workers: int = 2) -> TrainingSet:
    """Decode all pairs of a source.

    Raises:
        InputError: no row can be used.
    """
    table, places = read_table(source, image_size, workers=workers, max_pixels=25_000_000)
    texts = [text for each in table.captions for text in each]
    rows = np.array([row for row, place in enumerate(places) if place.caption >= 0], np.int64)
    numbers = [places[row].caption for row in rows]
    images = table.images[table.owners[numbers]]
    return TrainingSet(images, tuple(texts[number] for number in numbers), rows)


def poisoned_copy(source: Source, config: AttackConfig, folder: Path) -> Victims:
    """Poison a copy of a set as `mmjax attack` does, once, and read what it changed.

    Clean files are copied as they are: who compares pixels finds the trigger alone, where the
    images have the stored size already.

    Raises:
        ConfigError: the set does not offer what the attack wants.
    """
    if not (folder / MANIFEST).exists():
        poison(source, folder, dataclasses.replace(config, geometry="original"))
    labels = pq.read_table(folder / LABELS, columns=["is_poisoned"])["is_poisoned"].to_numpy()
    rows = np.flatnonzero(labels)
    copy = open_source(str(folder))
    views = [copy.open_shard(shard) for shard in copy.shards]
    starts = np.cumsum([0, *(len(view) for view in views)])
    if starts[-1] != len(labels):
        raise InputError(f"{folder} has {starts[-1]} pairs and {len(labels)} labels; remove it")
    shards = np.searchsorted(starts, rows, side="right") - 1
    pairs = [views[n][int(row - starts[n])] for n, row in zip(shards, rows, strict=True)]
    return Victims(rows.astype(np.int64), tuple(pairs))


def with_victims(clean: TrainingSet, victims: Victims) -> TrainingSet:
    """A clean set with the poisoned pairs in the place of their clean ones."""
    images, captions = clean.images.copy(), list(clean.captions)
    places = np.searchsorted(clean.rows, victims.rows)
    if not np.array_equal(clean.rows[places % len(clean.rows)], victims.rows):
        raise InputError("a poisoned pair has no clean one in the set")
    for place, pair in zip(places, victims.pairs, strict=True):
        images[place] = decode(pair.image or b"", images.shape[1])
        captions[place] = pair.caption or ""
    return clean._replace(images=images, captions=tuple(captions))
