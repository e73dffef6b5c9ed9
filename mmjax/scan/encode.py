"""One pass over the pairs: every distinct image and caption of a shard is embedded once.

On a CPU a batch is embedded `PART` rows at a time. No slower in a trial, and an embedding then
was the same to the last bit whatever the batch, the number of devices and the rows around it (in
float32; bfloat16 and processors with AMX were not tried): products
of other shapes add up in another order, and what moves a number by 1e-7 may move its float16 to the
next one.
"""

import collections
import dataclasses
import itertools
import os
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
from jax import lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Float16, Int32, UInt8

from mmjax.core.mesh import DATA, batch_sharding, replicated
from mmjax.core.progress import Meter
from mmjax.data.loader import Record, ShardLoad, load_shard
from mmjax.data.shards import ShardView
from mmjax.data.tokenizer import Tokenizer, bucket_length
from mmjax.models.clip import Variables, build, freeze
from mmjax.models.weights import Weights
from mmjax.scan.config import EncodeConfig

PART = 16
"""Rows that a CPU embeds at a time."""
IN_FLIGHT = 2
"""Batches that accelerators may have ahead of the host: one computes while the next is copied.

A CPU gets one at a time: no slower in a trial (two cores), and once, on another machine, three in
flight were not seen to end. The cause is not known, and it could not be provoked again.
"""


@dataclasses.dataclass(frozen=True)
class EncodedShard:
    """The embeddings of one shard, one row a pair; rows that have none are zero.

    Attributes:
      image: [n, d] unit-norm, rounded to float16.
      text: [n, d] the same of the captions.
      records: one a row, with its status.
      warnings: what of the shard could not be read.
    """

    image: Float16[np.ndarray, "n d"]
    text: Float16[np.ndarray, "n d"]
    records: tuple[Record, ...]
    warnings: tuple[str, ...]

    @property
    def valid(self) -> Bool[np.ndarray, " n"]:
        """Which rows can be scored."""
        return np.array([r.status == "ok" for r in self.records], dtype=bool)


@dataclasses.dataclass(frozen=True)
class Encoder:
    """Frozen towers on a mesh, with the tokenizer and the batch shapes that they are compiled for.

    `embed_images` and `embed_text` are jitted; batches are global and sharded over `data`, and
    have a multiple of `rows` rows.
    """

    embed_images: Callable[[UInt8[Array, "b h w 3"]], Array]
    embed_text: Callable[[Int32[Array, "b l"]], Array]
    tokenizer: Tokenizer
    config: EncodeConfig
    mesh: Mesh
    image_size: int
    dim: int
    precision: str
    rows: int


def make_encoder(
    weights: Weights, tokenizer: Tokenizer, config: EncodeConfig, *, mesh: Mesh
) -> Encoder:
    """Freeze the towers and put them on the mesh.

    Args:
        weights: a CLIP model.
        tokenizer: its tokenizer.
        config: batch sizes (rounded up to what the mesh wants), precision, decoder.
        mesh: parameters are replicated on it, batches are split over its data axis.
    """
    towers, variables = freeze(build(weights.preset), weights.variables, config.precision)
    variables = jax.device_put(variables, replicated(mesh))
    part = PART if towers.policy.backend == "cpu" else 0
    images, text = (_jitted(f, part, mesh) for f in (towers.encode_image, towers.encode_text))
    return Encoder(
        embed_images=lambda batch: images(variables, batch),
        embed_text=lambda batch: text(variables, batch),
        tokenizer=tokenizer,
        config=config,
        mesh=mesh,
        image_size=weights.preset.vision.image_size,
        dim=weights.preset.embed_dim,
        precision=towers.policy.compute,
        rows=max(part, 1) * mesh.shape[DATA],
    )


def _jitted(encode: Callable[..., Array], part: int, mesh: Mesh) -> Callable[..., Array]:
    """`encode(variables, rows)` over the mesh, `part` rows at a time; 0 = all of a device's."""
    over = encode
    if part:
        own = by_parts(encode, part)
        over = jax.shard_map(own, mesh=mesh, in_specs=(P(), P(DATA)), out_specs=P(DATA))
    whole, split = replicated(mesh), batch_sharding(mesh)
    return jax.jit(over, in_shardings=(whole, split), out_shardings=split)


def by_parts(encode: Callable[..., Array], part: int = PART) -> Callable[..., Array]:
    """`encode(variables, rows)` so many rows at a time, of which there is a multiple."""

    def run(variables: Variables, rows: Array) -> Array:
        parts = rows.reshape(-1, part, *rows.shape[1:])
        return lax.map(lambda each: encode(variables, each), parts).reshape(len(rows), -1)

    return run


def encode_views(
    encoder: Encoder, views: Iterable[ShardView], meter: Meter | None = None
) -> Generator[EncodedShard]:
    """Embed shards one after another; the first images of each are decoded during the one before.

    Args:
        encoder: from `make_encoder`.
        views: the shards; each is taken when the one before it begins.
        meter: told of every row done.

    Yields:
        One row per pair of the view, in its order. A row whose embedding is not finite gets the
        status `nonfinite_embedding`.
    """
    following = iter(views)
    with ThreadPoolExecutor(1, thread_name_prefix="mmjax-next-shard") as ahead:
        begun = ahead.submit(_begin, encoder, following)
        while (shard := begun.result()) is not None:
            begun = ahead.submit(_begin, encoder, following)
            yield _encode(encoder, *shard, meter)


def encode_shard(encoder: Encoder, view: ShardView, meter: Meter | None = None) -> EncodedShard:
    """Embed the pairs of one shard, as `encode_views` does."""
    (encoded,) = encode_views(encoder, [view], meter)
    return encoded


def _begin(encoder: Encoder, views: Iterator[ShardView]) -> tuple[ShardView, ShardLoad] | None:
    """The next shard, its first batch decoded; None after the last."""
    view = next(views, None)
    if view is None:
        return None
    config = encoder.config
    load = load_shard(
        view,
        image_size=encoder.image_size,
        batch_size=_rounded(config.batch_size, encoder.rows),
        workers=config.workers or len(os.sched_getaffinity(0)),
        max_pixels=config.max_image_pixels,
        library=config.decoder,
    )
    first = list(itertools.islice(load.batches, 1))
    return view, load._replace(batches=itertools.chain(first, load.batches))


def _encode(
    encoder: Encoder, view: ShardView, load: ShardLoad, meter: Meter | None
) -> EncodedShard:
    sharding = batch_sharding(encoder.mesh)

    def image_batches() -> Iterator[tuple[Array, int]]:
        for batch in load.batches:
            yield (
                encoder.embed_images(jax.device_put(batch.images, sharding)),
                int(batch.mask.sum()),
            )

    unique_images = _collect(image_batches(), encoder.dim, meter)
    records = load.records
    if meter is not None:
        meter.update(len(records) - len(unique_images))
    slots = np.array([r.image_slot for r in records], dtype=np.int64)
    ok = np.array([r.status == "ok" for r in records], dtype=bool)
    captions = [r.caption for r, good in zip(records, ok, strict=True) if good]
    text_rows, truncated = _encode_captions(encoder, captions)
    image = np.zeros((len(records), encoder.dim), np.float16)
    text = np.zeros((len(records), encoder.dim), np.float16)
    image[ok] = unique_images[slots[ok]]
    text[ok] = text_rows
    cut = np.zeros(len(records), dtype=bool)
    cut[ok] = truncated
    finite = np.isfinite(image).all(axis=1) & np.isfinite(text).all(axis=1)
    finite &= image.any(axis=1) & text.any(axis=1)
    for bad in np.flatnonzero(ok & ~finite):
        image[bad] = text[bad] = 0
    final = tuple(
        _with_findings(record, failed=bool(good and not fine), truncated=bool(short))
        for record, good, fine, short in zip(
            records, *np.stack([ok, finite, cut]).tolist(), strict=True
        )
    )
    return EncodedShard(image, text, final, view.warnings)


def _with_findings(record: Record, *, failed: bool, truncated: bool) -> Record:
    if failed:
        record = record._replace(
            status="nonfinite_embedding", message="the model's embedding is not finite or zero"
        )
    if truncated:
        record = record._replace(flags=(*record.flags, "caption_truncated"))
    return record


def _encode_captions(
    encoder: Encoder, captions: list[str]
) -> tuple[Float16[np.ndarray, "n d"], Bool[np.ndarray, " n"]]:
    """Embeddings of captions and which of them were cut; equal captions are embedded once.

    Captions are grouped by the shortest bucket that holds them: exact, because attention is causal
    and pooling is at the end-of-text token.
    """
    if not captions:
        return np.zeros((0, encoder.dim), np.float16), np.zeros(0, dtype=bool)
    distinct, inverse = np.unique(np.array(captions, dtype=object), return_inverse=True)
    tokens = encoder.tokenizer.encode(list(distinct))
    context = encoder.tokenizer.context_length
    buckets = np.array([bucket_length(int(n), context) for n in tokens.lengths])
    embedded = np.zeros((len(distinct), encoder.dim), np.float16)
    size = _rounded(encoder.config.text_batch_size, encoder.rows)
    sharding = batch_sharding(encoder.mesh)
    for bucket in np.unique(buckets):
        rows = np.flatnonzero(buckets == bucket)

        def batches(
            rows: np.ndarray = rows, bucket: int = int(bucket)
        ) -> Iterator[tuple[Array, int]]:
            for start in range(0, len(rows), size):
                part = rows[start : start + size]
                # padding repeats a caption: finite, and dropped again
                padded = np.resize(part, size)
                ids = tokens.ids[padded, :bucket]
                yield encoder.embed_text(jax.device_put(ids, sharding)), len(part)

        embedded[rows] = _collect(batches(), encoder.dim, None)
    return embedded[inverse], tokens.truncated[inverse]


def _collect(
    batches: Iterator[tuple[Array, int]], dim: int, meter: Meter | None
) -> Float16[np.ndarray, "n d"]:
    """The first `count` rows of every batch, keeping `IN_FLIGHT` of them on accelerators."""
    ahead = 0 if jax.default_backend() == "cpu" else IN_FLIGHT
    waiting: collections.deque[tuple[Array, int]] = collections.deque()
    done: list[np.ndarray] = []

    def take() -> None:
        embeddings, count = waiting.popleft()
        done.append(np.asarray(embeddings)[:count].astype(np.float16))
        if meter is not None:
            meter.update(count)

    for item in batches:
        waiting.append(item)
        if len(waiting) > ahead:
            take()
    while waiting:
        take()
    return np.concatenate(done) if done else np.zeros((0, dim), np.float16)


def _rounded(size: int, rows: int) -> int:
    """`size` rounded up to a multiple of `rows`."""
    return -(-size // rows) * rows
