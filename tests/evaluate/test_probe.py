import numpy as np
import pytest

from mmjax.core.errors import InputError
from mmjax.evaluate.probe import linear_probe

CLASSES = ("a", "b", "c", "unseen")


def clouds(rows: int, spread: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(0).normal(size=(3, 8))
    labels = np.arange(rows, dtype=np.int32) % 3
    x = centres[labels] + spread * rng.normal(size=(rows, 8))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32), labels


def test_separable_classes_are_told_apart():
    found = linear_probe(*clouds(90, 0.1, 1), *clouds(60, 0.1, 2), CLASSES)
    assert found.found.metrics["acc1"] == 1
    assert set(found.found.per_class) == {"a", "b", "c"}
    assert found.strength == min(c for c, score in found.tried.items() if score == 1)
    assert found.converged


def test_shuffled_labels_teach_nothing():
    x, y = clouds(90, 0.1, 1)
    shuffled = np.random.default_rng(3).permutation(y)
    found = linear_probe(x, shuffled, *clouds(300, 0.1, 2), CLASSES, strengths=(0.1, 1.0))
    assert found.found.metrics["acc1"] < 0.7


def test_the_held_out_part_chooses():
    # noise of many dimensions: little regularisation fits it, and is worse on what is held out
    rng = np.random.default_rng(4)
    x = rng.normal(size=(80, 60)).astype(np.float32)
    y = (x[:, 0] + 0.5 * rng.normal(size=80) > 0).astype(np.int32)
    found = linear_probe(x, y, x, y, ("a", "b"), strengths=(0.01, 1e4))
    assert found.tried[found.strength] == max(found.tried.values())
    assert found.strength == 0.01
    again = linear_probe(x, y, x, y, ("a", "b"), strengths=(0.01, 1e4))
    assert again == found
    other = linear_probe(x, y, x, y, ("a", "b"), strengths=(0.01, 1e4), seed=1)
    assert other.tried != found.tried


def test_two_classes_have_two_places():
    x, y = clouds(90, 0.1, 1)
    two = y < 2
    found = linear_probe(x[two], y[two], x[two], y[two], CLASSES)
    assert found.found.metrics["acc1"] == 1


def test_too_little_to_fit_on():
    x, y = clouds(9, 0.1, 1)
    with pytest.raises(InputError, match="images of one class only"):
        linear_probe(x[y == 0], y[y == 0], x, y, CLASSES)
    with pytest.raises(InputError, match="one image of 'c'"):
        linear_probe(x[:3], np.array([0, 0, 2], np.int32), x, y, CLASSES)
