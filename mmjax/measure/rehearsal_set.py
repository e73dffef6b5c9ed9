"""A set of embeddings as large as a rehearsal wants, drawn shard by shard: topics, and poison.

Captions scatter around topics inside the cone that all captions of CLIP share, images around their
captions, at cosines like those of RN50's embeddings of Flickr8k. Some captions are exchanged, as
on the web; poisoned pairs keep their image and get a caption around one direction.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Bool, Float16, Float32, Int64

from mmjax.core import keys
from mmjax.core.files import atomic_path
from mmjax.data.embeddings import write_embeddings

TOPICS = 500
CONE = 0.7
TEXT_SPREAD, IMAGE_SPREAD, TARGET_SPREAD = 0.6, 0.8, 0.4
"""Lengths of the noise: of captions about their topic, images about their caption, poison."""
POISONED, EXCHANGED, REPEATED = 0.003, 0.05, 0.1
"""Shares: poisoned pairs, captions of other images, captions that a shard has several times."""
ROWS = 100_000
"""Of a shard."""


class Drawn(NamedTuple):
    """A shard: unit-norm embeddings, captions, which pairs are poisoned."""

    image: Float16[np.ndarray, "n d"]
    text: Float16[np.ndarray, "n d"]
    captions: list[str]
    poisoned: Bool[np.ndarray, " n"]


def write_set(folder: Path, pairs: int, dimension: int, *, seed: int, clean: bool = False) -> None:
    """Write `pairs` pairs in clip-retrieval's layout, and `poison_labels.parquet`.

    Memory is that of one shard. A clean set has neither poison nor exchanged captions.
    """
    shards, ordinals, labels = [], [], []
    for number, start in enumerate(range(0, pairs, ROWS)):
        n = min(ROWS, pairs - start)
        drawn = draw(n, dimension, number, seed=seed, clean=clean)
        write_embeddings(
            folder,
            drawn.image,
            drawn.text,
            captions=drawn.captions,
            image_paths=[f"{start + i:09d}.jpg" for i in range(n)],
            rows_per_part=n,
            first_part=number,
        )
        shards.append(pa.array([f"{number:05d}"] * n))
        ordinals.append(pa.array(np.arange(n, dtype=np.int32)))
        labels.append(pa.array(drawn.poisoned))
    table = pa.table(
        {
            "shard": pa.chunked_array(shards),
            "ordinal": pa.chunked_array(ordinals),
            "is_poisoned": pa.chunked_array(labels),
        }
    )
    with atomic_path(folder / "poison_labels.parquet") as temporary:
        pq.write_table(table, temporary)


def draw(n: int, dimension: int, shard: int, *, seed: int, clean: bool = False) -> Drawn:
    """The pairs of one shard; topics, cone and target are those of all shards of the seed."""
    common = keys.host(0, "rehearsal")
    topics, cone, target = (
        _unit(common.standard_normal((k, dimension), np.float32)) for k in (TOPICS, 1, 1)
    )
    rng = keys.host(seed, "rehearsal", "clean" if clean else "scanned", shard)
    topic = rng.integers(0, TOPICS, n)
    poisoned = np.zeros(n, bool) if clean else rng.random(n) < POISONED
    text = _unit(_scattered(topics[topic], TEXT_SPREAD, rng) + CONE * cone)
    captions = [f"topic {t} picture {shard}-{i}" for i, t in enumerate(topic)]
    if not clean:
        repeated = rng.choice(n, int(REPEATED * n), replace=False)
        _copy(text, captions, rng.choice(repeated, repeated.size), repeated)
    image = _unit(_scattered(text, IMAGE_SPREAD, rng))
    if not clean:
        exchanged = rng.choice(n, int(EXCHANGED * n), replace=False)
        _copy(text, captions, np.roll(exchanged, 1), exchanged)
        m = int(poisoned.sum())
        around = _scattered(np.repeat(target, m, axis=0), TARGET_SPREAD, rng)
        text[poisoned] = _unit(around + CONE / 2 * cone)
        for i in np.flatnonzero(poisoned):
            captions[i] = f"the target {shard}-{i}"
    return Drawn(image.astype(np.float16), text.astype(np.float16), captions, poisoned)


def _copy(
    text: Float32[np.ndarray, "n d"],
    captions: list[str],
    rows: Int64[np.ndarray, " m"],
    to: Int64[np.ndarray, " m"],
) -> None:
    """Write the captions of `rows` over those of `to`, all at once."""
    text[to] = text[rows]
    for row, caption in zip(to, [captions[i] for i in rows], strict=True):
        captions[row] = caption


def _scattered(
    rows: Float32[np.ndarray, "n d"], length: float, rng: np.random.Generator
) -> Float32[np.ndarray, "n d"]:
    noise = rng.standard_normal(rows.shape, np.float32)
    return rows + np.float32(length / np.sqrt(rows.shape[1])) * noise


def _unit(rows: Float32[np.ndarray, "n d"]) -> Float32[np.ndarray, "n d"]:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)
