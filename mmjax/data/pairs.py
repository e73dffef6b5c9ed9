"""An image-caption set in memory: every image once, decoded, with all of its captions."""

import hashlib
import json
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32, UInt8

from mmjax.core.errors import InputError
from mmjax.data.loader import load_shard
from mmjax.data.shards import Source


class PairTable(NamedTuple):
    """Every image once, decoded, with all of its captions.

    Fields:
        images: pixels.
        captions: for each image at least one caption.
        skipped: rows of the source that could not be used, by status.
        origins: for every caption, image by image, its shard and its row there; empty for pairs
            that were not read from a source.
    """

    images: UInt8[np.ndarray, "n s s 3"]
    captions: tuple[tuple[str, ...], ...]
    skipped: dict[str, int]
    origins: tuple[tuple[str, int], ...] = ()

    @property
    def owners(self) -> Int32[np.ndarray, " m"]:
        """For every caption, image by image, the number of its image."""
        return np.repeat(
            np.arange(len(self.captions), dtype=np.int32), [len(c) for c in self.captions]
        )


class PairRow(NamedTuple):
    """Where a source's row went: the number of its caption, image by image; -1 if unusable."""

    key: str
    status: str
    message: str
    caption: int


def read_table(
    source: Source, image_size: int, *, workers: int, max_pixels: int
) -> tuple[PairTable, tuple[PairRow, ...]]:
    """Decode a set into memory, each image once however many captions it has.

    Args:
        source: what to read.
        image_size: pixels of a side; resized and cropped as CLIP does.
        workers: threads that decode.
        max_pixels: larger images are skipped.

    Returns:
        The table, and one entry for every row of the source, in its order.

    Raises:
        InputError: no row can be used.
    """
    slots: dict[str, int] = {}
    images: list[np.ndarray] = []
    captions: list[list[str]] = []
    origins: list[list[tuple[str, int]]] = []
    places: list[tuple[PairRow, int]] = []
    skipped: dict[str, int] = {}
    for shard in source.shards:
        load = load_shard(
            source.open_shard(shard),
            image_size=image_size,
            batch_size=256,
            workers=workers,
            max_pixels=max_pixels,
            library="auto",
        )
        fresh = [batch.images[batch.mask] for batch in load.batches]
        decoded = np.concatenate(fresh) if fresh else np.zeros((0,), np.uint8)
        for ordinal, record in enumerate(load.records):
            if record.status != "ok":
                skipped[record.status] = skipped.get(record.status, 0) + 1
                places.append((PairRow(record.key, record.status, record.message, -1), -1))
                continue
            slot = slots.setdefault(record.image_sha256, len(images))
            if slot == len(images):
                images.append(decoded[record.image_slot])
                captions.append([])
                origins.append([])
            places.append((PairRow(record.key, "ok", "", len(captions[slot])), slot))
            captions[slot].append(record.caption)
            origins[slot].append((shard.name, ordinal))
    if not images:
        raise InputError(
            f"{source.location} has no usable image-caption pair ({skipped or 'it is empty'})"
        )
    starts = np.cumsum([0, *(len(each) for each in captions)])
    rows = tuple(
        row if slot < 0 else row._replace(caption=int(starts[slot]) + row.caption)
        for row, slot in places
    )
    table = PairTable(
        np.stack(images),
        tuple(tuple(each) for each in captions),
        skipped,
        tuple(origin for each in origins for origin in each),
    )
    return table, rows


def fingerprint(table: PairTable) -> str:
    """The sha256, in hex, of all images and captions in their order."""
    content = hashlib.sha256(repr(table.images.shape).encode())
    content.update(np.ascontiguousarray(table.images).data)
    content.update(json.dumps(table.captions).encode())
    return content.hexdigest()
