"""Triggers pixel by pixel, in float64."""

import math

import numpy as np


def cubic(distance: float) -> float:
    a, d = -0.75, abs(distance)
    if d <= 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    if d < 2:
        return a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
    return 0.0


def enlarge(grid: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bicubic, corners on corners, edge samples repeated."""
    k, l, channels = grid.shape
    out = np.zeros((height, width, channels))
    for i in range(height):
        for j in range(width):
            y, x = i * (k - 1) / (height - 1), j * (l - 1) / (width - 1)
            for m in range(math.floor(y) - 1, math.floor(y) + 3):
                for n in range(math.floor(x) - 1, math.floor(x) + 3):
                    weight = cubic(y - m) * cubic(x - n)
                    out[i, j] += weight * grid[min(max(m, 0), k - 1), min(max(n, 0), l - 1)]
    return out


def grid_sample(image: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """The image at normalised (x, y) in [-1, 1], bilinear, corners aligned."""
    height, width, _ = image.shape
    out = np.zeros(grid.shape[:2] + image.shape[2:])
    for i in range(grid.shape[0]):
        for j in range(grid.shape[1]):
            x = (grid[i, j, 0] + 1) / 2 * (width - 1)
            y = (grid[i, j, 1] + 1) / 2 * (height - 1)
            for m in (math.floor(y), math.floor(y) + 1):
                for n in (math.floor(x), math.floor(x) + 1):
                    if 0 <= m < height and 0 <= n < width:
                        out[i, j] += (1 - abs(y - m)) * (1 - abs(x - n)) * image[m, n]
    return out


def wanet(image: np.ndarray, noise: np.ndarray, strength: float) -> np.ndarray:
    """Warp by a noise grid in [-1, 1] whose last axis is (x, y), as the reference does it."""
    height, width, _ = image.shape
    noise = noise / np.abs(noise).mean()
    field = enlarge(noise, height, width)
    grid = np.zeros((height, width, 2))
    for i in range(height):
        for j in range(width):
            x = -1 + 2 * j / (width - 1) + strength * field[i, j, 0] / width
            y = -1 + 2 * i / (height - 1) + strength * field[i, j, 1] / height
            grid[i, j] = min(max(x, -1), 1), min(max(y, -1), 1)
    return grid_sample(image, grid)


def mix(image: np.ndarray, pattern: np.ndarray, alpha: float) -> np.ndarray:
    out = np.zeros(image.shape)
    for place in np.ndindex(image.shape):
        out[place] = min(max((1 - alpha) * image[place] + alpha * pattern[place], 0), 1)
    return out


def sig(image: np.ndarray, amplitude: float, frequency: float) -> np.ndarray:
    out = np.zeros(image.shape)
    for i, j, k in np.ndindex(image.shape):
        wave = amplitude * math.sin(2 * math.pi * j * frequency / image.shape[1])
        out[i, j, k] = min(max(image[i, j, k] + wave, 0), 1)
    return out


def triangles(size: int, side: int) -> np.ndarray:
    """Greys of the lattice; 0 where there is no cell."""
    out = np.zeros((size, size))
    for i in range(size // side):
        for j in range(size // side):
            for x in range(side):
                for y in range(side):
                    out[i * side + x, j * side + y] = 0.4 if x >= y else 0.8
    return out
