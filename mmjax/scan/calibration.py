"""Right or wrong? How likely a pair is a wrong one, from a clean reference (facts/cfbd.md 8).

The reference that F was fitted on has right pairs; its captions with other images' embeddings are
wrong pairs. A logistic regression on both gives

    log_ratio = log p(signals | wrong pair) / p(signals | right pair)

of three signals: the gap s_g - s_o; the same gap against the gaps of the 100 nearest reference
captions (median and MAD), so that a topic which the model reads badly is not held against its
pairs; and, against those captions too, the cosine of image and caption, each centred by its set's
mean. Every set is standardised by its own medians and MADs.

A reference that the model has learned by heart, or one of another domain, says too much of a set
that is read less well. So the weights are fitted once more, to the set itself (`adapt`): what
is known there are wrong pairs, which its captions make with images of others; its own pairs are
right but for an unknown share.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Float32, Float64, Int, Shaped
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from mmjax.ops.correlation import centre
from mmjax.ops.neighbours import nearest

SAMPLE = 20_000
"""Captions of the reference that a mapping keeps, drawn at random."""
NEAR = 100
"""Reference captions that a caption is compared with."""
SHUFFLES = 2
"""Wrong pairs a right one."""
LARGEST = 6.0
"""Upper bound of the log ratio: no single pair is surer to be wrong than 400 to 1."""
PRIOR = 0.5
"""Standard deviation of a set's own weights about the reference's, before its pairs are seen."""
FAR = 20.0
"""Signals that are farther out, in MADs, weigh no more when weights are fitted to a set."""
_MAD = 1.4826
_SHARES = (-12.0, 3.0)  # log odds of a wrong pair that are looked among
_STARTS = (-5.0, -2.0)  # log odds of a wrong pair that the search begins with


class Calibration(NamedTuple):
    """The clean reference: centred unit-norm captions (float16), and their pairs' signals.

    `signals` are the gap and the centred cosine; `weights` those of the three standardised
    signals, and the constant.
    """

    text: Shaped[np.ndarray, "m d"]
    signals: Float32[np.ndarray, "m 2"]
    weights: Float32[np.ndarray, " 4"]


@jax.jit
def pair_signals(
    image: Float[Array, "n d"],
    text: Float[Array, "n d"],
    generated: Float[Array, " n"],
    means: Float[Array, "2 d"],
) -> Float[Array, "n 2"]:
    """Gap and centred cosine of pairs.

    Args:
        image: unit-norm.
        text: unit-norm.
        generated: s_g of the images.
        means: mean image and mean caption of the set.
    """
    gap = generated - jnp.sum(image * text, axis=1)
    cosine = jnp.sum(centre(image, means[0]) * centre(text, means[1]), axis=1)
    return jnp.stack([gap, cosine], axis=1)


@jax.jit
def _against(
    signals: Float[Array, "n 2"], usual: Float[Array, "n k 2"], known: Bool[Array, "n k"]
) -> Float[Array, "n 3"]:
    """The gap, and both signals as deviations from what is usual, in MADs."""
    usual = jnp.where(known[:, :, None], usual, jnp.nan)
    middle = jnp.nanmedian(usual, axis=1)
    spread = _MAD * jnp.nanmedian(jnp.abs(usual - middle[:, None, :]), axis=1) + 1e-3
    return jnp.concatenate([signals[:, :1], (signals - middle) / spread], axis=1)


def calibrate(
    image: Float[np.ndarray, "n d"],
    text: Float[np.ndarray, "m d"],
    image_of: Int[np.ndarray, " m"],
    generated: Float[np.ndarray, " n"],
    rng: np.random.Generator,
) -> Calibration:
    """Learn from a clean reference; at most `SAMPLE` of its captions are kept.

    Args:
        image: unit-norm embeddings of its images.
        text: of its captions; caption j belongs to image `image_of[j]`.
        image_of: see `text`.
        generated: s_g of every image.
        rng: draws the sample and the wrong pairs.
    """
    size = min(SAMPLE, len(image_of))
    rows = np.sort(rng.choice(len(image_of), size, replace=False))
    own, captions = image_of[rows], jnp.asarray(text[rows], jnp.float32)
    captioned = np.unique(own)
    mean_image = np.mean(image[captioned], axis=0, dtype=np.float32)
    means = jnp.stack([jnp.asarray(mean_image), captions.mean(axis=0)])
    centred = centre(captions, means[1])
    near = nearest(centred, centred, jnp.arange(size), k=min(NEAR, size - 1))

    def of(images: np.ndarray) -> Array:
        embedded = jnp.asarray(image[images], jnp.float32)
        return pair_signals(embedded, captions, jnp.asarray(generated[images]), means)

    signals = of(own)
    usual, known = signals[near.rows], near.rows >= 0
    right = np.asarray(_against(signals, usual, known))
    shift = [rng.integers(1, captioned.size, size) for _ in range(SHUFFLES)]
    place = np.searchsorted(captioned, own)
    others = [captioned[(place + s) % captioned.size] for s in shift]
    wrong = [np.asarray(_against(of(other), usual, known)) for other in others]
    both = standardised(np.concatenate([right, *wrong]), scale_of(right))
    labels = np.repeat([0, 1], [size, SHUFFLES * size])
    importance = np.where(labels == 0, float(SHUFFLES), 1.0)
    fitted = LogisticRegression(C=10.0, max_iter=500).fit(both, labels, sample_weight=importance)
    weights = np.concatenate([fitted.coef_[0], fitted.intercept_]).astype(np.float32)
    return Calibration(np.asarray(centred, np.float16), np.asarray(signals), weights)


class Scale(NamedTuple):
    """Medians and MADs (as standard deviations) of a set's signals."""

    middle: Float[np.ndarray, " s"]
    spread: Float[np.ndarray, " s"]


def scale_of(values: Float[np.ndarray, "n s"]) -> Scale:
    """Of the columns; a MAD is never taken to be less than 1e-6."""
    middle = np.median(values, axis=0)
    spread = _MAD * np.median(np.abs(values - middle[None, :]), axis=0)
    return Scale(middle, np.maximum(spread, 1e-6))


def standardised(values: Float[np.ndarray, "n s"], scale: Scale) -> Float[np.ndarray, "n s"]:
    """Deviations from the medians, in MADs."""
    return (values - scale.middle[None, :]) / scale.spread[None, :]


def local_signals(
    calibration: Calibration,
    centred: Float[Array, "n d"],
    signals: Float[Array, "n 2"],
    *,
    mesh: Mesh | None = None,
) -> Float32[np.ndarray, "n 3"]:
    """The three signals, not yet standardised.

    Args:
        calibration: the clean reference.
        centred: captions, centred by their set's mean.
        signals: of their pairs (`pair_signals`).
        mesh: devices that share the search; None = one.
    """
    keys = jnp.asarray(calibration.text)
    near = nearest(centred, keys, k=min(NEAR, calibration.text.shape[0]), mesh=mesh)
    usual = jnp.asarray(calibration.signals)[near.rows]
    return np.asarray(_against(signals, usual, near.rows >= 0), np.float32)


class Adapted(NamedTuple):
    """Weights of the standardised signals and the constant; the share of wrong pairs in the set.

    The share is at most .95, and None where nothing could be learned of it.
    """

    weights: Float64[np.ndarray, " 4"]
    wrong: float | None


def adapt(
    weights: Float32[np.ndarray, " 4"],
    own: Float[np.ndarray, "n 3"],
    strangers: Float[np.ndarray, "m 3"],
) -> Adapted:
    """Fit the weights to a set whose pairs are right but for an unknown share pi of wrong ones.

    With r the ratio p(wrong) / p(right), a pair is (1 - pi) / r + pi times as likely among the
    set's own as among the strangers: logistic regression of which of both it is from, with the
    reference's weights as prior mean (maximum a posteriori). Few pairs hardly move them.

    Args:
        weights: the reference's.
        own: signals of the set's pairs, standardised.
        strangers: of its captions with other images, standardised likewise.

    Source: Elkan and Noto 2008, "Learning classifiers from only positive and unlabeled data";
    Ward et al. 2009, "Presence-only data and the EM algorithm", whose likelihood this is.
    """
    prior_mean = weights.astype(np.float64)
    fewer = min(len(own), len(strangers))
    if not fewer:
        return Adapted(prior_mean, None)
    rows = [
        np.column_stack([np.clip(x, -FAR, FAR), np.ones(len(x))]).astype(np.float64)
        for x in (own, strangers)
    ]

    def loss(at: Float64[np.ndarray, " 5"]) -> tuple[float, Float64[np.ndarray, " 5"]]:
        """Mean negative log posterior and its gradient; at = weights and the logit of pi."""
        share, apart = expit(at[4]), (at[:4] - prior_mean) / PRIOR
        value, slope = 0.5 * float(apart @ apart) / fewer, np.append(apart / PRIOR / fewer, 0.0)
        for x, sign in zip(rows, (-1.0, 1.0), strict=True):
            right = np.log1p(-share) - x @ at[:4]
            odds = np.logaddexp(right, np.log(share))  # log p(own) / p(stranger)
            by_right = np.exp(right - odds)
            value += float(np.mean(np.logaddexp(0, sign * odds)))
            pull = sign * expit(sign * odds) / len(x)  # d value / d odds
            slope[:4] -= x.T @ (pull * by_right)
            slope[4] += float(pull @ (1 - share - by_right))
        return value, slope

    bounds = [(None, None)] * 4 + [_SHARES]
    tried = [
        minimize(loss, np.append(prior_mean, start), jac=True, method="L-BFGS-B", bounds=bounds)
        for start in _STARTS
    ]
    found = [result for result in tried if result.success]
    if not found:
        return Adapted(prior_mean, None)
    best = min(found, key=lambda result: float(result.fun)).x
    return Adapted(best[:4], float(expit(best[4])))


def log_ratios(
    weights: Float[np.ndarray, " 4"], values: Float32[np.ndarray, "n 3"], scale: Scale
) -> Float32[np.ndarray, " n"]:
    """Log p(wrong) / p(right) of every pair, at most `LARGEST`, before any prior.

    Args:
        weights: the set's (`adapt`).
        values: signals of its pairs, as they are.
        scale: the set's.
    """
    slope = weights[:3] / scale.spread
    constant = np.float32(weights[3] - slope @ scale.middle)
    return np.minimum(values @ slope.astype(np.float32) + constant, np.float32(LARGEST))
