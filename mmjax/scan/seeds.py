"""Seeds of the fine stage: the pairs of the largest c, and whether they keep together.

The paper takes the q of them as poison (D_p, section 2.3). In real data most are merely mismatched,
and the captions of one photo that F cannot read all have a large c and resemble each other; so in
`robust` mode a photo gives one seed, and seeds decide nothing.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Float32, Int64

from mmjax.ops.correlation import centre, mean_pairwise_cosine
from mmjax.scan.blocks import EmbeddingBlock, gather
from mmjax.scan.groups import fingerprints

POOL = 32_768
MOST_TESTED = POOL // 8
"""Seeds that the null test looks at, at most: a random part of more of them."""


class NullTest(NamedTuple):
    """Mean pairwise cosine of D_p against random subsets of its size (rule R1)."""

    observed: float
    quantile99: float
    exceeds: bool


def seed_count(scored: int, requested: int = 0) -> int:
    """How many seeds: as asked, or max(50, 1e-4 N); at most a twentieth of the set, at least 5.

    Never more than there are pairs.
    """
    wanted = requested or max(50, round(1e-4 * scored))
    return min(max(min(wanted, scored // 20), 5), scored)


def pick_rows(
    blocks: Sequence[EmbeddingBlock],
    ranking: Float32[np.ndarray, " n"],
    scored: Int64[np.ndarray, " s"],
    count: int,
    *,
    one_per_image: bool,
) -> Int64[np.ndarray, " q"]:
    """The scored rows of the largest ranking, ties by row number.

    Args:
        blocks: the embeddings.
        ranking: of every row.
        scored: rows that were scored, ascending.
        count: how many.
        one_per_image: skip a row whose image embedding one of the better rows already has.
    """
    looked_at = min(scored.size, 5 * count if one_per_image else count)
    values = ranking[scored]
    kept = np.argpartition(-values, looked_at - 1)[:looked_at] if looked_at else scored[:0]
    # argpartition breaks ties at the edge arbitrarily: take every row that ties, then rank
    kept = np.flatnonzero(values >= values[kept].min()) if looked_at else kept
    order = np.lexsort((kept, -values[kept]))[:looked_at]
    rows = scored[kept[order]]
    if not one_per_image:
        return rows[:count]
    image, _ = gather(blocks, rows)
    best = np.unique(fingerprints(image), return_index=True)[1]
    return rows[np.sort(best)][:count]


def draw_pool(
    blocks: Sequence[EmbeddingBlock],
    scored: Int64[np.ndarray, " s"],
    mean: Float32[np.ndarray, " d"],
    rng: np.random.Generator,
) -> Float32[np.ndarray, "p d"]:
    """At most `POOL` random scored captions, centred by the data set's mean."""
    size = min(scored.size, POOL)
    rows = np.sort(rng.choice(scored, size, replace=False)) if size < scored.size else scored
    return np.asarray(centre(gather(blocks, rows)[1], jnp.asarray(mean)))


def null_test(
    seeds: Float32[np.ndarray, "q d"],
    pool: Float32[np.ndarray, "p d"],
    rng: np.random.Generator,
    subsets: int = 200,
) -> NullTest:
    """Rule R1's test: is D_p closer together than 99 % of random subsets of its size?

    Args:
        seeds: D_p's captions, centred.
        pool: of `draw_pool`.
        rng: draws the subsets.
        subsets: how many.
    """
    if seeds.shape[0] > MOST_TESTED:
        seeds = seeds[rng.choice(seeds.shape[0], MOST_TESTED, replace=False)]
    q = seeds.shape[0]
    if q < 2 or pool.shape[0] < q:
        return NullTest(0.0, 0.0, False)
    drawn = [
        float(mean_pairwise_cosine(pool[rng.choice(pool.shape[0], q, replace=False)]))
        for _ in range(subsets)
    ]
    observed, quantile = float(mean_pairwise_cosine(seeds)), float(np.quantile(drawn, 0.99))
    return NullTest(observed, quantile, observed > quantile)


def rule_r1(loo: Float[np.ndarray, " m"]) -> float:
    """gamma_z of rule R1: 5 % quantile - 1 standard deviation of leave-one-out z.

    The deviation is at least 0.02: copies of one caption have none, and a threshold at their own
    z would miss half of them.
    """
    return float(np.quantile(loo, 0.05) - max(float(np.std(loo)), 0.02))
