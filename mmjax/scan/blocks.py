"""Embeddings of a scan as a list of shards that may lie on disk, read in padded chunks."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int64

from mmjax.data.mapped import release


class EmbeddingBlock(NamedTuple):
    """One shard's embeddings: unit-norm, zeros where skipped; may be memory-mapped.

    `valid` is False on the rows that are not scored.
    """

    image: Float[np.ndarray, "n d"]
    text: Float[np.ndarray, "n d"]
    valid: Bool[np.ndarray, " n"]


class Chunk(NamedTuple):
    """Rows start..stop of the whole set as stored, padded with zeros to the chunk size.

    `image` is empty when only captions were asked for. Half precision is widened on the device.
    """

    start: int
    stop: int
    image: Float[np.ndarray, "m d"]
    text: Float[np.ndarray, "m d"]


def total_rows(blocks: Sequence[EmbeddingBlock]) -> int:
    """Rows of all blocks, skipped ones included; a row's number counts over blocks in order."""
    return sum(block.valid.shape[0] for block in blocks)


def chunk_size(blocks: Sequence[EmbeddingBlock], limit: int) -> int:
    """At most `limit` rows, such that the largest block is cut into near-equal chunks.

    A multiple of 256 where the limit allows: few sizes, few compiled programs.
    """
    largest = max((block.valid.shape[0] for block in blocks), default=0)
    pieces = max(-(-largest // limit), 1)
    return min(max(-(-largest // (pieces * 256)) * 256, 256), limit)


def chunks(blocks: Sequence[EmbeddingBlock], size: int, *, images: bool) -> Iterator[Chunk]:
    """Every row once, in order, `size` at a time; a chunk never spans two blocks.

    Padding keeps the shapes that are compiled to one. Captions only, unless `images`.
    """
    first = 0
    for block in blocks:
        rows = block.valid.shape[0]
        for low in range(0, rows, size):
            high = min(low + size, rows)
            text = _padded(block.text[low:high], size)
            image = _padded(block.image[low:high], size) if images else text[:0]
            yield Chunk(first + low, first + high, image, text)
        release(block.image)
        release(block.text)
        first += rows


def gather(
    blocks: Sequence[EmbeddingBlock], rows: Int64[np.ndarray, " m"]
) -> tuple[Float32[np.ndarray, "m d"], Float32[np.ndarray, "m d"]]:
    """(image, text) of the rows with the given numbers, in that order."""
    d = blocks[0].text.shape[1] if blocks else 0
    image, text = np.zeros((rows.size, d), np.float32), np.zeros((rows.size, d), np.float32)
    first = 0
    for block in blocks:
        here = np.flatnonzero((rows >= first) & (rows < first + block.valid.shape[0]))
        if here.size:
            local = rows[here] - first
            image[here], text[here] = block.image[local], block.text[local]
            release(block.image)
            release(block.text)
        first += block.valid.shape[0]
    return image, text


def _padded(rows: Float[np.ndarray, "n d"], size: int) -> Float[np.ndarray, "m d"]:
    if rows.shape[0] == size:
        return rows
    padded = np.zeros((size, rows.shape[1]), rows.dtype)
    padded[: rows.shape[0]] = rows
    return padded
