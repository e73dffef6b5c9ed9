"""The fine stage: which pairs are poison (CFBD section 2.3, and what replaces it).

`literal` is the paper's: textual correlation with the seeds, one threshold. `robust` asks of every
pair how likely it is a wrong one (`scan/calibration.py`), whether the wrong pairs around its
caption are more than chance puts there (`scan/neighbourhood.py`), and whether its image looks like
those of wrong pairs (`scan/image_view.py`).
"""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Float32, Int64

from mmjax.core import keys
from mmjax.ops.correlation import centre, text_correlation
from mmjax.scan.blocks import EmbeddingBlock, chunks, gather, total_rows
from mmjax.scan.calibration import Calibration, adapt, log_ratios, scale_of, standardised
from mmjax.scan.coarse import CoarseScores
from mmjax.scan.groups import Group, caption_graph, find_groups
from mmjax.scan.image_view import image_log_ratios
from mmjax.scan.kept import Recall, anew
from mmjax.scan.neighbourhood import Graph, Neighbourhood, flag, weigh
from mmjax.scan.seeds import NullTest, draw_pool, null_test, pick_rows, rule_r1, seed_count
from mmjax.scan.signals import Signals, read_signals

MOST_GROUPS = 16
"""Groups whose mean caption z is measured against."""


class Correlation(NamedTuple):
    """z of every row with k means."""

    z: Float32[np.ndarray, "n k"]


class View(NamedTuple):
    """Log ratios of the scored rows' images (`scan/image_view.py`)."""

    log_ratio: Float32[np.ndarray, " s"]


class Fine(NamedTuple):
    """What the fine stage found; arrays are over all rows, but `around` over the scored ones.

    `z` is the textual correlation: literal, with the mean of the seeds; robust, the largest with
    the mean caption of a flagged group, or with the seeds' where there is none. `points` are in
    [0, 1], above .5 for `flagged` pairs. `mismatched` pairs are wrong but not poisoned, `wrong` is
    their probability (NaN in the literal stage, which knows no such verdict). `gamma_z` is the
    threshold on z of the literal stage, None when it abstains. `wrong_share` estimates the share of
    all wrong pairs (`calibration.adapt`); literal, None.
    """

    z: Float32[np.ndarray, " n"]
    seeds: Int64[np.ndarray, " q"]
    flagged: Bool[np.ndarray, " n"]
    points: Float32[np.ndarray, " n"]
    mismatched: Bool[np.ndarray, " n"]
    wrong: Float32[np.ndarray, " n"]
    null: NullTest
    gamma_z: float | None
    around: Neighbourhood | None
    groups: tuple[Group, ...]
    wrong_share: float | None = None


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


def _recalled(
    recall: Recall,
    blocks: Sequence[EmbeddingBlock],
    scored: Bool[np.ndarray, " n"],
    means: Float32[np.ndarray, "k d"],
    chunk_rows: int,
    *,
    offset: Float32[np.ndarray, " d"] | None = None,
) -> Float32[np.ndarray, "n k"]:
    """`correlate`, unless an earlier decision came to the same means."""
    known = recall(
        f"z-{_digest(means, *(() if offset is None else (offset,)))}",
        Correlation,
        lambda: Correlation(correlate(blocks, scored, means, chunk_rows, offset=offset)),
    )
    return known.z


def _digest(*arrays: np.ndarray) -> str:
    """Names what follows from these arrays."""
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()[:16]


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
    gamma_z: float | None,
    seed: int,
    chunk_rows: int,
    spared: Bool[np.ndarray, " n"] | None = None,
    recall: Recall = anew,
) -> Fine:
    """The paper's text: D_p is the top q by |s_g - s_o|, all of it poison; z as in Eq. 6.

    z of a seed leaves itself out. Without `gamma_z` rule R1 sets it (facts/cfbd.md 4.6): the 5 %
    quantile of the seeds' z less their deviation, and nothing is flagged, not even D_p, where the
    seeds keep no closer together than random pairs do. `spared` is that of `robust`.
    """
    scored = np.flatnonzero(scores.scored)
    count = seed_count(scored.size, seeds)
    rows = pick_rows(blocks, scores.absolute, scored, count, one_per_image=False)
    text = gather(blocks, rows)[1]
    means = text.mean(axis=0)[None, :]
    z = _recalled(recall, blocks, scores.scored, means, chunk_rows)[:, 0].copy()
    z[rows] = _without_itself(z[rows], text)
    null = _null_test(blocks, scores, rows, seed, recall)
    spread = max(float(np.std(z[rows])), 0.02)
    nothing, unknown = np.zeros(z.shape, bool), np.full(z.shape, np.nan, np.float32)
    if gamma_z is None:
        gamma_z = rule_r1(z[rows]) if null.exceeds else None
    if gamma_z is None:
        points = _points(nothing, z / 2)
        return Fine(z, rows, nothing, points, nothing, unknown, null, None, None, ())
    flagged = scores.scored & (z > gamma_z)
    if spared is not None:
        flagged &= ~spared
    flagged[rows] = True
    likely = 1 / (1 + np.exp(-(z.astype(np.float64) - gamma_z) / spread))
    points = _points(flagged, np.where(flagged, 2 * likely - 1, 2 * likely))
    points[rows] = 1.0
    return Fine(z, rows, flagged, points, nothing, unknown, null, gamma_z, None, ())


def robust(
    blocks: Sequence[EmbeddingBlock],
    scores: CoarseScores,
    calibration: Calibration,
    *,
    seeds: int,
    fdr: float,
    seed: int,
    chunk_rows: int,
    spared: Bool[np.ndarray, " n"] | None = None,
    mesh: Mesh | None = None,
    recall: Recall = anew,
) -> Fine:
    """Wrong pairs that keep together more than chance would have it.

    Args:
        blocks: the embeddings.
        scores: the coarse stage's.
        calibration: what right and wrong pairs look like.
        seeds: q of `seed_count`; seeds are for the eye here, they decide nothing.
        fdr: expected share of benign pairs among those flagged, at most, and of right ones among
            the mismatched.
        seed: of the random samples behind the null test.
        chunk_rows: most embeddings read at a time.
        spared: rows that are neither poisoned nor mismatched unless they are seeds; None = none.
        mesh: devices that share the neighbour searches; None = one.
        recall: may know signals, neighbours and views, which no option moves.
    """
    scored = np.flatnonzero(scores.scored)
    count = seed_count(scored.size, seeds)
    rows = pick_rows(blocks, scores.signed, scored, count, one_per_image=True)
    signals = recall(
        "signals",
        Signals,
        lambda: read_signals(blocks, scores, calibration, chunk_rows, mesh=mesh),
    )
    scale = scale_of(signals.values)
    own, strangers = signals.values[signals.sample], signals.strangers
    adapted = adapt(calibration.weights, *(standardised(s, scale) for s in (own, strangers)))
    ratio = log_ratios(adapted.weights, signals.values, scale)
    graph = recall(
        "neighbours", Graph, lambda: caption_graph(blocks, scored, scores.mean, ratio, mesh=mesh)
    )

    def look() -> View:
        wrong = weigh(ratio, graph).wrong
        image_of, mean = graph.image_of, scores.image_mean
        return View(image_log_ratios(blocks, scored, image_of, mean, wrong, chunk_rows))

    view = recall("view", View, look).log_ratio
    around = weigh(ratio, graph, view)
    may = np.ones(scored.size, bool)
    if spared is not None:
        may = ~spared[scored] | np.isin(scored, rows)
    chosen = flag(np.where(may, around.poison, 0.0), fdr)
    merely = flag(np.where(may & ~chosen, around.wrong, 0.0), fdr)
    groups = tuple(g._replace(rows=scored[g.rows]) for g in find_groups(graph, chosen))
    means = [
        np.asarray(centre(gather(blocks, r)[1], jnp.asarray(scores.mean))).mean(axis=0)
        for r in [group.rows for group in groups[:MOST_GROUPS]] or [rows]
    ]
    z = _recalled(recall, blocks, scores.scored, np.stack(means), chunk_rows, offset=scores.mean)
    points = _points(chosen, np.where(chosen, around.poison, around.wrong))
    return Fine(
        z=z.max(axis=1),
        seeds=rows,
        flagged=_spread(chosen, scores.scored),
        points=_spread(points, scores.scored),
        mismatched=_spread(merely, scores.scored),
        wrong=_spread(around.wrong.astype(np.float32), scores.scored),
        null=_null_test(blocks, scores, rows, seed, recall),
        gamma_z=None,
        around=around,
        groups=groups,
        wrong_share=adapted.wrong,
    )


def _spread(values: np.ndarray, scored: Bool[np.ndarray, " n"]) -> np.ndarray:
    """Values of the scored rows as values of all, zero elsewhere."""
    every = np.zeros(scored.shape, values.dtype)
    every[scored] = values
    return every


def _null_test(
    blocks: Sequence[EmbeddingBlock],
    scores: CoarseScores,
    rows: Int64[np.ndarray, " q"],
    seed: int,
    recall: Recall,
) -> NullTest:
    """Do the seeds keep together more than random captions?"""

    def test() -> NullTest:
        scored = np.flatnonzero(scores.scored)
        pool = draw_pool(blocks, scored, scores.mean, keys.host(seed, "pool"))
        text = np.asarray(centre(gather(blocks, rows)[1], jnp.asarray(scores.mean)))
        return null_test(text, pool, keys.host(seed, "null"))

    return recall(f"null-{seed}-{_digest(rows)}", NullTest, test)


def _points(flagged: np.ndarray, likely: np.ndarray) -> Float32[np.ndarray, " n"]:
    """Likelihoods in [0, 1] to [0, .499], of flagged pairs to (.5, 1]."""
    # float32 may round a tiny margin to .5: the side it lies on must survive
    upper = np.maximum(0.5 + 0.5 * likely, 0.5 + 1e-6)
    return np.where(flagged, upper, 0.499 * np.clip(likely, 0, 1)).astype(np.float32)


def _without_itself(
    z: Float32[np.ndarray, " m"], text: Float32[np.ndarray, "m d"]
) -> Float32[np.ndarray, " m"]:
    """Leave-one-out z of members whose z against their own mean is given."""
    m = z.size
    own = np.einsum("md,md->m", text, text)
    return ((m * z - own) / max(m - 1, 1)).astype(np.float32)
