"""InfoNCE by loops in float64."""

import numpy as np


def info_nce(image: np.ndarray, text: np.ndarray, scale: float) -> float:
    total = 0.0
    n = len(image)
    for i in range(n):
        to_text = [scale * float(np.dot(image[i], text[j])) for j in range(n)]
        to_image = [scale * float(np.dot(image[j], text[i])) for j in range(n)]
        for logits in (to_text, to_image):
            top = max(logits)
            total += top + np.log(sum(np.exp(value - top) for value in logits)) - logits[i]
    return total / (2 * n)


def triplets(
    anchor: np.ndarray, positive: np.ndarray, negative: np.ndarray, margin: float
) -> list[float]:
    """Every row's triplet loss."""
    losses = []
    for a, p, n in zip(anchor, positive, negative, strict=True):
        near, far = (sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) ** 0.5 for b in (p, n))
        losses.append(max(near - far + margin, 0.0))
    return losses


def gradient(image: np.ndarray, text: np.ndarray, scale: float, eps: float = 1e-6):
    """Central differences in image, text and scale."""

    def difference(array: np.ndarray, at, call) -> float:
        old = array[at]
        array[at] = old + eps
        high = call()
        array[at] = old - eps
        low = call()
        array[at] = old
        return (high - low) / (2 * eps)

    image, text = image.astype(np.float64), text.astype(np.float64)
    of_image, of_text = np.zeros_like(image), np.zeros_like(text)
    for at in np.ndindex(image.shape):
        of_image[at] = difference(image, at, lambda: info_nce(image, text, scale))
        of_text[at] = difference(text, at, lambda: info_nce(image, text, scale))
    of_scale = (info_nce(image, text, scale + eps) - info_nce(image, text, scale - eps)) / (2 * eps)
    return of_image, of_text, of_scale
