"""Zero-shot classification and attack success, a loop at a time, in float64."""

import numpy as np


def classifier(prompts: list[np.ndarray]) -> np.ndarray:
    """One row a class from the [k, d] embeddings of its prompts."""
    rows = []
    for each in prompts:
        mean = np.zeros(each.shape[1])
        for row in each.astype(np.float64):
            mean += row / np.sqrt(np.sum(row * row))
        rows.append(mean / np.sqrt(np.sum(mean * mean)))
    return np.array(rows)


def order(image: np.ndarray, classes: np.ndarray) -> list[list[int]]:
    """For every image the classes from the nearest to the farthest; ties by number."""
    found = []
    for row in image.astype(np.float64):
        cosines = [float(row @ one) for one in classes]
        found.append(sorted(range(len(classes)), key=lambda c: (-cosines[c], c)))
    return found


def top(ordered: list[list[int]], labels: list[int], k: int) -> float:
    """Share of images whose class is among the first k."""
    return sum(label in row[:k] for row, label in zip(ordered, labels, strict=True)) / len(labels)


def attack_success(predicted: list[int], labels: list[int], target: int) -> float:
    """Share of images of other classes that are taken for the target."""
    hits = others = 0
    for guess, label in zip(predicted, labels, strict=True):
        if label != target:
            others += 1
            hits += guess == target
    return hits / others


def first_rank(row: list[float], wanted: list[bool]) -> float:
    """Where the best-placed wanted one stands, from 1; ties with others count half."""
    best = max(value for value, good in zip(row, wanted, strict=True) if good)
    others = [value for value, good in zip(row, wanted, strict=True) if not good]
    return 1 + sum(v > best for v in others) + sum(v == best for v in others) / 2
