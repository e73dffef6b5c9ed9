"""Seeds of the fine stage: which high-c captions belong together more than chance allows.

The paper takes all q pairs of the largest c as poison (D_p, section 2.3). In real data most of
them are merely mismatched, so `robust` mode looks for the *core* of D_p first. What was chosen,
and against what:

- One seed per image. The captions of one photo that F cannot read all have a large c and resemble
  each other: on Flickr8k that alone looks like a tight group.
- Captions are centred (facts/cfbd.md 0.9).
- A core is a group of seeds around one of them, at one of four radii, that is more *enriched*
  among the seeds than anywhere else: n_in neighbours among q seeds against n_all in the whole set,
  tail of Poisson(n_all q / N). The largest tight group will not do: a popular topic (dogs in
  Flickr8k) beats 20 % of poison on size, not on enrichment. The mean pairwise cosine of D_p
  against random subsets (`null_test`, rule R1 of facts/cfbd.md 4.6) is reported beside it; on
  clean Flickr8k it sees "evidence", since images that F cannot read share topics.
- A core is a candidate only. `scan/evidence.py` asks the rest of the set whether the captions
  near it are misaligned as a group.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Float32, Int64
from scipy.stats import poisson

from mmjax.ops.correlation import centre, leave_one_out, mean_pairwise_cosine
from mmjax.scan.blocks import EmbeddingBlock, gather

POOL = 32_768
RADII = (0.95, 0.99, 0.999, 0.9999)
MAX_CORES = 5
_SAME_IMAGE = 0.9999
_PAIRS = 200_000


class Seeds(NamedTuple):
    """D_p: row numbers in order of falling c, and their centred captions."""

    rows: Int64[np.ndarray, " q"]
    text: Float32[np.ndarray, "q d"]


class Pool(NamedTuple):
    """A random sample of scored captions, centred: the whole set when it is small.

    `radii` are the `RADII` quantiles of the cosine of two random captions.
    """

    text: Float32[np.ndarray, "p d"]
    radii: Float[np.ndarray, " r"]


class NullTest(NamedTuple):
    """Mean pairwise cosine of D_p against random subsets of its size (rule R1)."""

    observed: float
    quantile99: float
    exceeds: bool


class Core(NamedTuple):
    """Seeds whose captions belong together; `members` index D_p.

    `log10_p` is the Poisson tail of its enrichment, `inside` neighbours where `expected` were,
    before any correction for the about 4 q groups that were tried.
    """

    members: Int64[np.ndarray, " m"]
    log10_p: float
    inside: int
    expected: float


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
    image /= np.maximum(np.linalg.norm(image, axis=1, keepdims=True), 1e-12)
    same = np.tril(image @ image.T > _SAME_IMAGE, -1)
    # a row counts as a copy even of a copy: what matters is that one better row has its image
    return rows[~same.any(axis=1)][:count]


def draw_pool(
    blocks: Sequence[EmbeddingBlock],
    scored: Int64[np.ndarray, " s"],
    mean: Float32[np.ndarray, " d"],
    rng: np.random.Generator,
) -> Pool:
    """At most `POOL` random scored captions, centred by the data set's mean."""
    size = min(scored.size, POOL)
    rows = np.sort(rng.choice(scored, size, replace=False)) if size < scored.size else scored
    text = np.asarray(centre(gather(blocks, rows)[1], jnp.asarray(mean)))
    first, second = rng.integers(0, size, (2, _PAIRS))
    keep = first != second
    cosines = np.concatenate(
        [
            np.sum(text[a] * text[b], axis=1)
            for a, b in zip(
                np.array_split(first[keep], 20), np.array_split(second[keep], 20), strict=True
            )
        ]
    )
    radii = np.quantile(cosines, RADII) if cosines.size else np.ones(len(RADII))
    return Pool(text, radii)


def null_test(seeds: Seeds, pool: Pool, rng: np.random.Generator, subsets: int = 200) -> NullTest:
    """Rule R1's test: is D_p closer together than 99 % of random subsets of its size?"""
    q = seeds.rows.size
    if q < 2 or pool.text.shape[0] < q:
        return NullTest(0.0, 0.0, False)
    drawn = [
        float(mean_pairwise_cosine(pool.text[rng.choice(pool.text.shape[0], q, replace=False)]))
        for _ in range(subsets)
    ]
    observed, quantile = float(mean_pairwise_cosine(seeds.text)), float(np.quantile(drawn, 0.99))
    return NullTest(observed, quantile, observed > quantile)


def find_cores(seeds: Seeds, pool: Pool) -> list[Core]:
    """Up to five disjoint groups of at least three seeds with log10 p < -3, likeliest first.

    Cost 2 q (q + p) d FLOP for a pool of p.
    """
    q, p = seeds.rows.size, pool.text.shape[0]
    if q < 3:
        return []
    among = seeds.text @ seeds.text.T
    everywhere = pool.text @ seeds.text.T
    whole = [np.sum(everywhere > radius, axis=0) for radius in pool.radii]
    # itself is not evidence, hence - 1 on either side; + 1 for what the sample may have missed
    expected = np.maximum(np.stack(whole) - 1, 0) + 1.0
    expected *= (q - 1) / max(p - 1, 1)
    alive, cores = np.ones(q, bool), []
    while len(cores) < MAX_CORES:
        near = [(among > radius) & alive[:, None] for radius in pool.radii]
        inside = np.stack([np.sum(n, axis=0) - 1 for n in near])
        tail = poisson.logsf(inside - 1, expected) / np.log(10)
        tail = np.where(alive[None, :] & (inside >= 2), tail, 0.0)
        radius, centre_of = np.unravel_index(int(np.argmin(tail)), tail.shape)
        if tail[radius, centre_of] > -3:
            break
        members = np.flatnonzero(near[radius][:, centre_of])
        members = _settle(seeds.text, members, alive, float(pool.radii[0]))
        best = (radius, centre_of)
        cores.append(
            Core(
                members.astype(np.int64),
                float(tail[best]),
                int(inside[best]),
                float(expected[best]),
            )
        )
        alive[members] = False
        alive[centre_of] = False
    return cores


def rule_r1(loo: Float[np.ndarray, " m"]) -> float:
    """gamma_z of rule R1: 5 % quantile - 1 standard deviation of leave-one-out z.

    The deviation is at least 0.02: copies of one caption have none, and a threshold at their own
    z would miss half of them.
    """
    return float(np.quantile(loo, 0.05) - max(float(np.std(loo)), 0.02))


def _settle(
    text: Float32[np.ndarray, "q d"], members: np.ndarray, alive: np.ndarray, floor: float
) -> np.ndarray:
    """Let a core take in the seeds above its own threshold, and drop those below, until stable."""
    for _ in range(5):
        loo = np.asarray(leave_one_out(text[members]))
        z = text @ text[members].mean(axis=0)
        z[members] = loo
        grown = np.flatnonzero((z > max(rule_r1(loo), floor)) & alive)
        if grown.size < 3 or np.array_equal(grown, members):
            break
        members = grown
    return members
