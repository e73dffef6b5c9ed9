"""An image-caption set: every image once, decoded, with all of its captions."""

import hashlib
import json
import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32

from mmjax.core.errors import InputError
from mmjax.data.loader import load_shard
from mmjax.data.shards import Source
from mmjax.data.stored_images import Images, StoredImages


class PairTable(NamedTuple):
    """Every image once, decoded, with all of its captions.

    Fields:
        images: pixels, uint8 [n, s, s, 3]: an array, or where memory cannot hold it, rows of one.
        captions: for each image at least one caption.
        skipped: rows of the source that could not be used, by status.
        origins: for every caption, image by image, its shard and its row there; empty for pairs
            that were not read from a source.
    """

    images: Images
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
    source: Source,
    image_size: int,
    *,
    workers: int,
    max_pixels: int,
    memory: float = math.inf,
) -> tuple[PairTable, tuple[PairRow, ...]]:
    """Decode a set, each image once however many captions it has.

    Args:
        source: what to read.
        image_size: pixels of a side; resized and cropped as CLIP does.
        workers: threads that decode.
        max_pixels: larger images are skipped.
        memory: bytes that decoded images may take; of a larger set they are decoded with every
            access (`StoredImages`).

    Returns:
        The table, and one entry for every row of the source, in its order.

    Raises:
        InputError: no row can be used.
    """
    slots: dict[str, int] = {}  # by the sha256 of an image's file
    images: list[np.ndarray] = []
    homes: list[tuple[int, int]] = []
    room = memory / (image_size * image_size * 3)
    captions: list[list[str]] = []
    origins: list[list[tuple[str, int]]] = []
    places: list[tuple[PairRow, int]] = []
    skipped: dict[str, int] = {}
    for number, shard in enumerate(source.shards):
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
            slot = slots.setdefault(record.image_sha256, len(homes))
            if slot == len(homes):
                homes.append((number, ordinal))
                if len(homes) <= room:
                    images.append(decoded[record.image_slot])
                else:
                    images.clear()
                captions.append([])
                origins.append([])
            places.append((PairRow(record.key, "ok", "", len(captions[slot])), slot))
            captions[slot].append(record.caption)
            origins[slot].append((shard.name, ordinal))
    if not homes:
        raise InputError(
            f"{source.location} has no usable image-caption pair ({skipped or 'it is empty'})"
        )
    starts = np.cumsum([0, *(len(each) for each in captions)])
    rows = tuple(
        row if slot < 0 else row._replace(caption=int(starts[slot]) + row.caption)
        for row, slot in places
    )
    table = PairTable(
        np.stack(images)
        if images
        else StoredImages(
            source, homes, list(slots), image_size, workers=workers, max_pixels=max_pixels
        ),
        tuple(tuple(each) for each in captions),
        skipped,
        tuple(origin for each in origins for origin in each),
    )
    return table, rows


def fingerprint(table: PairTable) -> str:
    """The sha256, in hex, of all images and captions in their order."""
    content = hashlib.sha256(repr(table.images.shape).encode())
    if isinstance(table.images, StoredImages):
        content.update(table.images.fingerprint.encode())
    else:
        content.update(np.ascontiguousarray(table.images[:]).data)
    content.update(json.dumps(table.captions).encode())
    return content.hexdigest()
