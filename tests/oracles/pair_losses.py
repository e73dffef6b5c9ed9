"""The contrastive loss of every pair by loops in float64."""

import numpy as np


def pair_losses(
    queries: np.ndarray, partners: np.ndarray, scale: float, among: np.ndarray
) -> list[float]:
    losses = []
    for i, query in enumerate(queries):
        logits = [
            scale * float(np.dot(query, partners[j]))
            for j in range(len(partners))
            if among[j] or j == i
        ]
        top = max(logits)
        total = top + np.log(sum(np.exp(value - top) for value in logits))
        losses.append(total - scale * float(np.dot(query, partners[i])))
    return losses


def gradient(queries, partners, scale, among, weights, eps=1e-6):
    """Central differences of the weighted sum of losses, in queries, partners and scale."""

    def total() -> float:
        return float(np.dot(weights, pair_losses(queries, partners, scale, among)))

    queries, partners = queries.astype(np.float64), partners.astype(np.float64)
    found = []
    for array in (queries, partners):
        slope = np.zeros_like(array)
        for at in np.ndindex(array.shape):
            old = array[at]
            array[at] = old + eps
            high = total()
            array[at] = old - eps
            low = total()
            array[at] = old
            slope[at] = (high - low) / (2 * eps)
        found.append(slope)
    scale += eps
    high = total()
    scale -= 2 * eps
    return (*found, (high - total()) / (2 * eps))
