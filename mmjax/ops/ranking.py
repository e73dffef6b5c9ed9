"""Where the right answer stands when a gallery is sorted by similarity to a query.

    rank = 1 + |wrong answers above the best right one| + |wrong answers tied with it| / 2

Ties count as half (the expected rank under a random order), so a constant encoder gets chance.
Cost: one product, 2 q g d FLOPs; q g float32 similarities.
"""

import jax
import jax.numpy as jnp
from jax.lax import Precision
from jaxtyping import Array, Float, Int


@jax.jit
def best_ranks(
    query: Float[Array, "q d"],
    gallery: Float[Array, "g d"],
    query_group: Int[Array, " q"],
    gallery_group: Int[Array, " g"],
) -> Float[Array, " q"]:
    """Rank, from 1, of each query's best-placed right answer.

    Args:
        query: unit-norm embeddings of what is asked.
        gallery: unit-norm embeddings of what is searched.
        query_group: an answer is right when its group is the query's.
        gallery_group: groups of the gallery; a query without a right answer ranks behind it all.
    """
    similarity = jnp.matmul(query, gallery.T, precision=Precision.HIGHEST)
    right = query_group[:, None] == gallery_group[None]
    best = jnp.max(jnp.where(right, similarity, -jnp.inf), axis=1, keepdims=True)
    above = jnp.sum(~right & (similarity > best), axis=1)
    tied = jnp.sum(~right & (similarity == best), axis=1)
    return 1.0 + above + 0.5 * tied
