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
_MAD = 1.4826
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
    both = standardised(np.concatenate([right, *wrong]), like=right)
    labels = np.repeat([0, 1], [size, SHUFFLES * size])
    importance = np.where(labels == 0, float(SHUFFLES), 1.0)
    fitted = LogisticRegression(C=10.0, max_iter=500).fit(both, labels, sample_weight=importance)
    weights = np.concatenate([fitted.coef_[0], fitted.intercept_]).astype(np.float32)
    return Calibration(np.asarray(centred, np.float16), np.asarray(signals), weights)


def standardised(
    values: Float[np.ndarray, "n s"], *, like: Float[np.ndarray, "m s"]
) -> Float[np.ndarray, "n s"]:
    """Deviations from the columns' medians of `like`, in its MADs."""
    middle = np.median(like, axis=0)
    spread = _MAD * np.median(np.abs(like - middle[None, :]), axis=0)
    return (values - middle[None, :]) / np.maximum(spread, 1e-6)[None, :]


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
    """Weights of the standardised signals and the constant; the share of wrong pairs in the set."""

    weights: Float64[np.ndarray, " 4"]
    wrong: float


def adapt(
    weights: Float32[np.ndarray, " 4"],
    own: Float[np.ndarray, "n 3"],
    strangers: Float[np.ndarray, "m 3"],
) -> Adapted:
    """Fit the weights to a set whose pairs are right but for an unknown share pi of wrong ones.

    With r the ratio p(wrong) / p(right), an own pair is (1 - pi) / r + pi times as likely among
    the own as among the strangers: logistic regression of which of both a pair is from, with the
    reference's weights as prior mean (maximum a posteriori). Few pairs hardly move them.

    Args:
        weights: the reference's.
        own: signals of the set's pairs, standardised.
        strangers: of its captions with other images, standardised likewise.

    Source: Elkan and Noto 2008, "Learning classifiers from only positive and unlabeled data";
    Ward et al. 2009, "Presence-only data and the EM algorithm", whose likelihood this is.
    """
    if not (len(own) and len(strangers)):
        return Adapted(weights.astype(np.float64), 0.0)
    rows = [np.column_stack([x, np.ones(len(x))]).astype(np.float64) for x in (own, strangers)]
    centre_at = weights.astype(np.float64)

    def loss(at: Float64[np.ndarray, " 5"]) -> tuple[float, Float64[np.ndarray, " 5"]]:
        share = expit(at[4])
        off = (at[:4] - centre_at) / PRIOR
        value, slope = 0.5 * float(off @ off) / len(own), np.append(off / PRIOR / len(own), 0.0)
        for x, sign in zip(rows, (-1.0, 1.0), strict=True):
            log_right = -np.clip(x @ at[:4], -30, 30)
            right, wrong = np.log1p(-share) + log_right, np.log(share)
            odds = np.logaddexp(right, wrong)  # log p(own) / p(stranger)
            value += float(np.mean(np.logaddexp(0, sign * odds)))
            pull = sign * expit(sign * odds) / len(x)
            of_right = np.exp(right - odds)
            slope[:4] -= x.T @ (pull * of_right)
            slope[4] += float(pull @ (share * (1 - share) * (1 - np.exp(log_right)) / np.exp(odds)))
        return value, slope

    bounds = [(None, None)] * 4 + [(-12.0, 3.0)]
    found = [
        minimize(loss, np.append(centre_at, start), jac=True, method="L-BFGS-B", bounds=bounds)
        for start in _STARTS
    ]
    best = min(found, key=lambda result: float(result.fun)).x
    return Adapted(best[:4], float(expit(best[4])))


def log_ratios(
    weights: Float[np.ndarray, " 4"], values: Float[np.ndarray, "n 3"]
) -> Float32[np.ndarray, " n"]:
    """Log p(wrong) / p(right) of every pair, at most `LARGEST`, before any prior.

    Args:
        weights: the set's (`adapt`).
        values: signals of its pairs, standardised.
    """
    return np.minimum(values @ weights[:3] + weights[3], LARGEST).astype(np.float32)
