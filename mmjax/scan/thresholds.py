"""Is a core of seeds poison, and where does it end? Evidence and thresholds of the fine stage.

Given z of every caption against a core's mean, the captions above gamma_z are its *group*.

Evidence. A poisoned group is misaligned as a whole: its c sit in the upper tail of everyone's c.
A benign topic that merely supplies many of the worst-aligned images is not: its c are spread like
everyone's. A topic that the model reads badly is misaligned as a whole even where nothing is
poisoned: what is usual for the topic is asked of the clean reference (`scan/calibration.py`). So
a core counts as poison only when at least a third of its group, and twice what is usual, lies
above the 95 % quantile of c, and when chance is excluded at the usual rate, either by the core's
enrichment alone (p < 1e-8) or by the group's members that are not seeds (binomial tail < 1e-8;
one caption per image, and no image of a seed: those had their say).

Thresholds. gamma_z starts at rule R1 (5 % quantile - 1 sd of leave-one-out z). R1 looks at the
group's own spread only; `widen` then lowers it over whatever lies below and is misaligned too,
to the middle of the gap where that ends. When the poison's captions are ordinary for the data
(on-topic), benign pairs share its z: `gate` then also asks for a c.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int64
from scipy.ndimage import gaussian_filter1d
from scipy.stats import binom, norm, poisson

from mmjax.scan.blocks import EmbeddingBlock, gather
from mmjax.scan.calibration import Twins
from mmjax.scan.seeds import Core

HIGH = 0.95
MINIMUM_SHARE = 1 / 3
MINIMUM_IMAGES = 4
SURE = -8.0
MOSTLY_POISON = 0.05
STRAY = 0.02
REACH = 0.1
_LOOKED_AT = 20_000


class Evidence(NamedTuple):
    """What speaks for a core.

    `share` of its group lies above the 95 % quantile of c; `log10_p_group` is the binomial tail
    of that among `images` images that no seed has. `usual` is the share among the `twins` clean
    captions of the same topic.
    """

    log10_p_core: float
    log10_p_group: float
    share: float
    usual: float
    twins: int
    group: int
    images: int
    poisoned: bool


def judge(
    blocks: Sequence[EmbeddingBlock],
    group: Int64[np.ndarray, " g"],
    high: Bool[np.ndarray, " n"],
    seeds: Int64[np.ndarray, " q"],
    core: Core,
    twins: Twins,
) -> Evidence:
    """Weigh the evidence for one core.

    Args:
        blocks: the embeddings, to tell images apart.
        group: rows above gamma_z, by falling z.
        high: of every row, whether its c is above the set's 95 % quantile.
        seeds: the rows of D_p.
        core: the seeds that the group grew from.
        twins: the clean captions of the same topic.
    """
    looked_at = group[:_LOOKED_AT]
    image, _ = gather(blocks, np.concatenate([seeds, looked_at]))
    # the same image has the same bits: it is encoded once
    as_bytes = np.ascontiguousarray(image).view(f"V{image.shape[1] * 4}")[:, 0]
    _, first = np.unique(as_bytes, return_index=True)
    fresh = first[first >= seeds.size] - seeds.size
    hits = int(np.sum(high[looked_at[fresh]]))
    usual = max(twins.rate, 1 - HIGH)
    tail = float(binom.logsf(hits - 1, max(fresh.size, 1), usual) / np.log(10))
    expected = core.expected * usual / (1 - HIGH)
    log10_p_core = float(poisson.logsf(core.inside - 1, expected) / np.log(10))
    share = float(np.mean(high[group])) if group.size else 0.0
    images = np.unique(as_bytes[seeds.size :]).size
    sure = log10_p_core < SURE or tail < SURE
    enough = share >= max(MINIMUM_SHARE, min(2 * usual, (1 + usual) / 2))
    poisoned = sure and enough and images >= MINIMUM_IMAGES
    sizes = (int(group.size), int(fresh.size))
    return Evidence(log10_p_core, tail, share, usual, twins.captions, *sizes, poisoned)


def widen(
    z: Float32[np.ndarray, " s"],
    high: Bool[np.ndarray, " s"],
    gamma_z: float,
    spread: float,
    cost: float = 3.0,
) -> float:
    """Lower gamma_z over captions just below it that are misaligned as well.

    When the two standard deviations of the group's z (`spread`) below gamma_z hold no more than
    one caption, or 1 % of the group's number, the group simply ends there and gamma_z goes to
    their lower end. Otherwise, walking down as far as `REACH`, a row of high c gains `cost` and
    another one loses 1 (each corrected for the 5 % that are high by chance); the cut goes where
    the sum peaks, half way to the next caption. Among benign rows the sum falls by about 1 a row.
    """
    lowest = gamma_z - 2 * spread
    below = np.flatnonzero((z <= gamma_z) & (z > lowest))
    order = below[np.argsort(-z[below], kind="stable")]
    if order.size <= max(1.0, 0.01 * float(np.sum(z > gamma_z))):
        return lowest
    lowest = min(lowest, gamma_z - REACH)
    below = np.flatnonzero((z <= gamma_z) & (z > lowest))
    order = below[np.argsort(-z[below], kind="stable")]
    base = 1 - HIGH
    poison = (high[order] - base) / (1 - base)
    gain = np.cumsum(cost * poison - (1 - poison))
    best = int(np.argmax(gain))
    if gain[best] <= 0:
        return gamma_z
    following = float(z[order[best + 1]]) if best + 1 < order.size else lowest
    return (float(z[order[best]]) + following) / 2


def gate(
    group: Float32[np.ndarray, " g"], usual: Float32[np.ndarray, " r"], miss_cost: float
) -> float | None:
    """The c below which members of a poisoned group are benign; None when (nearly) all are poison.

    `usual` are the c of benign pairs of this topic (or of any, where its clean captions are few).
    Twice the members below their median estimate how many are benign; a group with at most
    5 % of them is not gated, since its few misfits are as likely poison that matches by chance.

    The group's c is a mixture p f1 + (1 - p) f0: f0 is the density of the usual c (smoothed
    histogram), f1 a Gaussian and, since some poison matches its image by chance, a tenth of
    uniform; EM from the members above the usual 95 % quantile. A member is benign when its
    poison probability times `miss_cost` (what a surviving poison costs, in clean pairs) is
    below its benign probability; the gate lies just above the highest such c. Above the
    poison's mean every member is poison: pairs that are merely wrong have the largest c too.
    """
    if not group.size or not usual.size:
        return None
    high = group[group > np.quantile(usual, HIGH)]
    if high.size < 2 or 2 * np.mean(group < np.median(usual)) <= MOSTLY_POISON:
        return None
    c = np.sort(group).astype(np.float64)
    benign = _density(usual, c)
    narrowest = 0.1 * max(float(np.std(usual)), 1e-6)
    mean, deviation, share = float(np.median(high)), float(np.std(high)), high.size / group.size
    middle = float(np.median(usual))
    stray = (c > middle) / max(float(c[-1]) - middle, 1e-6)
    poison = np.ones_like(c)
    for _ in range(200):
        f1 = (1 - STRAY) * norm.pdf(c, mean, max(deviation, narrowest)) + STRAY * stray
        poison = share * f1 / np.maximum(share * f1 + (1 - share) * benign, 1e-300)
        before, mass = share, max(float(poison.sum()), 1e-9)
        mean = float(poison @ c) / mass
        deviation = float(np.sqrt(poison @ (c - mean) ** 2 / mass))
        share = min(mass / c.size, 1.0)
        if abs(share - before) < 1e-6:
            break
    kept = np.flatnonzero((miss_cost * poison < 1 - poison) & (c < mean))
    if not kept.size:
        return None
    above = min(int(kept[-1]) + 1, c.size - 1)
    return float((c[kept[-1]] + c[above]) / 2)


def _density(values: Float32[np.ndarray, " r"], at: np.ndarray) -> np.ndarray:
    """Smoothed histogram density of the values at some points; never quite zero."""
    low, high = min(values.min(), at[0]), max(values.max(), at[-1])
    edges = np.linspace(low, max(high, low + 1e-6), 257)
    counts = gaussian_filter1d(np.histogram(values, edges)[0].astype(np.float64), 3.0)
    density = (counts + 1e-3) / (counts.sum() + 0.256) / (edges[1] - edges[0])
    return np.interp(at, (edges[1:] + edges[:-1]) / 2, density)
