"""Antialiased bicubic resizing as a loop in float64 (Keys, a = -0.5, stretched by the scale)."""

import numpy as np


def kernel(x):
    x = abs(x)
    if x < 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    if x < 2:
        return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return 0.0


def weights(source, target, start=0.0, end=None):
    """Row i holds the weights of the source samples in sample i of the span [start, end)."""
    scale = ((source if end is None else end) - start) / target
    stretch = max(scale, 1.0)
    table = np.zeros((target, source))
    for i in range(target):
        centre = start + (i + 0.5) * scale
        for j in range(source):
            table[i, j] = kernel((j + 0.5 - centre) / stretch)
        table[i] /= table[i].sum()
    return table


def resize(pixels, width, height):
    """Horizontal pass first, each pass rounded to 8 bits."""
    across = np.einsum("ij,yjc->yic", weights(pixels.shape[1], width), pixels.astype(np.float64))
    across = np.clip(np.round(across), 0, 255)
    down = np.einsum("ij,jxc->ixc", weights(pixels.shape[0], height), across)
    return np.clip(np.round(down), 0, 255)


def fit_square(pixels, size):
    height, width = pixels.shape[:2]
    fitted = int(size * max(height, width) / min(height, width))
    start = round((fitted - size) / 2)
    if width >= height:
        return resize(pixels, fitted, size)[:, start : start + size]
    return resize(pixels, size, fitted)[start : start + size]
