"""One-dimensional Gaussian mixture by expectation-maximisation (CFBD Eq. 5), weighted.

    p(c) = sum_k phi_k N(c | mu_k, sigma_k^2)                            (5)

The same EM runs on values and on a histogram of them (weights = counts). Each iteration is one
scan over blocks that stay in cache: about 20 n K FLOP, one read of the values, O(block K) working
memory. Sums inside a block are float32 about the current means, totals float64 (a local
`enable_x64`), so that the means agree with float64 to 1e-6 (facts/performance.md e). The counts of
a histogram float32 cannot add up to the tolerance: its sums are float64.
"""

from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float64, Num
from scipy.special import ndtr, ndtri

from mmjax.core.errors import InputError

BLOCK = 4_096
_TINY = 1e-300


class Mixture(NamedTuple):
    """A fitted mixture, components in order of their means.

    `log_likelihood` is the mean per unit of weight, in nats. There may be fewer components than
    were asked for (`fit_mixture`).
    """

    means: Float64[np.ndarray, " k"]
    variances: Float64[np.ndarray, " k"]
    weights: Float64[np.ndarray, " k"]
    log_likelihood: float
    converged: bool


def fit_mixture(
    values: Num[np.ndarray, " n"],
    value_weights: Num[np.ndarray, " n"] | None = None,
    *,
    components: int = 5,
    tolerance: float = 1e-7,
    max_iterations: int = 2_000,
    variance_floor: float = 1e-4,
    bins: int = 16_384,
    histogram_above: int = 10_000_000,
) -> Mixture:
    """Fit the mixture from three deterministic starts and keep the likeliest.

    The starts are partitions of the values: of equal mass, of equal width, and with half of the
    remaining mass each (for a long upper tail). Above `bins` values the starts are compared on
    a histogram and the best one is finished on the values; above `histogram_above` values the
    histogram's fit is the answer.

    Args:
        values: finite numbers.
        value_weights: how often each value counts, >= 0; None counts each once.
        components: K; reduced to the number of distinct values when there are fewer.
        tolerance: stop when the mean log-likelihood gains less than this in an iteration.
        max_iterations: for each start and for finishing.
        variance_floor: smallest variance of a component, as a share of the variance of all.
        bins: of the histogram.
        histogram_above: see above.

    Raises:
        InputError: no value of positive weight.
    """
    values = np.asarray(values, np.float32)
    counts = np.ones_like(values) if value_weights is None else np.asarray(value_weights)
    if value_weights is not None:
        values, counts = values[counts > 0], counts[counts > 0].astype(np.float32)
    if not values.size:
        raise InputError("a mixture wants at least one value, got none")
    coarse, coarse_counts = values, counts
    if values.size > bins:
        coarse, coarse_counts = to_histogram(values, counts, bins)
    order = np.argsort(coarse, kind="stable")
    ranked, mass = coarse[order].astype(np.float64), coarse_counts[order].astype(np.float64)
    floor = _floor(ranked, mass, variance_floor)
    components = min(components, np.unique(ranked).size)

    def run(x: np.ndarray, w: np.ndarray, start: Mixture) -> Mixture:
        return expectation_maximisation(
            x, w, start, tolerance=tolerance, max_iterations=max_iterations, floor=floor
        )

    starts = [_partition(ranked, mass, cut, floor) for cut in _cuts(ranked, mass, components)]
    best = max((run(coarse, coarse_counts, s) for s in starts), key=lambda m: m.log_likelihood)
    if coarse is not values and values.size <= histogram_above:
        best = run(values, counts, best)
    order = np.argsort(best.means, kind="stable")
    return best._replace(
        means=best.means[order], variances=best.variances[order], weights=best.weights[order]
    )


def expectation_maximisation(
    values: Num[np.ndarray, " n"],
    value_weights: Num[np.ndarray, " n"],
    start: Mixture,
    *,
    tolerance: float,
    max_iterations: int,
    floor: float,
) -> Mixture:
    """Plain EM from `start`, in float64 if `value_weights` are, else in float32 inside blocks.

    `floor` is the smallest variance. Components keep their order.
    """
    kind = np.float64 if value_weights.dtype == np.float64 else np.float32
    x, w = _blocks(np.asarray(values, kind)), _blocks(np.asarray(value_weights, kind))
    with jax.enable_x64(True):
        means, variances, weights, likelihood, converged = _em(
            x,
            w,
            np.asarray(start.means, np.float64),
            np.asarray(start.variances, np.float64),
            np.asarray(start.weights, np.float64),
            np.float64(tolerance),
            np.int32(max_iterations),
            np.float64(floor),
        )
        return Mixture(
            np.asarray(means),
            np.asarray(variances),
            np.asarray(weights),
            float(likelihood),
            bool(converged),
        )


def coverage_cut(mixture: Mixture, gamma: float) -> float:
    """mu_min + Phi^-1(gamma) sigma_min of the lowest-mean component: the benign set's upper end.

    gamma is the share of that component which the set covers, so a larger gamma admits more pairs,
    as Figure 6a of the paper has it; a posterior threshold would do the opposite
    (facts/cfbd.md 0.2).
    """
    lowest = int(np.argmin(mixture.means))
    return float(mixture.means[lowest] + ndtri(gamma) * np.sqrt(mixture.variances[lowest]))


def cumulative(mixture: Mixture, values: Num[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    """The mixture's distribution function at the values, in [0, 1]."""
    result = np.zeros(values.shape, np.float64)
    for mean, variance, weight in zip(
        mixture.means, mixture.variances, mixture.weights, strict=True
    ):
        result += weight * ndtr((values - mean) / np.sqrt(variance))
    return np.clip(result, 0.0, 1.0)


@jax.jit
def posterior(
    values: Float[Array, " n"],
    means: Float[Array, " k"],
    variances: Float[Array, " k"],
    weights: Float[Array, " k"],
) -> Float[Array, "n k"]:
    """Probability that a value came from each component; rows sum to 1, never NaN."""
    return jax.nn.softmax(_log_joint(values, means, variances, weights), axis=0).T


def to_histogram(
    values: Num[np.ndarray, " n"], value_weights: Num[np.ndarray, " n"], bins: int
) -> tuple[Float64[np.ndarray, " m"], Float64[np.ndarray, " m"]]:
    """(means of the non-empty bins, their weights): equal-width bins over the range."""
    low, high = float(values.min()), float(values.max())
    scale = bins / max(high - low, 1e-30)
    index = np.minimum(((values - low) * scale).astype(np.int64), bins - 1)
    mass = np.bincount(index, value_weights, bins)
    total = np.bincount(index, value_weights * (values.astype(np.float64) - low), bins)
    some = mass > 0
    centres = low + total[some] / mass[some]
    return centres, mass[some].astype(np.float64)


def _log_joint(x: Array, means: Array, variances: Array, weights: Array) -> Array:
    """log(phi_k N(x_i | mu_k, sigma_k^2)), shaped [k, n]."""
    scale = jnp.log(jnp.maximum(weights, 1e-30)) - 0.5 * jnp.log(2 * jnp.pi * variances)
    shifted = x[None, :] - means[:, None]
    return scale[:, None] - 0.5 * shifted * shifted / variances[:, None]


@jax.jit
def _em(
    x: Array,
    w: Array,
    means: Array,
    variances: Array,
    weights: Array,
    tolerance: Array,
    limit: Array,
    floor: Array,
) -> tuple[Array, ...]:
    """EM to convergence over blocks x, w [m, block]; parameters and totals float64."""
    mass = jnp.sum(w, dtype=jnp.float64)

    def sweep(means: Array, variances: Array, weights: Array) -> tuple[Array, Array]:
        """Totals of one E step: [3, k] moments about the rounded means, and log-likelihood."""
        mu, var, phi = (a.astype(x.dtype) for a in (means, variances, weights))

        def add(totals: Any, block: Any) -> tuple[Any, None]:
            xb, wb = block
            joint = _log_joint(xb, mu, var, phi)
            top = joint.max(axis=0)
            parts = jnp.exp(joint - top[None, :])  # once: most of the time goes here
            total = parts.sum(axis=0)
            evidence = top + jnp.log(total)
            share = parts * (wb / total)[None, :]
            away = xb[None, :] - mu[:, None]
            first = share * away
            moments = jnp.stack([share.sum(1), first.sum(1), (first * away).sum(1)])
            likelihood = jnp.sum(wb * evidence)
            return (
                totals[0] + moments.astype(jnp.float64),
                totals[1] + likelihood.astype(jnp.float64),
            ), None

        zero = (jnp.zeros((3, means.shape[0]), jnp.float64), jnp.zeros((), jnp.float64))
        totals, _ = jax.lax.scan(add, zero, (x, w))
        return totals

    def improve(carry: Any) -> Any:
        means, variances, weights, last, _, step = carry
        (share, first, second), likelihood = sweep(means, variances, weights)
        likelihood = likelihood / mass
        shift = first / jnp.maximum(share, _TINY)
        alive = share > 1e-9 * mass
        reference = means.astype(x.dtype).astype(jnp.float64)
        new_means = jnp.where(alive, reference + shift, means)
        spread = second / jnp.maximum(share, _TINY) - shift * shift
        new_variances = jnp.where(alive, jnp.maximum(spread, floor), variances)
        done = likelihood - last < tolerance
        return new_means, new_variances, share / mass, likelihood, done, step + 1

    def unfinished(carry: Any) -> Array:
        return jnp.logical_not(carry[4]) & (carry[5] < limit)

    start = (means, variances, weights, jnp.float64(-jnp.inf), jnp.array(False), jnp.int32(0))
    means, variances, weights, _, done, _ = jax.lax.while_loop(unfinished, improve, start)
    _, likelihood = sweep(means, variances, weights)
    return means, variances, weights, likelihood / mass, done


def _blocks(values: Float[np.ndarray, " n"]) -> Float[np.ndarray, "m b"]:
    """Zero-padded blocks of few shapes: one small block, or a quarter power of two of full ones."""
    size = min(BLOCK, max(1024, 1 << (values.size - 1).bit_length()))
    needed = -(-values.size // size)
    power = 2 ** max(needed.bit_length() - 3, 0)
    padded = np.zeros((-(-needed // power) * power, size), values.dtype)
    padded.reshape(-1)[: values.size] = values
    return padded


def _floor(ranked: np.ndarray, mass: np.ndarray, share: float) -> float:
    mean = np.average(ranked, weights=mass)
    return max(share * float(np.average((ranked - mean) ** 2, weights=mass)), 1e-12)


def _cuts(ranked: np.ndarray, mass: np.ndarray, k: int) -> list[np.ndarray]:
    """Index boundaries [k - 1] of three partitions of ranked values into k parts."""
    below = np.cumsum(mass) / mass.sum()
    find = partial(np.searchsorted, below, side="right")
    low, high = ranked[[min(int(find(q)), ranked.size - 1) for q in (0.001, 0.999)]]
    steps = np.arange(1, k) / k
    return [
        find(steps),
        np.searchsorted(ranked, low + steps * (high - low), side="right"),
        find(1 - 0.5 ** np.arange(1, k)),
    ]


def _partition(ranked: np.ndarray, mass: np.ndarray, cuts: np.ndarray, floor: float) -> Mixture:
    """The mixture whose components are the parts between the cuts; an empty part gets a value."""
    k, n = cuts.size + 1, ranked.size
    edges = np.concatenate([[0], cuts, [n]])
    for i in range(1, k):  # at least one value in each part, from the left and from the right
        edges[i] = max(edges[i], edges[i - 1] + 1)
    for i in range(k - 1, 0, -1):
        edges[i] = min(edges[i], edges[i + 1] - 1)
    parts = [slice(a, b) for a, b in pairwise(edges)]
    means = np.array([np.average(ranked[p], weights=mass[p]) for p in parts])
    spread = [
        np.average((ranked[p] - m) ** 2, weights=mass[p]) for p, m in zip(parts, means, strict=True)
    ]
    weights = np.array([mass[p].sum() for p in parts]) / mass.sum()
    return Mixture(means, np.maximum(spread, floor), weights, -np.inf, False)
