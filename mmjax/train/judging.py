"""What a model in training makes of every pair: its cosine, or its own contrastive loss.

All images and captions are embedded once, as at inference. The losses are those of fixed batches,
so that two epochs, or two pairs, differ by what the model has learned and not by their company.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Float32

from mmjax.core import keys
from mmjax.core.mesh import replicated
from mmjax.data.pairs import PairTable
from mmjax.data.stored_images import Images
from mmjax.data.tokenizer import Tokenizer, bucket_length
from mmjax.learn.sharding import put_batch
from mmjax.models.clip import Towers
from mmjax.ops.pair_losses import pair_losses

PyTree = Any
Judge = Literal["cosine", "loss"]

SHUFFLES = 4
"""Partitions into batches over which a pair's loss is averaged."""
_BATCHES = 32
"""Of which the losses are computed at a time."""


class PairEmbeddings(NamedTuple):
    """Unit-norm embeddings of all captions and of their images, and the inverse temperature."""

    image: Float32[np.ndarray, "m d"]
    text: Float32[np.ndarray, "m d"]
    scale: float


def judge(
    kind: Judge, pairs: PairEmbeddings, *, batch_size: int, seed: int
) -> Float32[np.ndarray, " m"]:
    """The cosine of every pair, or its loss in batches of `batch_size` (`fixed_losses`)."""
    if kind == "cosine":
        return np.sum(pairs.image * pairs.text, axis=1)
    return fixed_losses(pairs, batch_size=batch_size, seed=seed)


def embed_table(
    towers: Towers,
    variables: PyTree,
    table: PairTable,
    tokenizer: Tokenizer,
    *,
    batch_size: int,
    mesh: Mesh,
) -> PairEmbeddings:
    """Embed every image and every caption once, `batch_size` at a time over the mesh.

    With several processes each feeds its share of every batch, and all get everything.
    """
    encoded = tokenizer.encode([text for each in table.captions for text in each])
    length = bucket_length(int(encoded.lengths.max()), tokenizer.context_length)

    def embed(encode: Callable[..., Array], rows: Images) -> Float32[np.ndarray, "n d"]:
        run = jax.jit(encode, out_shardings=replicated(mesh))
        here, processes = jax.process_index(), jax.process_count()
        fed = slice(here * batch_size // processes, (here + 1) * batch_size // processes)
        found = []
        for start in range(0, len(rows), batch_size):
            places = np.minimum(np.arange(start, start + batch_size), len(rows) - 1)
            embedded = np.asarray(run(variables, put_batch(rows[places[fed]], mesh)))
            found.append(embedded[: len(rows) - start])
        return np.concatenate(found)

    image = embed(towers.encode_image, table.images)
    text = embed(towers.encode_text, encoded.ids[:, :length])
    scale = jax.jit(towers.logit_scale, out_shardings=replicated(mesh))(variables)
    return PairEmbeddings(image[table.owners], text, float(scale))


def fixed_losses(pairs: PairEmbeddings, *, batch_size: int, seed: int) -> Float32[np.ndarray, " m"]:
    """Every pair's symmetric InfoNCE in nats, the mean over `SHUFFLES` partitions into batches.

    The partitions depend on the seed alone. Where the last batch is not full, pairs of the first
    fill it up.
    """
    count = len(pairs.text)
    total = np.zeros(count, np.float64)
    for shuffle in range(SHUFFLES):
        order = keys.host(seed, "fixed batches", shuffle).permutation(count)
        batches = -(-count // batch_size)
        places = np.resize(order, (batches, batch_size))
        losses = np.empty(places.shape, np.float32)
        for start in range(0, batches, _BATCHES):
            some = np.resize(places[start : start + _BATCHES], (min(_BATCHES, batches), batch_size))
            found = np.asarray(
                _symmetric(pairs.image[some], pairs.text[some], jnp.float32(pairs.scale))
            )
            losses[start : start + _BATCHES] = found[: batches - start]
        total[order] += losses.reshape(-1)[:count]
    return (total / SHUFFLES).astype(np.float32)


@jax.jit
def _symmetric(
    image: Float[Array, "g b d"], text: Float[Array, "g b d"], scale: Float[Array, ""]
) -> Float[Array, "g b"]:
    """Both directions' mean loss of every pair in its batch."""

    def of_batch(pair: tuple[Float[Array, "b d"], Float[Array, "b d"]]) -> Float[Array, " b"]:
        everyone = jnp.ones(len(pair[0]), bool)
        there = pair_losses(*pair, scale, everyone)
        return (there + pair_losses(*pair[::-1], scale, everyone)) / 2

    return jax.lax.map(of_batch, (image, text))
