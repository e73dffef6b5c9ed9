"""Rectified cosines and consistency, one pair at a time in float64 (CFBD Eq. 2-4)."""

import numpy as np


def rectified_cosine(a, b):
    total = 0.0
    for x, y in zip(a, b, strict=True):
        total += float(x) * float(y)
    return max(total, 0.0)


def consistency(image, text, generated):
    rows = []
    for i, t, g in zip(image, text, generated, strict=True):
        original, synthetic = rectified_cosine(i, t), rectified_cosine(i, g)
        rows.append(
            (original, synthetic, abs(synthetic - original), max(synthetic - original, 0.0))
        )
    return np.array(rows, np.float64).T
