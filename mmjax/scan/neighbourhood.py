"""Wrong pairs that keep together: the odds of poison in a pair's neighbourhood.

A wrong pair may be anywhere: web data has them. Poison is wrong pairs that share a direction of
captions (or, natural captions, a topic), an image, or a trigger. So the share of wrong pairs, the
prior of every pair, is taken from its neighbourhood, by EM: from the 10, 30, 100 and 300 distinct
captions nearest to its own (of other images), each counted by the probability of its worst pair,

    w_i  = sigmoid(log_ratio_i + view_i + logit pi_i)                probability of a wrong pair
    pi_i = (sum of the w of mutual neighbours among the k) / k       at the surest k

*Distinct* captions: a caption that is repeated word by word is what stock-photo boilerplate looks
like (facts/cfbd.md 4.6: 798 copies of one in CC-3M); its copies do not speak for each other.
*Mutual* neighbours (each among the other's k nearest): a benign caption on the rim of a dense
poisoned cluster has it for neighbours, but is none of its own. The *surest* k is the one whose
lower confidence bound (Clopper and Pearson, 5 %) is highest; where none exceeds the background,
the median share of wrong pairs among the 300, that is the prior. Fewer than `FEWEST` wrong pairs
are no evidence, once half of the steps have told which are wrong: a weak model misreads what is
unusual, and a few captions about that lie side by side.

An image has a neighbourhood too, its own captions, where it has more of them than images usually
have: those that are usual speak of one and the same picture, which the model may just read badly.
A pair's prior and bound are the larger of the two; but where the captions of an image are no more
alike than random ones (a placeholder, shown for whatever is gone), they make wrong pairs likelier,
not poison. `view` is `scan/image_view.py`'s.

    poison_i = w_i (1 - odds(background) / odds(bound_i) exp(-max(view_i, 0)))

is the probability that the pair is wrong and more than one of those that web data have anyway:
where right pairs are rare, so are accidents.
"""

import functools
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, Int64
from scipy.special import betaincinv, expit, logit

SCALES = (10, 30, 100, 300)
CONFIDENCE = 0.05
FEWEST = 2.5
"""Expected number of wrong pairs around a pair; of fewer, its captions are no evidence."""
LEAST = 1e-3
"""The background is never taken to be less."""
USUAL, LEAST_USUAL = 0.99, 5
"""Quantile of the images' numbers of captions that is still usual, and its least."""
LIKELY = 0.25
"""A pair that is less probably poison is not flagged, even where the rate would allow it."""
STEPS = 12


class Graph(NamedTuple):
    """The nearest distinct captions of other images, nearest first.

    Captions and images are numbered; `caption_of` and `image_of` are the numbers of every scored
    row's, in order of the rows. `near` and `cosine` belong to the captions `queries`; they are -1
    and -inf where there are fewer. `usual` tells those of them that stand for all captions: all, or
    a sample where only the likeliest wrong ones are queries. `alike` says of every crowded image
    (`crowds`) whether its captions are more alike than random ones.
    """

    caption_of: Int64[np.ndarray, " n"]
    image_of: Int64[np.ndarray, " n"]
    queries: Int64[np.ndarray, " q"]
    near: Int[np.ndarray, "q k"]
    cosine: Float32[np.ndarray, "q k"]
    usual: Bool[np.ndarray, " q"]
    alike: Bool[np.ndarray, " m"]

    @property
    def captions(self) -> int:
        """How many there are."""
        return int(self.caption_of.max(initial=-1)) + 1


class Neighbourhood(NamedTuple):
    """`wrong` and `poison` are probabilities of every pair (see the module)."""

    wrong: Float[np.ndarray, " n"]
    poison: Float[np.ndarray, " n"]
    background: float


class _Evidence(NamedTuple):
    """Of captions or images: lower bound of the share of wrong pairs around, and that share."""

    bound: Float[np.ndarray, " m"]
    share: Float[np.ndarray, " m"]


class Crowds(NamedTuple):
    """Images and their distinct captions.

    `image` and `caption` are those of every distinct pair, `pair_of` says which of these every
    row is. `usual` is the number of captions that is still usual, `beyond` what every image has
    beyond it.
    """

    image: Int64[np.ndarray, " p"]
    caption: Int64[np.ndarray, " p"]
    pair_of: Int64[np.ndarray, " n"]
    usual: int
    beyond: Int64[np.ndarray, " m"]


def crowds(image_of: Int64[np.ndarray, " n"], caption_of: Int64[np.ndarray, " n"]) -> Crowds:
    """Images with more distinct captions than is usual, among all."""
    width = int(caption_of.max(initial=0)) + 1
    pairs, pair_of = np.unique(image_of * width + caption_of, return_inverse=True)
    image, caption = np.divmod(pairs, width)
    captions = np.bincount(image)
    quantile = np.quantile(captions, USUAL, method="higher") if captions.size else 0
    usual = max(int(quantile), LEAST_USUAL)
    return Crowds(image, caption, pair_of, usual, np.maximum(captions - usual, 0))


def mutual(graph: Graph, k: int) -> Bool[np.ndarray, "q k"]:
    """Whether each of the k nearest would count the query among its own k nearest."""
    near, cosine = graph.near[:, :k], graph.cosine[:, :k]
    radius = np.full(graph.captions, np.inf)
    radius[graph.queries] = np.where(near[:, -1] >= 0, cosine[:, -1], -np.inf)
    return (near >= 0) & (cosine >= radius[near])


def weigh(
    log_ratio: Float32[np.ndarray, " n"],
    graph: Graph,
    view: Float32[np.ndarray, " n"] | None = None,
) -> Neighbourhood:
    """Probabilities of all pairs by EM.

    Captions that are no queries keep the background as prior.

    Args:
        log_ratio: of every pair, of its signals alone.
        graph: its captions and images.
        view: log ratio of every pair's image (`scan/image_view.py`); None = 0.
    """
    most = graph.near.shape[1]
    scales = [k for k in SCALES if k <= most] or [most]
    linked = [mutual(graph, k) for k in scales]
    crowd = crowds(graph.image_of, graph.caption_of)
    seen = np.zeros(log_ratio.shape) if view is None else view
    prior, background = np.full(log_ratio.shape, 0.01), 0.01
    bound = np.zeros(log_ratio.shape)
    for step in range(STEPS):
        fewest = FEWEST if step >= STEPS // 2 else 0.0
        wrong = expit(log_ratio + seen + logit(prior))
        worst = np.zeros(graph.captions + 1)  # the last is that of no caption, -1
        np.maximum.at(worst, graph.caption_of, wrong)
        around = np.take(worst, graph.near)
        background = _background(around[graph.usual])
        text = _of_captions(graph, around, scales, linked, background, fewest)
        image = _of_images(crowd, wrong, background, fewest)
        prior = np.maximum(
            _prior(text, background)[graph.caption_of], _prior(image, background)[graph.image_of]
        )
        shared = np.where(graph.alike, image.bound, 0.0)
        bound = np.maximum(text.bound[graph.caption_of], shared[graph.image_of])
    wrong = expit(log_ratio + seen + logit(prior))
    bound = np.clip(bound, 1e-9, 1 - 1e-9)
    accident = background / (1 - background) * (1 - bound) / bound * np.exp(-np.maximum(seen, 0))
    return Neighbourhood(wrong, wrong * np.clip(1 - accident, 0, 1), background)


def flag(poison: Float[np.ndarray, " n"], fdr: float) -> Bool[np.ndarray, " n"]:
    """The largest set of most probable pairs whose expected share of benign ones is at most `fdr`.

    Pairs of equal probability stand or fall together; those below `LIKELY` are never in it.
    """
    order = np.argsort(-poison, kind="stable")
    ranked = poison[order]
    benign = np.cumsum(1 - ranked) / np.arange(1, ranked.size + 1)
    last = np.append(ranked[1:] < ranked[:-1], True)[: ranked.size]
    within = np.flatnonzero((benign <= fdr) & last & (ranked >= LIKELY))
    flagged = np.zeros(poison.shape, bool)
    if within.size:
        flagged[order[: within[-1] + 1]] = True
    return flagged


def _background(around: Float[np.ndarray, "q k"]) -> float:
    """Median share of wrong pairs in the widest neighbourhoods.

    Poison of many targets is in many neighbourhoods, but hardly in half of them.
    """
    return max(float(np.median(around.mean(axis=1))) if len(around) else LEAST, LEAST)


def _of_captions(
    graph: Graph,
    around: Float[np.ndarray, "q k"],
    scales: list[int],
    linked: list[np.ndarray],
    background: float,
    fewest: float,
) -> _Evidence:
    """At the surest scale of every caption."""
    bounds, shares = np.zeros((2, graph.queries.size, len(scales)))
    for i, k in enumerate(scales):
        count = np.einsum("qk,qk->q", around[:, :k], linked[i])
        bounds[:, i] = _of_enough(count, np.interp(count, *_table(k)), background, fewest)
        shares[:, i] = (count + background) / (k + 1)
    best = bounds.argmax(axis=1)[:, None]
    bound, share = np.zeros((2, graph.captions))
    bound[graph.queries] = np.take_along_axis(bounds, best, 1)[:, 0]
    share[graph.queries] = np.take_along_axis(shares, best, 1)[:, 0]
    return _Evidence(bound, share)


def _of_images(
    crowd: Crowds, wrong: Float[np.ndarray, " n"], background: float, fewest: float
) -> _Evidence:
    """Of every image, from its captions beyond the usual number; 0 where there are none."""
    worst = np.zeros(crowd.image.shape)
    np.maximum.at(worst, crowd.pair_of, wrong)
    count = np.maximum(np.bincount(crowd.image, worst) - crowd.usual, 0)
    bound, crowded = np.zeros(count.shape), crowd.beyond > 0
    seen = _lower_bound(count[crowded], crowd.beyond[crowded])
    bound[crowded] = _of_enough(count[crowded], seen, background, fewest)
    return _Evidence(bound, (count + background) / (crowd.beyond + 1))


def _of_enough(
    count: Float[np.ndarray, " m"],
    bound: Float[np.ndarray, " m"],
    background: float,
    fewest: float,
) -> Float[np.ndarray, " m"]:
    """Bounds that say no more than the background where fewer than `fewest` were seen."""
    return np.where(count < fewest, np.minimum(bound, background), bound)


def _lower_bound(
    count: Float[np.ndarray, " m"], trials: Int[np.ndarray, " m"]
) -> Float[np.ndarray, " m"]:
    """Of a share of which `count` in `trials` were seen (Clopper and Pearson)."""
    return betaincinv(np.maximum(count, 1e-6), np.maximum(trials - count, 0) + 1, CONFIDENCE)


@functools.cache
def _table(trials: int) -> tuple[Float[np.ndarray, " c"], Float[np.ndarray, " c"]]:
    """Counts up to `trials` and their lower bounds, so close that those between err by 1e-6."""
    counts = np.linspace(0, trials, max(64 * trials, 4096) + 1)
    return counts, _lower_bound(counts, np.full(counts.shape, trials))


def _prior(evidence: _Evidence, background: float) -> Float[np.ndarray, " m"]:
    sure = evidence.bound > background
    return np.clip(np.where(sure, evidence.share, background), 1e-4, 1 - 1e-3)
