"""Linear probe: logistic regression on frozen image embeddings."""

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int32
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

from mmjax.core.errors import InputError
from mmjax.evaluate.zeroshot import TOPS, Accuracy, accuracy

STRENGTHS = (1e-1, 1e0, 1e1, 1e2, 1e3, 1e4)
"""Values of C that are tried: of unit-norm features, so larger than is usual."""
ITERATIONS, HELD_OUT = 1_000, 0.2


class Probe(NamedTuple):
    """A probe, judged on the test set.

    Fields:
        found: see `Accuracy`; a class that has no training image is never predicted.
        strength: the C that was best on the held-out fifth of the training set.
        tried: accuracy there, by C.
        converged: whether the last fit ended before `ITERATIONS` steps of L-BFGS.
    """

    found: Accuracy
    strength: float
    tried: dict[float, float]
    converged: bool


def linear_probe(
    train: Float32[np.ndarray, "n d"],
    train_labels: Int32[np.ndarray, " n"],
    test: Float32[np.ndarray, "m d"],
    test_labels: Int32[np.ndarray, " m"],
    classes: Sequence[str],
    *,
    seed: int = 0,
    strengths: Sequence[float] = STRENGTHS,
) -> Probe:
    """Fit on `train` with the C that is best on a held-out fifth of it; judge on `test`.

    The fifth is drawn by `seed`, of every class alike. Among equally good ones the smallest C wins.

    Raises:
        InputError: a class of the training set has fewer than two images, or there is one class.
    """
    counts = np.bincount(train_labels, minlength=len(classes))
    alone = next((name for name, count in zip(classes, counts, strict=True) if count == 1), None)
    present = int(np.count_nonzero(counts))
    if alone is not None or present < 2:
        what = f"one image of {alone!r}" if alone is not None else "images of one class only"
        raise InputError(f"a probe wants two images of at least two classes to fit on; got {what}")
    held_out = max(round(HELD_OUT * len(train)), present)
    rows = np.arange(len(train))
    fitted_on, judged_on = train_test_split(
        rows, test_size=held_out, random_state=seed, stratify=train_labels
    )
    tried = {}
    for strength in strengths:
        model, _ = _fit(train[fitted_on], train_labels[fitted_on], strength)
        tried[strength] = float(model.score(train[judged_on], train_labels[judged_on]))
    best = max(strengths, key=lambda strength: (tried[strength], -strength))
    model, converged = _fit(train, train_labels, best)
    scores = model.decision_function(test)
    if scores.ndim == 1:
        scores = np.stack([-scores, scores], axis=1)
    order = np.argsort(-scores, axis=1, kind="stable")[:, : max(TOPS)]
    nearest = model.classes_[order].astype(np.int32)
    return Probe(accuracy(nearest, test_labels, classes), best, tried, converged)


def _fit(
    features: np.ndarray, labels: np.ndarray, strength: float
) -> tuple[LogisticRegression, bool]:
    model = LogisticRegression(C=strength, max_iter=ITERATIONS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # told by `converged`
        model.fit(features.astype(np.float64), labels)
    return model, bool(np.all(model.n_iter_ < ITERATIONS))
