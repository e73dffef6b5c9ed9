"""PSNR and SSIM of one image, window by window, in float64."""

import math

import numpy as np


def psnr(x: np.ndarray, y: np.ndarray) -> float:
    total = 0.0
    for a, b in zip(x.reshape(-1), y.reshape(-1), strict=True):
        total += (float(a) - float(b)) ** 2
    return 10 * math.log10(1 / (total / x.size))


def ssim(x: np.ndarray, y: np.ndarray) -> float:
    """Wang et al. 2004 with their constants: 11x11 Gaussian window, deviation 1.5."""
    window = np.array(
        [
            [math.exp(-((i - 5) ** 2 + (j - 5) ** 2) / (2 * 1.5**2)) for j in range(11)]
            for i in range(11)
        ]
    )
    window /= window.sum()
    values = []
    for top in range(x.shape[0] - 10):
        for left in range(x.shape[1] - 10):
            for channel in range(x.shape[2]):
                a = x[top : top + 11, left : left + 11, channel].astype(np.float64)
                b = y[top : top + 11, left : left + 11, channel].astype(np.float64)
                m, n = (window * a).sum(), (window * b).sum()
                s, t = (window * (a - m) ** 2).sum(), (window * (b - n) ** 2).sum()
                st = (window * (a - m) * (b - n)).sum()
                numerator = (2 * m * n + 0.0001) * (2 * st + 0.0009)
                values.append(numerator / ((m * m + n * n + 0.0001) * (s + t + 0.0009)))
    return float(np.mean(values))
