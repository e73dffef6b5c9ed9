"""Retrieval between images and captions: Hit@k and MedR in both directions, matched v. shuffled.

An image's answer is any of its captions (the best-placed one counts), a caption's answer is its
image; ties count as half. `auroc_matched` is the probability that a pair's cosine exceeds that of
a caption with another image: what a detector of mismatched pairs lives on.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Float32, Int32
from sklearn.metrics import roc_auc_score

from mmjax.data.pairs import PairTable
from mmjax.data.tokenizer import Tokenizer, bucket_length
from mmjax.models.clip import Towers
from mmjax.ops.ranking import best_ranks

HITS = (1, 5, 10)


def ranks(
    query: Float32[np.ndarray, "q d"],
    gallery: Float32[np.ndarray, "g d"],
    query_group: Int32[np.ndarray, " q"],
    gallery_group: Int32[np.ndarray, " g"],
    block: int = 512,
) -> Float32[np.ndarray, " q"]:
    """`ops.ranking.best_ranks`, `block` queries at a time: memory is block x g."""
    parts = []
    for start in range(0, len(query), block):
        rows, groups = query[start : start + block], query_group[start : start + block]
        lacking = block - len(rows)
        found = best_ranks(
            jnp.pad(rows, ((0, lacking), (0, 0))),
            gallery,
            jnp.pad(groups, (0, lacking)),
            gallery_group,
        )
        parts.append(np.asarray(found)[: len(rows)])
    return np.concatenate(parts)


def retrieval(
    image: Float32[np.ndarray, "n d"],
    text: Float32[np.ndarray, "m d"],
    owners: Int32[np.ndarray, " m"],
) -> dict[str, float]:
    """Figures of both directions.

    Args:
        image: unit-norm embeddings, one row an image.
        text: unit-norm embeddings, one row a caption.
        owners: for each caption, the row of its image.

    Returns:
        `image_to_text_hit@k` and `text_to_image_hit@k` in percent for k in 1, 5, 10;
        `..._medr`, the median rank; `auroc_matched`.
    """
    rows = np.arange(len(image), dtype=np.int32)
    directions = {
        "image_to_text": ranks(image, text, rows, owners),
        "text_to_image": ranks(text, image, owners, rows),
    }
    found: dict[str, float] = {}
    for name, each in directions.items():
        for k in HITS:
            found[f"{name}_hit@{k}"] = 100 * float(np.mean(each <= k))
        found[f"{name}_medr"] = float(np.median(each))
    found["auroc_matched"] = auroc_matched(image, text, owners)
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
    """`retrieval` of towers on decoded pairs; what `train.pipeline.train` calls at its end."""
    image = _encode(jax.jit(towers.encode_image), variables, table.images, batch_size)
    captions: Sequence[str] = [text for each in table.captions for text in each]
    encoded = tokenizer.encode(captions)
    length = bucket_length(int(encoded.lengths.max()), tokenizer.context_length)
    text = _encode(jax.jit(towers.encode_text), variables, encoded.ids[:, :length], batch_size)
    return retrieval(image, text, table.owners)


def _encode(
    encode: Any, variables: Mapping[str, Any], rows: np.ndarray, batch_size: int
) -> Float32[np.ndarray, "n d"]:
    """Embeddings of all rows; the last batch is padded by repeating its first row."""
    parts = []
    for start in range(0, len(rows), batch_size):
        batch = rows[start : start + batch_size]
        padding = np.repeat(batch[:1], batch_size - len(batch), axis=0)
        parts.append(np.asarray(encode(variables, np.concatenate([batch, padding])))[: len(batch)])
    return np.concatenate(parts)
