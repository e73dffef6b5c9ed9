"""Cross-modality consistency of image–caption pairs (CFBD section 2.2, Eq. 2-4).

    s(a, b) = max(<a, b>, 0)                                             (2)
    s_o = s(I, T),   s_g = s(I, F(I))                                    (3)
    c = |s_g - s_o|                                                      (4)

A pair whose caption does not belong to its image has a small s_o while s_g stays where it was, so
c is large. Cost: 4 n d FLOP, reads 3 n d values once (memory-bound), writes 4 n.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


class Consistency(NamedTuple):
    """Scores of n pairs; all zero where the mask is False.

    `absolute` is Eq. 4; `signed` is (s_g - s_o)+, which leaves out the pairs whose caption fits
    *better* than the generated one (very literal captions): the better ranking of suspects
    (facts/cfbd.md 4.5).
    """

    sim_original: Float[Array, " n"]
    sim_generated: Float[Array, " n"]
    absolute: Float[Array, " n"]
    signed: Float[Array, " n"]


@jax.jit
def consistency(
    image: Float[Array, "n d"],
    text: Float[Array, "n d"],
    generated: Float[Array, "n d"],
    mask: Bool[Array, " n"],
) -> Consistency:
    """Scores of Eq. 2-4.

    Args:
        image: image embeddings I, unit-norm.
        text: caption embeddings T, unit-norm.
        generated: F(I), unit-norm.
        mask: rows that count.
    """
    original = rectified_cosine(image, text)
    synthetic = rectified_cosine(image, generated)
    difference = synthetic - original
    scores = Consistency(original, synthetic, jnp.abs(difference), jnp.maximum(difference, 0.0))
    return jax.tree.map(lambda score: jnp.where(mask, score, 0.0), scores)


def rectified_cosine(a: Float[Array, "n d"], b: Float[Array, "n d"]) -> Float[Array, " n"]:
    """max(<a_i, b_i>, 0) of unit-norm rows, summed in float32 (Eq. 2)."""
    return jnp.maximum(jnp.sum(a.astype(jnp.float32) * b.astype(jnp.float32), axis=-1), 0.0)
