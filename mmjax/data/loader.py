"""Reads and decodes the pairs of one shard in a pool of threads, every distinct image once.

Pillow and simplejpeg release the GIL, so threads scale. What comes out does not depend on the
number of workers: rows keep their order, and images are numbered by their first row.
"""

import collections
import contextlib
import hashlib
import threading
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, UInt8

from mmjax.core.errors import ConfigError, ImageError
from mmjax.core.types import Pair
from mmjax.data.images import MAX_PIXELS, Library, decode
from mmjax.data.shards import ShardView


class ImageBatch(NamedTuple):
    """Distinct images in the order of their slots; rows where `mask` is False are zero padding."""

    images: UInt8[np.ndarray, "batch size size 3"]
    mask: Bool[np.ndarray, " batch"]


class Record(NamedTuple):
    """What is known of one row without its pixels.

    `caption` is "" where there is none, `image_sha256` "" where there are no image bytes.
    `image_slot` is the image's number among the distinct images of the shard, -1 when the row is
    not `ok`.
    """

    key: str
    caption: str
    status: str
    message: str
    flags: tuple[str, ...]
    image_sha256: str
    image_slot: int


class ShardLoad(NamedTuple):
    """`records` has one entry per row, in order, complete when `batches` is consumed."""

    batches: Iterator[ImageBatch]
    records: list[Record]


class _Decoded(NamedTuple):
    """Pixels, or the status and message of an image that has none."""

    pixels: UInt8[np.ndarray, "size size 3"] | None
    status: str = "ok"
    message: str = ""


class _Decoder:
    """Decodes each distinct file once; the first thread that sees a file claims it."""

    def __init__(self, size: int, max_pixels: int, library: Library):
        self._size, self._max_pixels = size, max_pixels
        self._library: Library = library
        self._lock = threading.Lock()
        self._claims: dict[str, Future[_Decoded]] = {}

    def add(self, digest: str, data: bytes) -> Future[_Decoded]:
        """The future of the file's pixels; it is done, or another thread is at it."""
        with self._lock:
            known = self._claims.get(digest)
            claim = known or self._claims.setdefault(digest, Future())
        if known is None:
            try:
                claim.set_result(self._decode(data))
            except BaseException as error:
                claim.set_exception(error)
                raise
        return claim

    def _decode(self, data: bytes) -> _Decoded:
        try:
            pixels = decode(data, self._size, max_pixels=self._max_pixels, library=self._library)
        except ImageError as error:
            return _Decoded(None, error.status, str(error))
        return _Decoded(pixels)

    def forget(self, digest: str, outcome: _Decoded) -> None:
        """Drops the pixels of a file that has its slot; later rows only need its outcome."""
        done: Future[_Decoded] = Future()
        done.set_result(outcome._replace(pixels=None))
        with self._lock:
            self._claims[digest] = done


class _Read(NamedTuple):
    """A row as a worker leaves it: without the image's bytes."""

    pair: Pair
    digest: str
    image: Future[_Decoded] | None


def load_shard(
    view: ShardView,
    *,
    image_size: int,
    batch_size: int,
    workers: int,
    max_pixels: int = MAX_PIXELS,
    library: Library = "auto",
) -> ShardLoad:
    """Loads a shard; nothing is read before the batches are asked for.

    Args:
        view: the shard's pairs; it is read from several threads.
        image_size: pixels of a side of the decoded images.
        batch_size: images in every batch, the padded last one too.
        workers: threads that read and decode.
        max_pixels: larger images become `oversized_image` rows.
        library: what decodes JPEG (see `images.decode`).

    Returns:
        The batches of distinct images, and the records of all rows. An error that is not about one
        image is raised by the iteration, at the row where it happened.

    Raises:
        ConfigError: a number below 1.
    """
    numbers = {"image_size": image_size, "batch_size": batch_size, "workers": workers}
    for name, value in numbers.items():
        if value < 1:
            raise ConfigError(f"{name} must be at least 1, got {value}")
    records: list[Record] = []
    decoder = _Decoder(image_size, max_pixels, library)
    ahead = batch_size + 4 * workers
    images = _distinct_images(_read_rows(view, decoder, workers, ahead), decoder, records)
    return ShardLoad(_batch(images, batch_size, image_size), records)


def _read_rows(view: ShardView, decoder: _Decoder, workers: int, ahead: int) -> Generator[_Read]:
    """Rows in order, at most `ahead` of them started before they are asked for."""

    def read(row: int) -> _Read:
        pair = view[row]
        if pair.image is None:
            return _Read(_settle(pair), "", None)
        digest = hashlib.sha256(pair.image).hexdigest()
        settled = _settle(pair)
        image = decoder.add(digest, pair.image) if settled.status == "ok" else None
        return _Read(settled._replace(image=None), digest, image)

    with contextlib.ExitStack() as stack:
        pool = ThreadPoolExecutor(workers, thread_name_prefix="mmjax-decode")
        stack.callback(pool.shutdown, wait=True, cancel_futures=True)
        started: collections.deque[Future[_Read]] = collections.deque()
        for row in range(len(view)):
            started.append(pool.submit(read, row))
            if len(started) >= ahead:
                yield started.popleft().result()
        while started:
            yield started.popleft().result()


def _settle(pair: Pair) -> Pair:
    """Gives a row that lacks its image or caption the status that says so."""
    if pair.status == "ok" and pair.image is None:
        return pair._replace(status="missing_image", message="a caption without an image")
    if pair.status == "ok" and not (pair.caption or "").strip():
        return pair._replace(status="missing_caption", message="no caption, or an empty one")
    return pair


def _distinct_images(
    rows: Generator[_Read], decoder: _Decoder, records: list[Record]
) -> Generator[UInt8[np.ndarray, "size size 3"]]:
    """Yields each new image's pixels and appends a record for every row."""
    slots: dict[str, int] = {}
    with contextlib.closing(rows):
        for pair, digest, image in rows:
            status, message, slot = pair.status, pair.message, -1
            fresh = None
            if image is not None:
                outcome = image.result()
                status, message = outcome.status, outcome.message
                if digest not in slots and outcome.pixels is not None:
                    slots[digest], fresh = len(slots), outcome.pixels
                    decoder.forget(digest, outcome)
                slot = slots.get(digest, -1)
            caption = pair.caption or ""
            records.append(Record(pair.key, caption, status, message, pair.flags, digest, slot))
            if fresh is not None:
                yield fresh


def _batch(
    images: Generator[UInt8[np.ndarray, "size size 3"]], batch_size: int, size: int
) -> Iterator[ImageBatch]:
    with contextlib.closing(images):
        batch, filled = np.zeros((batch_size, size, size, 3), np.uint8), 0
        for image in images:
            batch[filled] = image
            filled += 1
            if filled == batch_size:
                yield ImageBatch(batch, np.ones(batch_size, np.bool_))
                batch, filled = np.zeros_like(batch), 0
        if filled:
            yield ImageBatch(batch, np.arange(batch_size) < filled)
