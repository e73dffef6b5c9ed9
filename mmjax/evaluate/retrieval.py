"""Retrieval between images and captions: Hit@k and MedR in both directions, matched v. shuffled.

An image's answer is any of its captions (the best-placed one counts), a caption's answer is its
image; ties count as half. `auroc_matched` is the probability that a pair's cosine exceeds that of
a caption with another image: what a detector of mismatched pairs lives on.
"""

import bisect
import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, Float32, Int32
from sklearn.metrics import roc_auc_score

from mmjax.core.mesh import DATA, batch_sharding, local_mesh, replicated
from mmjax.data.pairs import PairTable
from mmjax.data.tokenizer import Tokenizer
from mmjax.evaluate.embedding import batches, make_embedder
from mmjax.models.clip import Towers
from mmjax.ops.ranking import best_ranks

HITS = (1, 5, 10)


def ranks(
    query: Float32[np.ndarray, "q d"],
    gallery: Float32[np.ndarray, "g d"],
    query_group: Int32[np.ndarray, " q"],
    gallery_group: Int32[np.ndarray, " g"],
    block: int = 512,
    *,
    mesh: Mesh | None = None,
) -> Float32[np.ndarray, " q"]:
    """`ops.ranking.best_ranks`, `block` queries at a time: memory is block x g.

    With a mesh the queries are split over its axis `data`; every device has the whole gallery.
    """
    mesh = mesh or local_mesh(1)
    block = -(-block // mesh.shape[DATA]) * mesh.shape[DATA]
    split = batch_sharding(mesh)
    searched, groups = jax.device_put((gallery, gallery_group), replicated(mesh))
    parts = [np.zeros(0, np.float32)]
    wanted = batches(query_group, block)
    for (rows, count), (own, _) in zip(batches(query, block), wanted, strict=True):
        rows, own = jax.device_put((rows, own), split)
        parts.append(np.asarray(best_ranks(rows, searched, own, groups))[:count])
    return np.concatenate(parts)


def retrieval(
    image: Float32[np.ndarray, "n d"],
    text: Float32[np.ndarray, "m d"],
    owners: Int32[np.ndarray, " m"],
    *,
    mesh: Mesh | None = None,
) -> dict[str, float]:
    """Figures of both directions.

    Args:
        image: unit-norm embeddings, one row an image.
        text: unit-norm embeddings, one row a caption.
        owners: for each caption, the row of its image.
        mesh: queries are split over its axis `data`; None = one device.

    Returns:
        `image_to_text_hit@k` and `text_to_image_hit@k` in percent for k in 1, 5, 10;
        `..._medr`, the median rank; `auroc_matched`.
    """
    rows = np.arange(len(image), dtype=np.int32)
    found = group_retrieval(image, text, rows, owners, mesh=mesh)
    found["auroc_matched"] = auroc_matched(image, text, owners)
    return found


def group_retrieval(
    image: Float32[np.ndarray, "n d"],
    text: Float32[np.ndarray, "m d"],
    image_group: Int32[np.ndarray, " n"],
    text_group: Int32[np.ndarray, " m"],
    *,
    mesh: Mesh | None = None,
) -> dict[str, float]:
    """`retrieval` where anything of the query's group is a right answer; the best-placed counts."""
    directions = {
        "image_to_text": ranks(image, text, image_group, text_group, mesh=mesh),
        "text_to_image": ranks(text, image, text_group, image_group, mesh=mesh),
    }
    found: dict[str, float] = {}
    for name, each in directions.items():
        for k in HITS:
            found[f"{name}_hit@{k}"] = 100 * float(np.mean(each <= k))
        found[f"{name}_medr"] = float(np.median(each))
    return found


def chance(owners: Int32[np.ndarray, " m"], images: int) -> dict[str, float]:
    """What `retrieval` finds of an encoder that knows nothing, exactly (`group_chance`).

    Args:
        owners: for each caption, the row of its image.
        images: how many there are.
    """
    return group_chance(np.arange(images, dtype=np.int32), owners)


def group_chance(
    image_group: Int32[np.ndarray, " n"], text_group: Int32[np.ndarray, " m"]
) -> dict[str, float]:
    """What `group_retrieval` finds of an encoder that knows nothing, exactly.

    The best of c right answers among m is beyond rank r with probability C(m - c, r) / C(m, r),
    averaged over queries; the median is the least r where that is at most one half.
    """
    directions = {
        "image_to_text": _by_chance(image_group, text_group),
        "text_to_image": _by_chance(text_group, image_group),
    }
    return {
        f"{name}_{figure}": v for name, each in directions.items() for figure, v in each.items()
    }


def _by_chance(
    query_group: Int32[np.ndarray, " q"], gallery_group: Int32[np.ndarray, " g"]
) -> dict[str, float]:
    total, groups = len(gallery_group), 1 + max(query_group.max(), gallery_group.max())
    right = np.bincount(gallery_group, minlength=groups)[query_group]
    sizes, counts = (each.tolist() for each in np.unique(right, return_counts=True))

    def beyond(rank: int) -> Fraction:
        missed = sum(n * math.comb(total - c, rank) for c, n in zip(sizes, counts, strict=True))
        return Fraction(missed, len(query_group) * math.comb(total, rank))

    median = bisect.bisect_left(range(total + 1), True, key=lambda r: 2 * beyond(r) <= 1)
    hits = {f"hit@{k}": float(100 * (1 - beyond(min(k, total)))) for k in HITS}
    return {**hits, "medr": float(median)}


def auroc_matched(
    image: Float[np.ndarray, "n d"], text: Float[np.ndarray, "m d"], owners: Int32[np.ndarray, " m"]
) -> float:
    """AUROC of the cosine between captions with their own image and with the next image but n/2."""
    matched = np.sum(image[owners] * text, axis=1)
    shuffled = np.sum(image[(owners + len(image) // 2) % len(image)] * text, axis=1)
    truth = np.repeat([1, 0], len(text))
    return float(roc_auc_score(truth, np.concatenate([matched, shuffled])))


def evaluate_pairs(
    towers: Towers,
    variables: Mapping[str, Any],
    tokenizer: Tokenizer,
    table: PairTable,
    batch_size: int = 256,
) -> dict[str, float]:
    """`retrieval` of towers on decoded pairs; what `train.pipeline.train` calls at its end.

    Only this process's devices take part: in a run of several it is the first one's affair.
    """
    mesh = local_mesh()
    embedder = make_embedder(towers, variables, tokenizer, mesh=mesh, batch_size=batch_size)
    image = embedder.images(table.images[:])
    text = embedder.captions([caption for each in table.captions for caption in each])
    return retrieval(image, text, table.owners, mesh=mesh)
