"""What scoring says of a set: codes of verdicts, scores a row, thresholds (DESIGN 3)."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Float64, Int8, Int32, Int64

from mmjax.ops.gmm import Mixture
from mmjax.scan import fine

VERDICTS = ("", "benign", "poisoned", "mismatched", "undetermined")
UNSCORED, BENIGN, POISONED, MISMATCHED, UNDETERMINED = range(5)


class Histogram(NamedTuple):
    """Counts of all scored rows and of the flagged ones among them, in the same bins."""

    edges: Float64[np.ndarray, " bins_plus_1"]
    counts: Int64[np.ndarray, " bins"]
    flagged: Int64[np.ndarray, " bins"]


class Thresholds(NamedTuple):
    """Where the cuts lie; None where there is none.

    `coverage`: largest c of the benign set. Paper mode: a row of text_correlation > `gamma_z` is
    flagged. Robust mode: `fdr` was asked for, `poison` is the smallest probability of a flagged
    pair, `expected_fdr` the share of benign pairs among the flagged that it amounts to.
    """

    coverage: float | None
    gamma_z: float | None = None
    fdr: float | None = None
    poison: float | None = None
    expected_fdr: float | None = None


class Scores(NamedTuple):
    """One entry a row, over all shards in order; meaningless where `coarse` is 0.

    `coarse` and `verdict` are codes into `COARSE` and `VERDICTS`. `gmm_component` counts from the
    lowest mean; `gmm_probability` is the posterior of the lowest component. `text_correlation` is
    z, `mismatch_probability` that of a wrong pair, NaN in paper mode (`fine.Fine`). `group` counts
    from the largest group of poisoned pairs, -1 where there is none.
    """

    sim_original: Float32[np.ndarray, " n"]
    sim_generated: Float32[np.ndarray, " n"]
    consistency: Float32[np.ndarray, " n"]
    gmm_component: Int8[np.ndarray, " n"]
    gmm_probability: Float32[np.ndarray, " n"]
    coarse: Int8[np.ndarray, " n"]
    text_correlation: Float32[np.ndarray, " n"]
    poison_score: Float32[np.ndarray, " n"]
    mismatch_probability: Float32[np.ndarray, " n"]
    group: Int32[np.ndarray, " n"]
    verdict: Int8[np.ndarray, " n"]


class StageResult(NamedTuple):
    """Scores and verdicts of a set, and what they rest on.

    `offsets` are the first rows of the shards and the total. `found` is None when nothing could
    be scored. `evidence` says whether there is evidence of poisoning.
    """

    scores: Scores
    offsets: tuple[int, ...]
    mixture: Mixture | None
    thresholds: Thresholds
    found: fine.Fine | None
    evidence: bool
    consistency_histogram: Histogram
    correlation_histogram: Histogram
    warnings: tuple[str, ...]
