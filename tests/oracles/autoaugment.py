"""Operations on the colours of an image, pixel by pixel, after their definitions."""

import numpy as np


def solarize(image: np.ndarray, threshold: float) -> np.ndarray:
    return np.where(image < threshold, image, 255 - image)


def posterize(image: np.ndarray, bits: int) -> np.ndarray:
    return image // 2 ** (8 - bits) * 2 ** (8 - bits)


def autocontrast(image: np.ndarray) -> np.ndarray:
    result = image.copy()
    for channel in range(3):
        low, high = float(image[..., channel].min()), float(image[..., channel].max())
        if high > low:
            stretched = (image[..., channel] - low) * 255 / (high - low)
            result[..., channel] = np.floor(stretched)
    return result


def equalize(image: np.ndarray) -> np.ndarray:
    """Every value becomes its rank: the pixels below it, in steps of a 255th of the rest."""
    result = image.copy()
    for channel in range(3):
        counts = [int((image[..., channel] == value).sum()) for value in range(256)]
        present = [count for count in counts if count]
        step = (sum(present) - present[-1]) // 255
        if len(present) < 2 or not step:
            continue
        below = step // 2
        for value in range(256):
            result[..., channel][image[..., channel] == value] = min(below // step, 255)
            below += counts[value]
    return result


def colour(image: np.ndarray, factor: float) -> np.ndarray:
    """Away from the grey of every pixel, or towards it."""
    grey = image.astype(np.float64) @ np.array([0.299, 0.587, 0.114])
    grey = np.floor(grey + 0.5)[..., None]
    return np.clip(grey + factor * (image - grey), 0, 255)


def contrast(image: np.ndarray, factor: float) -> np.ndarray:
    """Away from the mean grey of the image, or towards it."""
    grey = np.floor(image.astype(np.float64) @ np.array([0.299, 0.587, 0.114]) + 0.5)
    mean = np.floor(grey.mean() + 0.5)
    return np.clip(mean + factor * (image - mean), 0, 255)
