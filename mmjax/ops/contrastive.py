"""Symmetric InfoNCE, the loss that CLIP is trained with.

For unit-norm rows z_i (images), z_t (captions), the i-th rows belonging together, and an inverse
temperature s (CLIP, arXiv 2103.00020, figure 3):

    logits = s * z_i z_t^T
    loss   = mean_i(logsumexp_j logits_ij + logsumexp_j logits_ji - 2 logits_ii) / 2

Cost for n pairs of width d: 2 n^2 d FLOPs forward, 6 n^2 d with gradients, and n^2 float32 logits.
The chunked forms hold n x chunk of them at a time and form them again in the backward pass:
8 n^2 d FLOPs, memory linear in n; the sharded form divides both by the number of devices. Products
are of float32 on every machine: a TPU would round their inputs to bfloat16 unless told.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float

CHUNK = 1024
"""Columns of the logits that the chunked forms hold at a time."""
product = partial(jnp.matmul, precision=lax.Precision.HIGHEST)
"""A matrix product of float32 numbers, none of them rounded first."""


@jax.jit
def info_nce(
    image: Float[Array, "b d"], text: Float[Array, "b d"], scale: Float[Array, ""]
) -> Float[Array, ""]:
    """Mean symmetric InfoNCE of one batch, in nats; ln b when nothing is aligned.

    Args:
        image: unit-norm image embeddings, float32.
        text: unit-norm caption embeddings of the same pairs.
        scale: the inverse temperature itself, not its log.
    """
    logits = scale * product(image, text.T)
    matched = jnp.diagonal(logits)
    rows = jax.nn.logsumexp(logits, axis=1)
    columns = jax.nn.logsumexp(logits, axis=0)
    return jnp.mean(rows + columns - 2 * matched) / 2


@jax.jit
def swapped_info_nce(
    image: Float[Array, "b d"],
    text: Float[Array, "b d"],
    others: Float[Array, "c b d"],
    scale: Float[Array, ""],
) -> Float[Array, "c b"]:
    """`info_nce` of the batch in which one caption is exchanged: for every exchange, exactly.

    A caption is one column of the logits, so that every row's logsumexp changes in one term. The
    sum of the terms that stay is taken from both sides of the column, not by subtraction, which
    would leave nothing of a pair that the model is sure of.
    Cost for c candidates: 2 (c + 1) b^2 d FLOPs, c b^2 float32.

    Args:
        image: unit-norm image embeddings.
        text: unit-norm caption embeddings of the same pairs.
        others: `others[m, j]` is what may stand in the place of `text[j]`.
        scale: the inverse temperature.

    Returns:
        At [m, j] the loss with `others[m, j]` in the place of `text[j]`, all else as it is.
    """
    logits = scale * product(image, text.T)
    outside = jnp.full((len(image), 1), -jnp.inf, logits.dtype)
    left = lax.cumlogsumexp(logits, axis=1)[:, :-1]
    right = lax.cumlogsumexp(logits, axis=1, reverse=True)[:, 1:]
    rest = jnp.logaddexp(
        jnp.concatenate([outside, left], axis=1), jnp.concatenate([right, outside], axis=1)
    )
    swapped = scale * product(image, others.mT)
    rows = jnp.sum(jnp.logaddexp(rest[None], swapped), axis=1)
    columns, matched = jax.nn.logsumexp(logits, axis=0), jnp.diagonal(logits)
    stays = jnp.sum(columns - 2 * matched) - (columns - 2 * matched)
    swapped_column = jax.nn.logsumexp(swapped, axis=1)
    swapped_matched = jnp.diagonal(swapped, axis1=1, axis2=2)
    return (rows + stays[None] + swapped_column - 2 * swapped_matched) / (2 * len(image))


@jax.jit
def triplet(
    anchor: Float[Array, "b d"],
    positive: Float[Array, "b d"],
    negative: Float[Array, "b d"],
    margin: Float[Array, ""] | float,
) -> Float[Array, ""]:
    """Mean triplet loss, max(|a - p| - |a - n| + margin, 0) with Euclidean distances.

    Args:
        anchor: embeddings that are drawn to `positive` and away from `negative`, row by row.
        positive: likewise.
        negative: likewise.
        margin: in the embeddings' unit; at most 2 between unit-norm rows.

    Source: Schroff et al. 2015 (arXiv:1503.03832), equation 1, with distances not squared, as
    torch has it (`TripletMarginLoss`) and BadCLIP uses it.
    """

    def distance(other: Float[Array, "b d"]) -> Float[Array, " b"]:
        # the gradient of a root is not finite at 0
        return jnp.sqrt(jnp.sum((anchor - other) ** 2, axis=1) + 1e-12)

    return jnp.mean(jax.nn.relu(distance(positive) - distance(negative) + margin))


@partial(jax.jit, static_argnames="chunk")
def chunked_info_nce(
    image: Float[Array, "b d"],
    text: Float[Array, "b d"],
    scale: Float[Array, ""],
    *,
    chunk: int = CHUNK,
) -> Float[Array, ""]:
    """`info_nce` in memory linear in b: b x `chunk` logits at a time."""
    rows, columns = _logsumexps(image, text, scale, chunk)
    matched = scale * jnp.sum(image * text, axis=1)
    return jnp.mean(rows + columns - 2 * matched) / 2


@partial(jax.jit, static_argnames=("mesh", "chunk"))
def sharded_info_nce(
    image: Float[Array, "b d"],
    text: Float[Array, "b d"],
    scale: Float[Array, ""],
    *,
    mesh: Mesh,
    chunk: int = CHUNK,
) -> Float[Array, ""]:
    """`info_nce` over a batch that is split over the mesh axis `data`.

    Each device forms its own rows of the logits once, `chunk` columns at a time: captions are
    gathered, row sums are local, column sums are added up. Half of the products of the usual local
    loss, which forms both directions (open_clip:src/open_clip/loss.py `local_loss`). Collectives:
    one all-gather of b x d, a pmax and a psum of b, a psum of one number; their transposes in the
    backward pass are a reduce-scatter of b x d and a psum of b.

    Args:
        image: as in `info_nce`; b is a multiple of the axis.
        text: as in `info_nce`.
        scale: as in `info_nce`.
        mesh: a mesh with the axis `data`.
        chunk: columns of the logits that exist at a time.
    """
    split = PartitionSpec("data")

    @partial(
        jax.shard_map,
        mesh=mesh,
        in_specs=(split, split, PartitionSpec()),
        out_specs=PartitionSpec(),
    )
    def body(
        image: Float[Array, "r d"], text: Float[Array, "r d"], scale: Float[Array, ""]
    ) -> Float[Array, ""]:
        every_text = lax.all_gather(text, "data", tiled=True)
        local_scale = lax.pcast(scale, "data", to="varying")
        rows, partial_columns = _logsumexps(image, every_text, local_scale, chunk)
        matched = local_scale * jnp.sum(image * text, axis=1)
        # a common maximum a column, so that the devices' sums of exponentials can be added
        top = lax.pmax(lax.stop_gradient(partial_columns), "data")
        columns = top + jnp.log(lax.psum(jnp.exp(partial_columns - top), "data"))
        total = lax.psum(jnp.sum(rows - 2 * matched), "data") + jnp.sum(columns)
        return total / (2 * columns.shape[0])

    return body(image, text, scale)


def _plain_logsumexps(
    image: Float[Array, "r d"], text: Float[Array, "c d"], scale: Float[Array, ""], chunk: int
) -> tuple[Float[Array, " r"], Float[Array, " c"]]:
    """The logsumexp of every row and of every column of scale * image text^T."""

    def block(columns: Float[Array, "k d"]) -> tuple[Float[Array, " r"], Float[Array, " k"]]:
        logits = scale * product(image, columns.T)
        return jax.nn.logsumexp(logits, axis=1), jax.nn.logsumexp(logits, axis=0)

    def add(rows: Float[Array, " r"], columns: Float[Array, "k d"]):
        more, of_columns = block(columns)
        return jnp.logaddexp(rows, more), of_columns

    first, others = _blocks(text, chunk)
    rows, of_first = block(first)
    rows, of_others = lax.scan(add, rows, others)
    return rows, jnp.concatenate([of_first, of_others.reshape(-1)])


_logsumexps = jax.custom_vjp(_plain_logsumexps, nondiff_argnums=(3,))


def _logsumexps_forward(image: Array, text: Array, scale: Array, chunk: int):
    sums = _logsumexps(image, text, scale, chunk)
    return sums, (image, text, scale, *sums)


def _logsumexps_backward(chunk: int, saved: tuple[Array, ...], cotangents: tuple[Array, Array]):
    image, text, scale, rows, columns = saved
    of_rows, of_columns = cotangents

    def block(text: Array, columns: Array, of_columns: Array) -> tuple[Array, Array, Array]:
        cosines = product(image, text.T)
        by_row = jnp.exp(scale * cosines - rows[:, None]) * of_rows[:, None]
        by_column = jnp.exp(scale * cosines - columns[None]) * of_columns[None]
        of_logits = by_row + by_column
        return (
            product(of_logits, text),
            jnp.sum(of_logits * cosines),
            product(of_logits.T, image),
        )

    def add(sums: tuple[Array, Array], each: tuple[Array, ...]):
        of_image, of_scale, of_text = block(*each)
        return (sums[0] + of_image, sums[1] + of_scale), of_text

    split = [_blocks(array, chunk) for array in (text, columns, of_columns)]
    of_image, of_scale, of_first = block(*(first for first, _ in split))
    (of_image, of_scale), of_others = lax.scan(
        add, (of_image, of_scale), tuple(others for _, others in split)
    )
    of_text = jnp.concatenate([of_first, of_others.reshape(-1, text.shape[1])])
    return scale * of_image, scale * of_text, of_scale


_logsumexps.defvjp(_logsumexps_forward, _logsumexps_backward)


def _blocks(array: Array, size: int) -> tuple[Array, Array]:
    """The first 1 to `size` rows, so many that the others are whole blocks; [n, size, ...]."""
    first = (array.shape[0] - 1) % size + 1
    return array[:first], array[first:].reshape(-1, size, *array.shape[1:])
