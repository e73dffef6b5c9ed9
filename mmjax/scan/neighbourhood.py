"""Wrong pairs that keep together: the odds of poison in a caption's neighbourhood.

A wrong pair may be anywhere: web data has them. Poison is wrong pairs that share a direction of
captions (or, natural captions, a topic). So the share of wrong pairs, the prior of every pair, is
taken from its neighbourhood, by EM: from the 10, 30, 100 and 300 distinct captions nearest to its
own (of other images), each counted by the probability of its worst pair,

    w_i  = sigmoid(log_ratio_i + logit pi_i)                         probability of a wrong pair
    pi_i = (sum of the w of mutual neighbours among the k) / k       at the surest k

*Distinct* captions: a caption that is repeated word by word is what stock-photo boilerplate looks
like (facts/cfbd.md 4.6: 798 copies of one in CC-3M); its copies do not speak for each other.
*Mutual* neighbours (each among the other's k nearest): a benign caption on the rim of a dense
poisoned cluster has it for neighbours, but is none of its own. The *surest* k is the one whose
lower confidence bound (Clopper and Pearson, 5 %) is highest; where none exceeds the background,
the share of wrong pairs in the set at large, that is the prior.

    poison_i = w_i (1 - odds(background) / odds(bound_i))

is the probability that the pair is wrong and more than one of those that web data have anyway:
where right pairs are rare, so are accidents.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int
from scipy.special import betaincinv, expit, logit

SCALES = (10, 30, 100, 300)
CONFIDENCE = 0.05
TRIMMED = 0.05
"""Share of the worst neighbourhoods that do not count for the background."""
LEAST = 1e-3
"""The background is never taken to be less."""
STEPS = 12


class Neighbourhood(NamedTuple):
    """`wrong` and `poison` are probabilities of every pair (see the module)."""

    wrong: Float[np.ndarray, " n"]
    poison: Float[np.ndarray, " n"]
    background: float


def weigh(
    log_ratio: Float32[np.ndarray, " n"],
    caption_of: Int[np.ndarray, " n"],
    queries: Int[np.ndarray, " q"],
    near: Int[np.ndarray, "q k"],
    cosine: Float32[np.ndarray, "q k"],
) -> Neighbourhood:
    """Probabilities of all pairs by EM.

    Args:
        log_ratio: of every pair, of its signals alone.
        caption_of: the number of its caption; equal captions have one number.
        queries: captions whose neighbours are known; the others keep the background as prior.
        near: their neighbours, nearest first, -1 where there is none.
        cosine: of those.
    """
    captions = int(caption_of.max(initial=-1)) + 1
    scales = [k for k in SCALES if k <= near.shape[1]] or [near.shape[1]]
    there = near >= 0
    at = np.where(there, near, 0)
    mutual = [_mutual(captions, queries, at, there, cosine, k) for k in scales]
    prior, background = np.full(captions, 0.01), 0.01
    bound = np.zeros(captions)
    for _ in range(STEPS):
        wrong = expit(log_ratio + logit(prior)[caption_of])
        worst = np.zeros(captions)
        np.maximum.at(worst, caption_of, wrong)
        around = np.where(there, worst[at], 0.0)
        middle = scales[min(2, len(scales) - 1)]
        shares = np.sort(around[:, :middle].mean(axis=1))
        usual = shares[: max(int((1 - TRIMMED) * shares.size), 1)]
        background = max(float(usual.mean()) if usual.size else LEAST, LEAST)
        bounds, means = np.zeros((2, queries.size, len(scales)))
        for i, k in enumerate(scales):
            count = np.sum(around[:, :k], axis=1, where=mutual[i])
            bounds[:, i] = betaincinv(np.maximum(count, 1e-6), k - count + 1, CONFIDENCE)
            means[:, i] = (count + background) / (k + 1)
        best = bounds.argmax(axis=1)[:, None]
        bound[queries] = np.take_along_axis(bounds, best, 1)[:, 0]
        mean = np.take_along_axis(means, best, 1)[:, 0]
        prior = np.full(captions, background)
        sure = bound[queries] > background
        prior[queries] = np.clip(np.where(sure, mean, background), 1e-4, 1 - 1e-3)
    wrong = expit(log_ratio + logit(prior)[caption_of])
    bound = np.clip(bound, 1e-9, 1 - 1e-9)
    excess = np.clip(1 - background / (1 - background) * (1 - bound) / bound, 0, 1)
    return Neighbourhood(wrong, wrong * excess[caption_of], background)


def flag(poison: Float[np.ndarray, " n"], fdr: float) -> Bool[np.ndarray, " n"]:
    """The largest set of most probable pairs whose expected share of benign ones is at most `fdr`.

    Pairs of equal probability stand or fall together.
    """
    order = np.argsort(-poison, kind="stable")
    ranked = poison[order]
    benign = np.cumsum(1 - ranked) / np.arange(1, ranked.size + 1)
    last = np.append(ranked[1:] < ranked[:-1], True)[: ranked.size]
    within = np.flatnonzero((benign <= fdr) & last)
    flagged = np.zeros(poison.shape, bool)
    if within.size:
        flagged[order[: within[-1] + 1]] = True
    return flagged


def _mutual(
    n: int,
    queries: np.ndarray,
    at: np.ndarray,
    there: np.ndarray,
    cosine: np.ndarray,
    k: int,
) -> Bool[np.ndarray, "q k"]:
    """Whether each of the k nearest would count the query among its own k nearest."""
    radius = np.full(n, np.inf)
    radius[queries] = np.where(there[:, k - 1], cosine[:, k - 1], -np.inf)
    return there[:, :k] & (cosine[:, :k] >= radius[at[:, :k]])
