"""SLOF and DAO as HanxunH/Detect-CLIP-Backdoor-Samples releases them, for parity with its numbers.

Read from `backdoor_sample_detector/{slof,dao}.py` at 024f0767. What differs from `ops.outliers`:

- neighbours are sought inside a batch, so that scores depend on its size and on the shuffle;
- the neighbours' numbers are positions in a list without the point itself, used as row numbers of
  the batch: those at or after its own are off by one (facts/cfbd.md 0.7);
- the k-distance of the point skips itself, that of its neighbours counts itself as the first;
- the dimensions of neighbours count their distance of 0 to themselves, as ln 1e-4;
- DAO is the mean of the logarithms, not the logarithm of the mean.

Its embeddings are those before normalisation; ours are unit-norm.
"""

import numpy as np
from jaxtyping import Float, Float32
from scipy.spatial.distance import cdist

BATCH = 256


def released_factor(
    rows: Float32[np.ndarray, "n d"],
    rng: np.random.Generator,
    *,
    k: int,
    dimensional: bool,
    batch: int = BATCH,
) -> Float32[np.ndarray, " n"]:
    """The released SLOF or, with `dimensional`, DAO of every row.

    Args:
        rows: image embeddings.
        rng: shuffles them into batches.
        k: neighbours; fewer where a batch has not k + 2 rows.
        dimensional: DAO instead of SLOF.
        batch: rows that are compared with one another; the remainder is spread over the others.
    """
    scores = np.zeros(rows.shape[0], np.float32)
    for members in np.array_split(rng.permutation(rows.shape[0]), max(len(rows) // batch, 1)):
        if members.size > 2:
            scores[members] = _of_batch(rows[members], min(k, members.size - 2), dimensional)
    return scores


def _of_batch(
    rows: Float32[np.ndarray, "b d"], k: int, dimensional: bool
) -> Float[np.ndarray, " b"]:
    b = rows.shape[0]
    every = cdist(rows, rows)
    others = every[~np.eye(b, dtype=bool)].reshape(b, b - 1)
    order = np.argsort(others, axis=1, kind="stable")
    own = np.take_along_axis(others, order[:, k : k + 1], axis=1)
    near = np.sort(every, axis=1)
    wrong = order[:, :k]  # row numbers after itself are one too low: kept, see above
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = own / near[wrong, k]
        if dimensional:
            dimension = -k / np.sum(np.log(near[:, :k] / near[:, k : k + 1] + 1e-4), axis=1)
            ratio = dimension[wrong] * np.log(ratio)
        return np.nan_to_num(ratio.mean(axis=1), nan=1000.0, posinf=1000.0, neginf=0.0)
