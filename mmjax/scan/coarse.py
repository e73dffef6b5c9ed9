"""The coarse stage: consistency of every pair, its mixture, the three sets (CFBD section 2.2)."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int8, Int64

from mmjax.ops.consistency import consistency
from mmjax.ops.gmm import BLOCK, Mixture, coverage_cut, posterior
from mmjax.scan.blocks import EmbeddingBlock, chunks, total_rows
from mmjax.scan.mapping import Form, Mapping, PyTree, form_of, predict

COARSE = ("", "benign", "seed", "suspicious")
UNSCORED, BENIGN, SEED, SUSPICIOUS = range(4)
_BLOCKS = (512, 256)
"""Rows whose widened copies stay in a cache; a chunk of other sizes is scored whole."""


class CoarseScores(NamedTuple):
    """Scores of all rows in order; zero where `scored` is False.

    `scored` are the valid rows whose two embeddings are finite and not zero; `mean` is their mean
    caption, `image_mean` their mean image.
    """

    sim_original: Float32[np.ndarray, " n"]
    sim_generated: Float32[np.ndarray, " n"]
    scored: Bool[np.ndarray, " n"]
    mean: Float32[np.ndarray, " d"]
    image_mean: Float32[np.ndarray, " d"]

    @property
    def absolute(self) -> Float32[np.ndarray, " n"]:
        """Consistency c of Eq. 4."""
        return np.abs(self.sim_generated - self.sim_original)

    @property
    def signed(self) -> Float32[np.ndarray, " n"]:
        """(s_g - s_o)+, what robust mode ranks by."""
        return np.maximum(self.sim_generated - self.sim_original, 0.0)


class Assignment(NamedTuple):
    """Component of the largest posterior, and the posterior of the lowest-mean component."""

    component: Int8[np.ndarray, " n"]
    lowest: Float32[np.ndarray, " n"]


def score_blocks(
    blocks: Sequence[EmbeddingBlock], mapping: Mapping, chunk_rows: int
) -> CoarseScores:
    """s_o, s_g and the means in one pass over the embeddings, `chunk_rows` at a time."""
    rows = total_rows(blocks)
    d = blocks[0].text.shape[1] if blocks else mapping.dim
    form = form_of(mapping, d)
    valid = np.concatenate([b.valid for b in blocks]) if blocks else np.zeros(0, bool)
    original, generated = np.zeros(rows, np.float32), np.zeros(rows, np.float32)
    scored, total = np.zeros(rows, bool), np.zeros((2, d), np.float64)
    for chunk in chunks(blocks, chunk_rows, images=True):
        here, n = slice(chunk.start, chunk.stop), chunk.stop - chunk.start
        mask = np.zeros(chunk_rows, bool)
        mask[:n] = valid[here]
        found = _score_chunk(mapping.params, chunk.image, chunk.text, mask, form)
        original[here], generated[here], scored[here] = (np.asarray(x)[:n] for x in found[:3])
        total += np.asarray(found[3])
    image_mean, mean = (total / max(int(scored.sum()), 1)).astype(np.float32)
    return CoarseScores(original, generated, scored, mean, image_mean)


def assign(mixture: Mixture, values: Float32[np.ndarray, " n"]) -> Assignment:
    """Posteriors of the mixture, a block at a time."""
    parameters = [
        jnp.asarray(p, jnp.float32) for p in (mixture.means, mixture.variances, mixture.weights)
    ]
    component, lowest = np.zeros(values.shape, np.int8), np.zeros(values.shape, np.float32)
    for low in range(0, values.size, BLOCK):
        block = np.zeros(BLOCK, np.float32)
        part = values[low : low + BLOCK]
        block[: part.size] = part
        probability = np.asarray(posterior(jnp.asarray(block), *parameters))[: part.size]
        component[low : low + part.size] = probability.argmax(axis=1)
        lowest[low : low + part.size] = probability[:, 0]
    return Assignment(component, lowest)


def benign_rows(
    mixture: Mixture,
    values: Float32[np.ndarray, " n"],
    lowest: Float32[np.ndarray, " n"],
    gamma: float,
    select: str,
) -> Bool[np.ndarray, " n"]:
    """D_b, by coverage (c below a cut) or by the posterior of the lowest component >= gamma."""
    if select == "coverage":
        return values <= coverage_cut(mixture, gamma)
    return lowest >= gamma


def partition(
    scored: Bool[np.ndarray, " n"], benign: Bool[np.ndarray, " n"], seeds: Int64[np.ndarray, " q"]
) -> Int8[np.ndarray, " n"]:
    """Codes into `COARSE`: D_b, D_p, D_s are disjoint; where D_p meets D_b, D_p wins."""
    codes = np.full(scored.shape, SUSPICIOUS, np.int8)
    codes[benign] = BENIGN
    codes[seeds] = SEED
    codes[~scored] = UNSCORED
    return codes


@jax.jit(static_argnames="form")
def _score_chunk(
    params: PyTree,
    image: Float[Array, "n d"],
    text: Float[Array, "n d"],
    mask: Bool[Array, " n"],
    form: Form,
) -> tuple[Array, Array, Array, Array]:
    """(s_o, s_g, which rows are scored, sums of images and captions) of a chunk.

    A block of rows at a time: a CPU then gets no fresh pages for what is widened.
    """

    def score(rows: tuple[Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
        image, text, usable, sums = _prepare(*rows)
        scores = consistency(image, text, predict(params, image, form), usable)
        return scores.sim_original, scores.sim_generated, usable, sums

    n, d = image.shape
    size = next((size for size in _BLOCKS if n % size == 0), n)
    blocks = image.reshape(-1, size, d), text.reshape(-1, size, d), mask.reshape(-1, size)
    original, generated, usable, sums = jax.lax.map(score, blocks)
    return original.reshape(n), generated.reshape(n), usable.reshape(n), sums.sum(axis=0)


def _prepare(
    image: Float[Array, "n d"], text: Float[Array, "n d"], mask: Bool[Array, " n"]
) -> tuple[Array, Array, Array, Array]:
    """(image, text, which rows are scored, their two sums): float32, unusable rows zero."""
    image, text = image.astype(jnp.float32), text.astype(jnp.float32)
    for rows in (image, text):
        square = jnp.sum(rows * rows, axis=-1)
        mask = mask & jnp.isfinite(square) & (square > 0)
    image, text = (jnp.where(mask[:, None], rows, 0.0) for rows in (image, text))
    return image, text, mask, jnp.stack([jnp.sum(image, axis=0), jnp.sum(text, axis=0)])
