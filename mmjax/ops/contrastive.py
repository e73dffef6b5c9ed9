"""Symmetric InfoNCE, the loss that CLIP is trained with.

For unit-norm rows z_i (images), z_t (captions), the i-th rows belonging together, and an inverse
temperature s (CLIP, arXiv 2103.00020, figure 3):

    logits = s * z_i z_t^T
    loss   = mean_i(logsumexp_j logits_ij + logsumexp_j logits_ji - 2 logits_ii) / 2

Cost for n pairs of width d: 2 n^2 d FLOPs forward, 6 n^2 d with gradients; n^2 float32 logits,
split over the devices in the sharded form.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float


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
    logits = scale * (image @ text.T)
    matched = jnp.diagonal(logits)
    rows = jax.nn.logsumexp(logits, axis=1)
    columns = jax.nn.logsumexp(logits, axis=0)
    return jnp.mean(rows + columns - 2 * matched) / 2


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


@partial(jax.jit, static_argnames="mesh")
def sharded_info_nce(
    image: Float[Array, "b d"], text: Float[Array, "b d"], scale: Float[Array, ""], *, mesh: Mesh
) -> Float[Array, ""]:
    """`info_nce` over a batch that is split over the mesh axis `data`.

    Each device forms its own rows of the logits once: captions are gathered, row sums are local,
    column sums are added up. Half of the products of the usual local loss, which forms both
    directions (open_clip:src/open_clip/loss.py `local_loss`). Collectives: one all-gather of b x d,
    a pmax and a psum of b, a psum of one number.

    Args:
        image: as in `info_nce`; b is a multiple of the axis.
        text: as in `info_nce`.
        scale: as in `info_nce`.
        mesh: a mesh with the axis `data`.
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
        logits = scale * (image @ every_text.T)
        matched = scale * jnp.sum(image * text, axis=1)
        rows = jax.nn.logsumexp(logits, axis=1)
        # a common maximum a column, so that the devices' sums of exponentials can be added
        top = lax.pmax(lax.stop_gradient(jnp.max(logits, axis=0)), "data")
        columns = top + jnp.log(lax.psum(jnp.sum(jnp.exp(logits - top[None]), axis=0), "data"))
        total = lax.psum(jnp.sum(rows - 2 * matched), "data") + jnp.sum(columns)
        return total / (2 * logits.shape[1])

    return body(image, text, scale)
