"""Outlier factors of points from the distances to their k nearest neighbours.

With r_i(x) the distance of x to its i-th neighbour and N(x) its k neighbours:

    LID(x)  = -(1/k sum_i ln(r_i(x) / r_k(x)))^-1              Amsaleg et al. 2015, Eq. 5 (MLE)
    SLOF(x) = 1/k sum_{o in N(x)} r_k(x) / r_k(o)              Schubert et al. 2014
    DAO(x)  = 1/k sum_{o in N(x)} (r_k(x) / r_k(o))^LID(o)     Anderberg et al. 2024

Cost: O(n k), one gather of n k numbers. Distances below `SMALLEST` are taken as that much, so that
copies of a point neither divide by zero nor count as infinitely dense.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

SMALLEST, LARGEST_DIMENSION = 1e-6, 1e4


@jax.jit
def local_dimension(distances: Float[Array, "n k"]) -> Float[Array, " n"]:
    """LID, the local intrinsic dimension; at most `LARGEST_DIMENSION` (all k equally far).

    Args:
        distances: to the k nearest neighbours, ascending; not to itself.
    """
    r = jnp.maximum(distances, SMALLEST)
    mean = jnp.mean(jnp.log(r[:, -1:] / r), axis=1)
    return 1 / jnp.maximum(mean, 1 / LARGEST_DIMENSION)


@jax.jit
def simplified_factor(
    distances: Float[Array, "n k"], rows: Int[Array, "n k"]
) -> Float[Array, " n"]:
    """SLOF: how much sparser a point lies than its neighbours; about 1 inside a cluster.

    Args:
        distances: as in `local_dimension`.
        rows: the neighbours' row numbers.
    """
    far = jnp.maximum(distances[:, -1], SMALLEST)
    return jnp.mean(far[:, None] / far[rows], axis=1)


@jax.jit
def dimensional_factor(
    distances: Float[Array, "n k"], rows: Int[Array, "n k"]
) -> Float[Array, " n"]:
    """The logarithm of DAO; about 0 inside a cluster.

    It ranks as DAO does and does not overflow where dimensions are large.

    Args:
        distances: as in `local_dimension`.
        rows: the neighbours' row numbers.
    """
    far = jnp.log(jnp.maximum(distances[:, -1], SMALLEST))
    terms = local_dimension(distances)[rows] * (far[:, None] - far[rows])
    return jax.nn.logsumexp(terms, axis=1) - jnp.log(distances.shape[1])
