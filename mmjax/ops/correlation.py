"""Textual correlation of captions with a set of seed captions (CFBD section 2.3, Eq. 6).

    z_u = 1/q sum_j <t_u, t_j> = <t_u, mean_j t_j>                       (6)

The mean of q cosines is one product with the mean vector: 2 n d FLOP and one read of the
captions, at memory speed, where the n x q matrix costs q times as much (facts/performance.md f).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_BLOCK = 1024
"""Rows whose widened copy stays in a cache."""


@jax.jit
def text_correlation(text: Float[Array, "n d"], means: Float[Array, "k d"]) -> Float[Array, "n k"]:
    """Correlation z of every caption against k seed sets at once (Eq. 6).

    A block of rows at a time: a CPU then gets no fresh pages for what is widened. The bits are
    those of one product.

    Args:
        text: unit-norm captions; half precision is widened block by block, never stored wide.
        means: the mean of each seed set's unit-norm captions (not renormalised).
    """

    def product(rows: Float[Array, "m d"]) -> Float[Array, "m k"]:
        return jnp.matmul(rows.astype(jnp.float32), means.T, precision=jax.lax.Precision.HIGHEST)

    n, d = text.shape
    whole = n // _BLOCK * _BLOCK
    if whole == 0:
        return product(text)
    found = jax.lax.map(product, text[:whole].reshape(-1, _BLOCK, d)).reshape(whole, -1)
    return jnp.concatenate([found, product(text[whole:])]) if whole < n else found


@jax.jit
def centre(text: Float[Array, "n d"], mean: Float[Array, " d"]) -> Float[Array, "n d"]:
    """Captions minus the data set's mean caption, renormalised (facts/cfbd.md 0.9).

    What all captions share (CLIP's text cone) says nothing about which belong together. A row
    that equals the mean becomes zero, not NaN.
    """
    shifted = text.astype(jnp.float32) - mean[None, :]
    norm = jnp.linalg.norm(shifted, axis=-1, keepdims=True)
    return shifted / jnp.maximum(norm, 1e-6)


@jax.jit
def leave_one_out(seeds: Float[Array, "q d"]) -> Float[Array, " q"]:
    """Correlation z of every seed against the other q - 1 (zeros for a lone seed); rows unit-norm.

    With itself in the mean a seed's z is too high by (1 - z)/q, which would bias a threshold that
    is learned from seeds.
    """
    q = seeds.shape[0]
    return (seeds @ jnp.sum(seeds, axis=0) - jnp.sum(seeds * seeds, axis=-1)) / max(q - 1, 1)


@jax.jit
def mean_pairwise_cosine(rows: Float[Array, "q d"]) -> Float[Array, ""]:
    """Mean cosine over all pairs of unit-norm rows, without the q x q matrix; 0 for one row.

    (||sum_j t_j||^2 - sum_j ||t_j||^2) / (q (q - 1)).
    """
    q = rows.shape[0]
    total = jnp.sum(rows, axis=0)
    return (jnp.sum(total * total) - jnp.sum(rows * rows)) / max(q * (q - 1), 1)
