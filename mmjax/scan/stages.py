"""The scores of a scan, from embeddings to verdicts: coarse stage, fine stage (DESIGN 3).

Pure functions of a list of `EmbeddingBlock`s, which may be memory-mapped: embeddings are read a
chunk at a time (once for the coarse stage, two or three times for the fine one, which looks at a
sample besides); what is kept is about 40 bytes a row and, in robust mode, the captions in half
precision and the nearest neighbours of those that may be wrong. Nothing here is encoded, so other
thresholds take seconds.
"""

from collections.abc import Sequence

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Bool

from mmjax.core.errors import WeightsError
from mmjax.ops.gmm import Mixture, coverage_cut, fit_mixture
from mmjax.scan import coarse, fine
from mmjax.scan.blocks import EmbeddingBlock, chunk_size
from mmjax.scan.coarse import COARSE
from mmjax.scan.kept import Recall, anew
from mmjax.scan.mapping import Mapping
from mmjax.scan.options import StageConfig
from mmjax.scan.scores import (
    BENIGN,
    MISMATCHED,
    POISONED,
    UNDETERMINED,
    UNSCORED,
    VERDICTS,
    Histogram,
    Scores,
    StageResult,
    Thresholds,
)

__all__ = ["COARSE", "VERDICTS", "EmbeddingBlock", "StageConfig", "StageResult", "columns", "score"]

_BINS = 200


def score(
    blocks: Sequence[EmbeddingBlock],
    mapping: Mapping,
    config: StageConfig | None = None,
    *,
    mesh: Mesh | None = None,
    recall: Recall = anew,
) -> StageResult:
    """Score every pair and judge it.

    Args:
        blocks: the set's embeddings, a block a shard.
        mapping: F, fitted on embeddings of the same weights.
        config: see `StageConfig`.
        mesh: devices that share the neighbour searches, which cost most; None = one. The result
            is the same on any number.
        recall: may know figures that do not depend on `config` from an earlier call.

    Returns:
        Every scored row is benign, poisoned, mismatched or, when the set is too small or its
        consistency says nothing, undetermined (then `warnings` says why).

    Raises:
        ConfigError: robust mode with gamma_z.
        WeightsError: the mapping has another width than the embeddings, or no calibration.
    """
    config = config or StageConfig()
    config.validate()
    rows_at_once = chunk_size(blocks, config.chunk_rows)
    first = recall(
        "coarse", coarse.CoarseScores, lambda: coarse.score_blocks(blocks, mapping, rows_at_once)
    )
    offsets = (0, *np.cumsum([b.valid.shape[0] for b in blocks]).tolist())
    rows = np.flatnonzero(first.scored)
    c = first.absolute
    problem = _degenerate(c[rows], config.components)
    if problem:
        return _undetermined(first, offsets, problem)
    of = f"of-{config.components}"
    mixture = recall(
        f"mixture-{of}", Mixture, lambda: fit_mixture(c[rows], components=config.components)
    )
    assigned = recall(f"assigned-{of}", coarse.Assignment, lambda: coarse.assign(mixture, c))
    benign = coarse.benign_rows(mixture, c, assigned.lowest, config.gamma, config.select)
    spared = benign if config.fine_scope == "suspicious" else None
    found = _fine(blocks, first, mapping, config, rows_at_once, spared, mesh, recall)
    codes = coarse.partition(first.scored, benign, found.seeds)
    flagged, points = found.flagged, found.points.copy()
    verdict = np.where(found.mismatched, MISMATCHED, BENIGN).astype(np.int8)
    verdict[flagged], verdict[~first.scored] = POISONED, UNSCORED
    group = np.full(codes.shape, -1, np.int32)
    for number, members in enumerate(found.groups):
        group[members.rows] = number
    points[~first.scored] = 0.0
    return StageResult(
        scores=Scores(
            first.sim_original,
            first.sim_generated,
            c,
            assigned.component,
            assigned.lowest,
            codes,
            found.z,
            points,
            found.wrong,
            group,
            verdict,
        ),
        offsets=offsets,
        mixture=mixture,
        thresholds=_thresholds(mixture, found, first.scored, flagged, config),
        found=found,
        evidence=bool(flagged.any()),
        consistency_histogram=_histogram(c[rows], flagged[rows]),
        correlation_histogram=_histogram(found.z[rows], flagged[rows]),
        warnings=_warnings(mixture, mapping),
    )


def columns(result: StageResult, shard: int) -> dict[str, np.ndarray]:
    """One shard's score columns by their names in the verdict files, strings spelt out."""
    here = slice(result.offsets[shard], result.offsets[shard + 1])
    table = {name: values[here] for name, values in result.scores._asdict().items()}
    table["coarse"] = np.array(COARSE)[table["coarse"]]
    table["verdict"] = np.array(VERDICTS)[table["verdict"]]
    table["is_poisoned"] = table["verdict"] == "poisoned"
    return table


def _degenerate(c: np.ndarray, components: int) -> str:
    """Why a set's consistency cannot be judged; empty when it can."""
    if not c.size:
        return "no pair could be scored"
    if c.size < components:
        return f"only {c.size} pair(s) could be scored, fewer than the {components} components"
    if float(c.max() - c.min()) < 1e-6:
        return f"every pair has the same consistency ({float(c[0]):.6f})"
    return ""


def _undetermined(
    first: coarse.CoarseScores, offsets: tuple[int, ...], problem: str
) -> StageResult:
    n = first.scored.shape[0]
    zero, codes = np.zeros(n, np.float32), np.zeros(n, np.int8)
    kept = np.flatnonzero(first.scored)
    verdict = np.where(first.scored, UNDETERMINED, UNSCORED).astype(np.int8)
    coarse_codes = np.where(first.scored, coarse.SUSPICIOUS, coarse.UNSCORED).astype(np.int8)
    empty = _histogram(first.absolute[kept], np.zeros(kept.size, bool))
    return StageResult(
        Scores(
            first.sim_original,
            first.sim_generated,
            first.absolute,
            codes,
            zero,
            coarse_codes,
            zero,
            zero,
            np.full(n, np.nan, np.float32),
            np.full(n, -1, np.int32),
            verdict,
        ),
        offsets,
        None,
        Thresholds(None),
        None,
        False,
        empty,
        _histogram(zero[kept], np.zeros(kept.size, bool)),
        (f"{problem}: nothing is judged",),
    )


def _fine(
    blocks: Sequence[EmbeddingBlock],
    first: coarse.CoarseScores,
    mapping: Mapping,
    config: StageConfig,
    chunk_rows: int,
    spared: Bool[np.ndarray, " n"] | None,
    mesh: Mesh | None,
    recall: Recall,
) -> fine.Fine:
    if config.mode == "paper":
        gamma_z = None if config.gamma_z == "auto" else config.gamma_z
        return fine.literal(
            blocks,
            first,
            seeds=config.seeds,
            gamma_z=gamma_z,
            seed=config.seed,
            chunk_rows=chunk_rows,
            spared=spared,
            recall=recall,
        )
    if mapping.calibration is None:
        raise WeightsError(
            "the mapping has no calibration, which mode=robust judges by; fit it again with "
            "`mmjax fit-mapping`, or use mode=paper"
        )
    return fine.robust(
        blocks,
        first,
        mapping.calibration,
        seeds=config.seeds,
        fdr=config.fdr,
        seed=config.seed,
        chunk_rows=chunk_rows,
        spared=spared,
        mesh=mesh,
        recall=recall,
    )


def _thresholds(
    mixture: Mixture,
    found: fine.Fine,
    scored: Bool[np.ndarray, " n"],
    flagged: Bool[np.ndarray, " n"],
    config: StageConfig,
) -> Thresholds:
    coverage = coverage_cut(mixture, config.gamma) if config.select == "coverage" else None
    if found.around is None:
        return Thresholds(coverage, gamma_z=found.gamma_z)
    poison = found.around.poison[flagged[scored]]
    if not poison.size:
        return Thresholds(coverage, fdr=config.fdr)
    benign = 1.0 - float(poison.mean())
    return Thresholds(coverage, fdr=config.fdr, poison=float(poison.min()), expected_fdr=benign)


def _histogram(values: np.ndarray, flagged: np.ndarray) -> Histogram:
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)
    edges = np.linspace(low, high if high > low else low + 1.0, _BINS + 1)
    return Histogram(
        edges,
        np.histogram(values, edges)[0].astype(np.int64),
        np.histogram(values[flagged], edges)[0].astype(np.int64),
    )


def _warnings(mixture: Mixture, mapping: Mapping) -> tuple[str, ...]:
    found = []
    if not mixture.converged:
        found.append("the mixture had not converged when it was stopped")
    if mixture.weights[0] < 0.01:
        found.append(
            f"the lowest mixture component holds only {mixture.weights[0]:.2%} of the pairs: "
            "the benign set is small"
        )
    correlation = mapping.diagnostics.get("held_out_correlation", 1.0)
    if correlation < 0.1:
        found.append(
            f"the mapping's s_g hardly follows s_o on clean pairs (correlation {correlation:.2f}): "
            "c ranks no better than the similarity itself"
        )
    reached = mapping.diagnostics.get("held_out_cosine", 1.0)
    if reached < mapping.diagnostics.get("held_out_sim_original", 0.0):
        found.append(
            f"the mapping predicts captions worse than the image itself does (cosine {reached:.2f} "
            "on clean pairs it was not fitted on): give it a larger reference, or kind=ridge"
        )
    return tuple(found)
