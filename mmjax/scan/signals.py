"""The signals of a set's pairs, and of wrong pairs that are made of it (`scan/calibration.py`)."""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Bool, Float, Float32, Int64, UInt64

from mmjax.ops.correlation import centre
from mmjax.scan.blocks import EmbeddingBlock, chunks, gather
from mmjax.scan.calibration import Calibration, local_signals, pair_signals
from mmjax.scan.coarse import CoarseScores
from mmjax.scan.groups import fingerprints

STRANGERS = 20_000
"""Pairs, at most, whose captions are given other images."""
_LOOKED_AT = 8  # numbers of an embedding that a pair is drawn by


class Signals(NamedTuple):
    """Of the scored rows, and of strangers: captions of `sample` with other pairs' images.

    `sample` are places among the scored rows. There are fewer strangers where a draw brought a
    caption its own image again, or a copy of the caption.
    """

    values: Float32[np.ndarray, "s 3"]
    sample: Int64[np.ndarray, " m"]
    strangers: Float32[np.ndarray, "w 3"]


def read_signals(
    blocks: Sequence[EmbeddingBlock],
    scores: CoarseScores,
    calibration: Calibration,
    chunk_rows: int,
    *,
    mesh: Mesh | None = None,
) -> Signals:
    """Signals of a set, in one pass over its embeddings, and of strangers.

    These are drawn by fingerprints of the embeddings: the same ones whatever the order of the
    shards, the seed or an option.

    Args:
        blocks: the embeddings.
        scores: the coarse stage's.
        calibration: the clean reference.
        chunk_rows: pairs that are looked at together.
        mesh: devices that share the search for neighbours; None = one.
    """
    means = jnp.stack([jnp.asarray(scores.image_mean), jnp.asarray(scores.mean)])

    def of(image: np.ndarray, text: np.ndarray, generated: np.ndarray) -> np.ndarray:
        filled = np.zeros(text.shape[0], np.float32)
        filled[: generated.size] = generated
        captions = jnp.asarray(text, jnp.float32)
        pairs = pair_signals(jnp.asarray(image, jnp.float32), captions, filled, means)
        found = local_signals(calibration, centre(captions, means[1]), pairs, mesh=mesh)
        return found[: generated.size]

    values, drawn = [], []
    for chunk in chunks(blocks, chunk_rows, images=True):
        here = slice(chunk.start, chunk.stop)
        found = of(chunk.image, chunk.text, scores.sim_generated[here])
        values.append(found[scores.scored[here]])
        some = np.concatenate([x[:, :_LOOKED_AT] for x in (chunk.image, chunk.text)], axis=1)
        drawn.append(fingerprints(some)[: len(found)][scores.scored[here]])
    sample = _smallest(np.concatenate(drawn), STRANGERS)
    rows = np.flatnonzero(scores.scored)[sample]
    image, text = gather(blocks, rows)
    other = np.roll(np.arange(rows.size), 1)
    strange = ~(_same(image, image[other]) | _same(text, text[other]))
    generated = scores.sim_generated[rows[other]][strange]
    mixed = EmbeddingBlock(image[other][strange], text[strange], np.ones(generated.size, bool))
    strangers = [
        of(chunk.image, chunk.text, generated[chunk.start : chunk.stop])
        for chunk in chunks([mixed], chunk_rows, images=True)
    ]
    empty = np.zeros((0, 3), np.float32)
    return Signals(np.concatenate(values), sample, np.concatenate([empty, *strangers]))


def _smallest(marks: UInt64[np.ndarray, " n"], count: int) -> Int64[np.ndarray, " m"]:
    """Where the smallest are, in their order."""
    count = min(count, marks.size)
    chosen = np.argpartition(marks, count - 1)[:count] if count else np.zeros(0, np.int64)
    return chosen[np.argsort(marks[chosen], kind="stable")]


def _same(
    left: Float[np.ndarray, "m d"], right: Float[np.ndarray, "m d"]
) -> Bool[np.ndarray, " m"]:
    """Which rows are equal in half precision, in which sets are stored."""
    return np.all(left.astype(np.float16) == right.astype(np.float16), axis=1)
