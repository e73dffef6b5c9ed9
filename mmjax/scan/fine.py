"""The fine stage: correlation of every caption with the seeds', thresholds (CFBD section 2.3)."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int64

from mmjax.core import keys
from mmjax.ops.correlation import centre, text_correlation
from mmjax.scan.blocks import EmbeddingBlock, chunks, gather, total_rows
from mmjax.scan.calibration import Calibration, clean_pairs, clean_twins
from mmjax.scan.coarse import CoarseScores
from mmjax.scan.evidence import HIGH, MINIMUM_SHARE, Evidence, judge
from mmjax.scan.odds import log_odds
from mmjax.scan.seeds import (
    MAX_CORES,
    NullTest,
    Pool,
    Seeds,
    draw_pool,
    find_cores,
    null_test,
    pick_rows,
    rule_r1,
    seed_count,
)

SCALES = (1, 4)
_MEMBERS = 20_000


class Fine(NamedTuple):
    """What the fine stage found.

    `z` is the textual correlation. `gamma_z` is None when there is no evidence, and the threshold
    on z where one was given; otherwise rule R1's. `margin`, where pairs are judged by their odds,
    is positive for a poisoned pair. `spread` is the standard deviation of the members' z; `mean`
    is the caption that z is measured against, centred in robust mode.
    """

    z: Float32[np.ndarray, " n"]
    seeds: Int64[np.ndarray, " q"]
    core: Int64[np.ndarray, " m"]
    gamma_z: float | None
    margin: Float32[np.ndarray, " n"] | None
    spread: float
    null: NullTest
    evidence: Evidence | None
    scale: int
    mean: Float32[np.ndarray, " d"]


def correlate(
    blocks: Sequence[EmbeddingBlock],
    scored: Bool[np.ndarray, " n"],
    means: Float32[np.ndarray, "k d"],
    chunk_rows: int,
    *,
    offset: Float32[np.ndarray, " d"] | None = None,
) -> Float32[np.ndarray, "n k"]:
    """Correlation z of every row with k means, in one pass over the captions; zero if not scored.

    `offset` is subtracted from the captions first (`ops.correlation.centre`); None leaves them.
    """
    z = np.zeros((total_rows(blocks), means.shape[0]), np.float32)
    seeds = jnp.asarray(means)
    centring = None if offset is None else jnp.asarray(offset)
    for chunk in chunks(blocks, chunk_rows, images=False):
        text = jnp.asarray(chunk.text)  # widened on the device
        values = (
            text_correlation(text, seeds)
            if centring is None
            else _centred_correlation(text, centring, seeds)
        )
        z[chunk.start : chunk.stop] = np.asarray(values)[: chunk.stop - chunk.start]
    z[~scored] = 0.0
    return z


@jax.jit
def _centred_correlation(
    text: Float[Array, "n d"], offset: Float[Array, " d"], means: Float[Array, "k d"]
) -> Float[Array, "n k"]:
    return text_correlation(centre(text, offset), means)


def literal(
    blocks: Sequence[EmbeddingBlock],
    scores: CoarseScores,
    *,
    seeds: int,
    gamma_z: float,
    seed: int,
    chunk_rows: int,
) -> Fine:
    """The paper's text: D_p is the top q by |s_g - s_o|, all of it; z as in Eq. 6; gamma_z given.

    z of a seed leaves itself out.
    """
    scored = np.flatnonzero(scores.scored)
    count = seed_count(scored.size, seeds)
    rows = pick_rows(blocks, scores.absolute, scored, count, one_per_image=False)
    text = gather(blocks, rows)[1]
    mean = text.mean(axis=0)
    z = correlate(blocks, scores.scored, mean[None, :], chunk_rows)[:, 0]
    z[rows] = _without_itself(z[rows], text)
    pool = draw_pool(blocks, scored, scores.mean, keys.host(seed, "pool"))
    centred = Seeds(rows, np.asarray(centre(text, jnp.asarray(scores.mean))))
    null = null_test(centred, pool, keys.host(seed, "null"))
    spread = float(np.std(z[rows]))
    return Fine(z, rows, rows, gamma_z, None, spread, null, None, 1, mean)


def robust(
    blocks: Sequence[EmbeddingBlock],
    scores: CoarseScores,
    *,
    seeds: int,
    gamma_z: float | None,
    gated: bool,
    miss_cost: float,
    seed: int,
    chunk_rows: int,
    calibration: Calibration | None = None,
) -> Fine:
    """A core of the seeds that the rest of the set confirms as poison, or no evidence.

    Cores are sought among q seeds, then among 4 q: where mismatched pairs outnumber the poison at
    the top of c, a core needs more seeds to show (see `scan/seeds.py`).
    """
    ranking, scored = scores.signed, np.flatnonzero(scores.scored)
    threshold = np.quantile(ranking[scored], HIGH)
    high = scores.scored & (ranking > threshold)
    pool = draw_pool(blocks, scored, scores.mean, keys.host(seed, "pool"))
    base = seed_count(scored.size, seeds)
    first: Fine | None = None
    for scale in SCALES:
        count = min(base * scale, max(scored.size // 20, base))
        rows = pick_rows(blocks, ranking, scored, count, one_per_image=True)
        text = np.asarray(centre(gather(blocks, rows)[1], jnp.asarray(scores.mean)))
        picked = Seeds(rows, text)
        found = _confirm(blocks, scores, picked, pool, high, chunk_rows, calibration)
        null = found.null if first is None else first.null
        if first is None:
            null = null_test(picked, pool, keys.host(seed, "null"))
            first = found._replace(null=null)
        if found.gamma_z is not None:
            found = found._replace(seeds=first.seeds, null=null, scale=scale)
            if gamma_z is not None:
                return found._replace(gamma_z=gamma_z)
            return _weigh(found, scores, high, calibration, miss_cost) if gated else found
        if count == scored.size:
            break
    return first  # pyright: ignore[reportReturnType]


def _confirm(
    blocks: Sequence[EmbeddingBlock],
    scores: CoarseScores,
    seeds: Seeds,
    pool: Pool,
    high: Bool[np.ndarray, " n"],
    chunk_rows: int,
    calibration: Calibration | None,
) -> Fine:
    """The first core that is judged poison, with its R1 threshold; otherwise `gamma_z` is None."""
    cores = find_cores(seeds, pool)
    means = np.zeros((MAX_CORES, scores.mean.size), np.float32)
    for i, core in enumerate(cores):
        means[i] = seeds.text[core.members].mean(axis=0)
    if not cores:  # a z to look at all the same: against all seeds
        means[0] = seeds.text.mean(axis=0)
    every = correlate(blocks, scores.scored, means, chunk_rows, offset=scores.mean)
    nothing = NullTest(0.0, 0.0, False)
    weighed: list[Evidence] = []
    for i, core in enumerate(cores):
        z, rows, text = every[:, i].copy(), seeds.rows[core.members], seeds.text[core.members]
        z[rows] = _without_itself(z[rows], text)
        gamma = rule_r1(z[rows])
        twins = clean_twins(clean_pairs(calibration, means[i], scores.mean), gamma, HIGH)
        group = _above(z, scores, gamma)
        evidence = judge(blocks, group, high, seeds.rows, core, twins)
        weighed.append(evidence)
        if not evidence.poisoned:
            continue
        spread = float(np.std(z[rows]))
        start = Fine(z, seeds.rows, rows, gamma, None, spread, nothing, evidence, 1, means[i])
        grown = _grow(blocks, scores, start, pool, high, chunk_rows)
        share = np.mean(high[_above(grown.z, scores, grown.gamma_z or 0.0)])
        return grown if share >= MINIMUM_SHARE else start
    best = min(weighed, key=lambda e: e.log10_p_group, default=None)
    z = every[:, 0]
    return Fine(z, seeds.rows, seeds.rows[:0], None, None, 0.0, nothing, best, 1, means[0])


def _weigh(
    found: Fine,
    scores: CoarseScores,
    high: Bool[np.ndarray, " n"],
    calibration: Calibration | None,
    miss_cost: float,
) -> Fine:
    """The margin of every row: log(odds of poison * what a surviving poison costs)."""
    clean = clean_pairs(calibration, found.mean, scores.mean)
    rows, start = scores.scored, high & (found.z > (found.gamma_z or 0.0))
    logarithm = log_odds(found.z[rows], scores.signed[rows], start[rows], clean)
    margin = np.full(rows.shape, -np.inf, np.float32)
    margin[rows] = logarithm + np.log(miss_cost)
    return found._replace(margin=margin)


def _grow(
    blocks: Sequence[EmbeddingBlock],
    scores: CoarseScores,
    start: Fine,
    pool: Pool,
    high: Bool[np.ndarray, " n"],
    chunk_rows: int,
) -> Fine:
    """Take the core's mean and threshold from every misaligned caption near it, not from seeds.

    The seeds of a core are the tightest of its captions; R1 on them alone is too narrow.
    """
    floor = max((start.gamma_z or 0.0) - 0.25, float(pool.radii[0]))
    near = _above(start.z, scores, floor)
    near = near[high[near]][:_MEMBERS]
    text = np.asarray(centre(gather(blocks, near)[1], jnp.asarray(scores.mean)))
    inside = start.z[near] > max(start.gamma_z or 0.0, floor)
    gamma, spread = start.gamma_z or 0.0, start.spread
    for _ in range(5):
        if inside.sum() < 3:
            return start
        z = text @ text[inside].mean(axis=0)
        z[inside] = _without_itself(z[inside], text[inside])
        gamma, spread = rule_r1(z[inside]), float(np.std(z[inside]))
        wider = z > max(gamma, floor)
        if np.array_equal(wider, inside):
            break
        inside = wider
    if inside.sum() < 3:
        return start
    mean = text[inside].mean(axis=0)
    z = correlate(blocks, scores.scored, mean[None, :], chunk_rows, offset=scores.mean)[:, 0]
    z[near[inside]] = _without_itself(z[near[inside]], text[inside])
    gamma = rule_r1(z[near[inside]])
    return start._replace(z=z, core=near[inside], gamma_z=gamma, spread=spread, mean=mean)


def _above(
    z: Float32[np.ndarray, " n"], scores: CoarseScores, gamma: float
) -> Int64[np.ndarray, " g"]:
    """Scored rows with z above gamma, by falling z."""
    rows = np.flatnonzero(scores.scored & (z > gamma))
    return rows[np.argsort(-z[rows], kind="stable")]


def _without_itself(
    z: Float32[np.ndarray, " m"], text: Float32[np.ndarray, "m d"]
) -> Float32[np.ndarray, " m"]:
    """Leave-one-out z of members whose z against their own mean is given."""
    m = z.size
    own = np.einsum("md,md->m", text, text)
    return ((m * z - own) / max(m - 1, 1)).astype(np.float32)
