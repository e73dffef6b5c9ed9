"""Each pair's own contrastive loss: the cross-entropy of finding its partner in the batch.

For unit-norm queries q_i, their partners t_i, an inverse temperature s and a set A of rows:

    loss_i = log(sum over j in A and j = i of exp(s <q_i, t_j>)) - s <q_i, t_i>

One direction; `contrastive.info_nce` is the mean of both, with all rows in A. Cost for n pairs of
width d: 2 n^2 d FLOPs forward, 8 n^2 d with gradients; n x chunk float32 logits at a time, formed
again in the backward pass.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Bool, Float

from mmjax.ops.contrastive import CHUNK, product

_ABSENT = -1e9  # finite: the gradient of a sum over nothing would be 0 / 0


@partial(jax.jit, static_argnames="chunk")
def pair_losses(
    queries: Float[Array, "b d"],
    partners: Float[Array, "b d"],
    scale: Float[Array, ""],
    among: Bool[Array, " b"],
    *,
    chunk: int = CHUNK,
) -> Float[Array, " b"]:
    """The loss of every row, in nats, at least 0.

    Args:
        queries: unit-norm embeddings, float32.
        partners: unit-norm embeddings that belong to them, row by row.
        scale: the inverse temperature itself, not its log.
        among: A, the rows whose partners a query is told from; its own always counts.
        chunk: columns of the logits that exist at a time.
    """
    return _losses(queries, partners, partners, scale, among, among, chunk)


@partial(jax.jit, static_argnames=("mesh", "chunk"))
def sharded_pair_losses(
    queries: Float[Array, "b d"],
    partners: Float[Array, "b d"],
    scale: Float[Array, ""],
    among: Bool[Array, " b"],
    *,
    mesh: Mesh,
    chunk: int = CHUNK,
) -> Float[Array, " b"]:
    """`pair_losses` over a batch that is split over the mesh axis `data`; so is what it returns.

    Collectives: an all-gather of b x d and one of b; in the backward pass a reduce-scatter of
    b x d and a psum of one number.
    """
    split = PartitionSpec("data")

    @partial(
        jax.shard_map, mesh=mesh, in_specs=(split, split, PartitionSpec(), split), out_specs=split
    )
    def body(
        queries: Float[Array, "r d"],
        partners: Float[Array, "r d"],
        scale: Float[Array, ""],
        among: Bool[Array, " r"],
    ) -> Float[Array, " r"]:
        every, every_among = (lax.all_gather(a, "data", tiled=True) for a in (partners, among))
        local_scale = lax.pcast(scale, "data", to="varying")
        return _losses(queries, partners, every, local_scale, among, every_among, chunk)

    return body(queries, partners, scale, among)


def _losses(
    queries: Float[Array, "r d"],
    partners: Float[Array, "r d"],
    every: Float[Array, "c d"],
    scale: Float[Array, ""],
    among: Bool[Array, " r"],
    every_among: Bool[Array, " c"],
    chunk: int,
) -> Float[Array, " r"]:
    """The losses of some rows against all columns."""
    count, width = every.shape
    chunk = min(chunk, count)
    lacking = -count % chunk
    columns = jnp.pad(every, ((0, lacking), (0, 0))).reshape(-1, chunk, width)
    counted = jnp.pad(every_among, (0, lacking)).reshape(-1, chunk)

    @partial(jax.checkpoint, prevent_cse=False)
    def block(each: tuple[Float[Array, "k d"], Bool[Array, " k"]]) -> Float[Array, " r"]:
        logits = jnp.where(each[1][None], scale * product(queries, each[0].T), _ABSENT)
        return jax.nn.logsumexp(logits, axis=1)

    total = jax.nn.logsumexp(lax.map(block, (columns, counted)), axis=0)
    matched = scale * jnp.sum(queries * partners, axis=1)
    return jnp.where(among, total, jnp.logaddexp(total, matched)) - matched
