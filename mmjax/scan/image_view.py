"""Wrong pairs whose images are alike: a trigger that the encoder sees.

Which pairs are wrong is first told from captions (`scan/neighbourhood.py`). Wrong pairs of chance
have all sorts of images; those of an attacker share a trigger, and so perhaps a direction of the
image embeddings. A ridge regression of the probabilities of wrong pairs on the images, fitted in
closed form, says how far each image lies along such a direction. It never judges an image that it
was fitted on: the prediction for an image leaves all of its pairs out, exactly,

    g_i = (x_i b - h_i y_i) / (1 - h_i)        h_i = n_i x_i A^-1 x_i,  b = A^-1 sum_j n_j x_j y_j,

with x_i the centred image, y_i the mean of its n_i pairs' probabilities less that of all, and A
the second moments plus the ridge. With Gaussians of one variance (that of the right pairs),

    log_ratio = log p(g | wrong) / p(g | right) = shift / deviation^2 (g - middle).

The shift counts only as far as it exceeds `SURE` standard errors: where the encoder does not see
the trigger, or nobody planted one, the log ratio is 0. It is added to that of the pair's own
signals once. Fed back into the regression it would find directions in any set.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Float64, Int64

from mmjax.scan.blocks import EmbeddingBlock, chunks

RIDGE = 0.1
"""Times the mean eigenvalue of the second moments."""
SURE = 2.0
LARGEST = 3.0
"""Bound of the log ratio, on both sides."""


def image_log_ratios(
    blocks: Sequence[EmbeddingBlock],
    scored: Int64[np.ndarray, " n"],
    image_of: Int64[np.ndarray, " n"],
    mean: Float32[np.ndarray, " d"],
    wrong: Float[np.ndarray, " n"],
    chunk_rows: int,
) -> Float32[np.ndarray, " n"]:
    """Log p(image | wrong pair) / p(image | right pair) of the scored pairs.

    Cost 4 n d^2 FLOP in two passes over the images.

    Args:
        blocks: the embeddings.
        scored: rows that count.
        image_of: the number of every one's image; equal images have one number.
        mean: mean image.
        wrong: probability that the pair is a wrong one, in [0, 1], judged without its image's
            looks.
        chunk_rows: most embeddings read at a time.
    """
    if not scored.size:
        return np.zeros(0, np.float32)
    pairs = np.bincount(image_of)
    share = (np.bincount(image_of, wrong) / np.maximum(pairs, 1) - wrong.mean())[image_of]
    offset, weight = jnp.asarray(mean), pairs[image_of]
    d = mean.shape[0]
    moments, slope = np.zeros((d, d)), np.zeros(d)
    for image, here in _images(blocks, scored, chunk_rows):
        y = np.zeros(image.shape[0], np.float32)
        y[: here.size] = share[here]
        used = jnp.asarray(np.arange(image.shape[0]) < here.size)
        part = _moments(jnp.asarray(image), offset, used, jnp.asarray(y))
        moments += np.asarray(part[0], np.float64)
        slope += np.asarray(part[1], np.float64)
    ridge = RIDGE * max(np.trace(moments) / d, 1e-12)
    inverse = np.linalg.inv(moments + ridge * np.eye(d))
    weights = jnp.asarray(inverse @ slope, jnp.float32), jnp.asarray(inverse, jnp.float32)
    predicted, leverage = np.zeros(scored.size), np.zeros(scored.size)
    for image, here in _images(blocks, scored, chunk_rows):
        part = _predict(jnp.asarray(image), offset, *weights)
        predicted[here], leverage[here] = (np.asarray(v)[: here.size] for v in part)
    own = np.clip(weight * leverage, 0, 0.99)
    return _log_ratio((predicted - own * share) / (1 - own), wrong)


def _log_ratio(
    value: Float64[np.ndarray, " n"], wrong: Float[np.ndarray, " n"]
) -> Float32[np.ndarray, " n"]:
    """Of one Gaussian a class, fitted with the classes' probabilities for weights."""
    wrong = np.clip(wrong, 1e-9, 1 - 1e-9)
    right = 1 - wrong
    low, high = np.average(value, weights=right), np.average(value, weights=wrong)
    deviation = max(np.sqrt(np.average((value - low) ** 2, weights=right)), 1e-12)
    error = deviation / np.sqrt(np.sum(wrong))
    shift = max(high - low - SURE * error, 0.0)
    ratio = shift / deviation**2 * (value - low - shift / 2)
    return np.clip(ratio, -LARGEST, LARGEST).astype(np.float32)


def _images(blocks: Sequence[EmbeddingBlock], scored: Int64[np.ndarray, " n"], chunk_rows: int):
    """(the scored images of a chunk, zeros behind them; their numbers among the scored)."""
    for chunk in chunks(blocks, chunk_rows, images=True):
        here = np.arange(*np.searchsorted(scored, (chunk.start, chunk.stop)))
        image = np.zeros_like(chunk.image)
        image[: here.size] = chunk.image[scored[here] - chunk.start]
        yield image, here


@jax.jit
def _moments(
    image: Float[Array, "n d"],
    mean: Float[Array, " d"],
    used: Bool[Array, " n"],
    share: Float[Array, " n"],
) -> tuple[Float[Array, "d d"], Float[Array, " d"]]:
    x = jnp.where(used[:, None], image.astype(jnp.float32) - mean[None, :], 0.0)
    return x.T @ x, share @ x


@jax.jit
def _predict(
    image: Float[Array, "n d"],
    mean: Float[Array, " d"],
    slope: Float[Array, " d"],
    inverse: Float[Array, "d d"],
) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
    x = image.astype(jnp.float32) - mean[None, :]
    return x @ slope, jnp.sum((x @ inverse) * x, axis=1)
