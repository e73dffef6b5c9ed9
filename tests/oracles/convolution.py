"""Loop-style float64 convolution and 2x2 mean, as torch defines them (NHWC)."""

import numpy as np


def convolve(x: np.ndarray, kernel: np.ndarray, stride: int) -> np.ndarray:
    """Cross-correlation with zero padding of k // 2."""
    batch, height, width, _ = x.shape
    size, _, _, features = kernel.shape
    margin = size // 2
    padded = np.zeros((batch, height + 2 * margin, width + 2 * margin, x.shape[-1]))
    padded[:, margin : margin + height, margin : margin + width] = x
    rows = range(0, padded.shape[1] - size + 1, stride)
    columns = range(0, padded.shape[2] - size + 1, stride)
    out = np.zeros((batch, len(rows), len(columns), features))
    for p, i in enumerate(rows):
        for q, j in enumerate(columns):
            window = padded[:, i : i + size, j : j + size]
            out[:, p, q] = np.einsum("bijc,ijco->bo", window, kernel.astype(np.float64))
    return out


def pool(x: np.ndarray) -> np.ndarray:
    """Means over 2x2 squares; an odd last row or column is left out."""
    batch, height, width, channels = x.shape
    out = np.zeros((batch, height // 2, width // 2, channels))
    for p in range(height // 2):
        for q in range(width // 2):
            square = x[:, 2 * p : 2 * p + 2, 2 * q : 2 * q + 2].astype(np.float64)
            out[:, p, q] = square.mean(axis=(1, 2))
    return out
