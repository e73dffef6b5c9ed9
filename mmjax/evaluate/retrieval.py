"""Retrieval between images and captions: Hit@k and MedR in both directions, matched v. shuffled.

An image's answer is any of its captions (the best-placed one counts), a caption's answer is its
image; ties count as half. `auroc_matched` is the probability that a pair's cosine exceeds that of
a caption with another image: what a detector of mismatched pairs lives on.
"""

from collections.abc import Mapping
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
    directions = {
        "image_to_text": ranks(image, text, rows, owners, mesh=mesh),
        "text_to_image": ranks(text, image, owners, rows, mesh=mesh),
    }
    found: dict[str, float] = {}
    for name, each in directions.items():
        for k in HITS:
            found[f"{name}_hit@{k}"] = 100 * float(np.mean(each <= k))
        found[f"{name}_medr"] = float(np.median(each))
    found["auroc_matched"] = auroc_matched(image, text, owners)
    return found


def chance(owners: Int32[np.ndarray, " m"], images: int) -> dict[str, float]:
    """What `retrieval` finds of an encoder that knows nothing, exactly.

    The best of an image's c captions among m is beyond rank r with probability
    C(m - c, r) / C(m, r), averaged over images; the median is the least r where that is at most
    one half. An image stands at each of n ranks with equal probability.

    Args:
        owners: for each caption, the row of its image.
        images: how many there are.
    """
    captions = len(owners)
    sizes, counts = np.unique(np.bincount(owners, minlength=images), return_counts=True)
    taken = np.arange(captions)
    missed = np.clip(captions - sizes[:, None] - taken[None], 0, None) / (captions - taken)[None]
    beyond = np.average(np.cumprod(missed, axis=1), axis=0, weights=counts)
    found = {
        "image_to_text_medr": float(np.argmax(beyond <= 0.5)) + 1,
        "text_to_image_medr": float(-(-images // 2)),
    }
    for k in HITS:
        found[f"image_to_text_hit@{k}"] = 100 * float(1 - beyond[min(k, captions) - 1])
        found[f"text_to_image_hit@{k}"] = 100 * min(1.0, k / images)
    return found


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
