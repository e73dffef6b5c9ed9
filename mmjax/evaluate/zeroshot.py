"""Zero-shot classification: the class whose prompts are nearest; top-k and per-class accuracy."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Float32, Int32

from mmjax.core.errors import ConfigError, InputError
from mmjax.core.mesh import DATA, batch_sharding, replicated
from mmjax.evaluate.embedding import batches, cosines

TOPS = (1, 3, 5)


class Accuracy(NamedTuple):
    """How often the right class is among the first ones.

    Fields:
        metrics: `accK` for K in 1, 3, 5, and `mean_per_class_recall` (the mean over the classes
            that have images of the share of theirs that is classified as such), in [0, 1].
        per_class: that share, by class; of a name that stands there twice the second has its number
            with it.
        images: how many were classified.
    """

    metrics: dict[str, float]
    per_class: dict[str, float]
    images: int


def nearest_classes(
    image: Float32[np.ndarray, "n d"],
    classifier: Float32[np.ndarray, "c d"],
    *,
    mesh: Mesh,
    top: int = max(TOPS),
    block: int = 4096,
) -> Int32[np.ndarray, "n k"]:
    """The classes with the greatest cosines, the greatest first; of equal ones the first class.

    Args:
        image: unit-norm embeddings.
        classifier: one unit-norm row a class (`embedding.class_embeddings`).
        mesh: rows of `image` are split over its axis `data`.
        top: how many classes at most.
        block: images at a time; memory is block x c.
    """
    k = min(top, len(classifier))
    whole, rows = replicated(mesh), batch_sharding(mesh)
    block = -(-block // mesh.shape[DATA]) * mesh.shape[DATA]

    @jax.jit
    def first(image: Float[Array, "b d"], classifier: Float[Array, "c d"]) -> Array:
        return jax.lax.top_k(cosines(image, classifier), k)[1]

    on_devices = jax.device_put(classifier, whole)
    parts = [np.zeros((0, k), np.int32)]
    for batch, count in batches(image, block):
        found = first(jax.device_put(batch, rows), on_devices)
        parts.append(np.asarray(found)[:count].astype(np.int32))
    return np.concatenate(parts)


def accuracy(
    nearest: Int32[np.ndarray, "n k"], labels: Int32[np.ndarray, " n"], classes: Sequence[str]
) -> Accuracy:
    """What `nearest_classes` found, judged by the truth.

    Raises:
        InputError: no image.
    """
    if not len(labels):
        raise InputError("no image to classify")
    right = nearest == labels[:, None]
    metrics = {f"acc{k}": float(right[:, :k].any(axis=1).mean()) for k in TOPS}
    named: dict[str, int] = {}
    for number, name in enumerate(classes):  # a name may stand for two classes
        named[f"{name} ({number})" if name in named else name] = number
    per_class = {
        name: float(right[labels == number, 0].mean())
        for name, number in named.items()
        if np.any(labels == number)
    }
    metrics["mean_per_class_recall"] = float(np.mean(list(per_class.values())))
    return Accuracy(metrics, per_class, len(labels))


def labels_of(captions: Sequence[str], classes: Sequence[str]) -> Int32[np.ndarray, " n"]:
    """The numbers that captions of a labelled set are.

    Raises:
        ConfigError: one is no number of a class.
    """
    for caption in captions:
        if not caption.strip().isdecimal() or int(caption) >= len(classes):
            raise ConfigError(
                f"the label {caption[:40]!r} is no number of the {len(classes)} classes; give "
                "their names with --classes=FILE"
            )
    return np.array([int(caption) for caption in captions], np.int32)
