"""The mapping F of kind `ridge`: closed form, image embedding to mean caption embedding."""

from typing import Any

import numpy as np
from jaxtyping import Float64

from mmjax.scan.fitting import Groups, Reference

PyTree = Any


def fit_ridge(
    reference: Reference, train: Groups, held_out: Groups
) -> tuple[PyTree, dict[str, float]]:
    """Closed-form F(I) = unit((I - mean) W + mean caption), in float64.

    The penalty is the one of 9 (1e-4 ... 10 times the mean variance times n) whose predictions are
    closest, by cosine, to the held-out captions. Cost 2 n d^2 + d^3.
    """
    x = reference.image[train.images].astype(np.float64)
    y = mean_captions(reference, train)
    x_mean, y_mean = x.mean(0), y.mean(0)
    x, y = x - x_mean, y - y_mean
    values, vectors = np.linalg.eigh(x.T @ x)
    values, target = np.maximum(values, 0.0), vectors.T @ (x.T @ y)
    rotated = (reference.image[held_out.images].astype(np.float64) - x_mean) @ vectors
    wanted = mean_captions(reference, held_out)

    def solve(share: float) -> tuple[float, float, np.ndarray]:
        penalty = share * max(float(values.mean()), 1e-12)
        weights = target / (values + penalty)[:, None]
        return _mean_cosine(rotated @ weights + y_mean, wanted), penalty, weights

    solutions = (solve(share) for share in 10.0 ** np.arange(-4.0, 1.5, 0.625))
    _, penalty, weights = max(solutions, key=lambda solution: solution[0])
    params = {"kernel": vectors @ weights, "before": x_mean, "after": y_mean}
    return (
        {name: value.astype(np.float32) for name, value in params.items()},
        {"ridge_penalty": float(penalty)},
    )


def mean_captions(reference: Reference, groups: Groups) -> Float64[np.ndarray, "n d"]:
    """The mean caption embedding of every image, not renormalised."""
    text = reference.text[groups.order].astype(np.float64)
    sums = np.add.reduceat(text, groups.offsets[:-1], axis=0)
    return sums / np.diff(groups.offsets)[:, None]


def _mean_cosine(a: np.ndarray, b: np.ndarray) -> float:
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(np.mean(np.sum(a * b, axis=1) / np.maximum(norms, 1e-12)))
