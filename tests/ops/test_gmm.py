import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.mixture import GaussianMixture

from mmjax.core.errors import InputError
from mmjax.ops import gmm
from mmjax.ops.gmm import (
    Mixture,
    coverage_cut,
    cumulative,
    expectation_maximisation,
    fit_mixture,
    posterior,
    to_histogram,
)
from tests.oracles import gmm as oracle

MIXTURES = {  # (share, mean, standard deviation) of the components
    "separate": ((0.5, 0.1, 0.02), (0.3, 0.3, 0.05), (0.2, 0.8, 0.1)),
    "skewed": ((0.7, 0.05, 0.03), (0.25, 0.12, 0.05), (0.05, 0.3, 0.05)),
    "overlapping": ((0.4, 0.3, 0.1), (0.4, 0.35, 0.08), (0.2, 0.6, 0.2)),
}


def draw(name, n, seed=0):
    rng = np.random.default_rng(seed)
    parts = [rng.normal(mean, sd, round(share * n)) for share, mean, sd in MIXTURES[name]]
    return rng.permutation(np.concatenate(parts)).astype(np.float32)


def start(values, k):
    means = np.quantile(values, (np.arange(k) + 0.5) / k).astype(np.float64)
    return Mixture(means, np.full(k, np.var(values) / k), np.full(k, 1 / k), -np.inf, False)


def run(values, counts, begin, iterations, tolerance=-np.inf):
    return expectation_maximisation(
        values, counts, begin, tolerance=tolerance, max_iterations=iterations, floor=1e-12
    )


def test_iterations_equal_the_oracle():
    values = draw("skewed", 300)
    counts = np.random.default_rng(1).integers(1, 5, values.size).astype(np.float32)
    begin = start(values, 3)
    got = run(values, counts, begin, 7)
    means, variances, weights = oracle.expectation_maximisation(
        values.tolist(), counts.tolist(), *begin[:3], iterations=7
    )
    np.testing.assert_allclose(got.means, means, atol=1e-6)
    np.testing.assert_allclose(got.variances, variances, rtol=1e-5)
    np.testing.assert_allclose(got.weights, weights, atol=1e-5)
    likelihood = oracle.mean_log_likelihood(
        values.tolist(), counts.tolist(), means, variances, weights
    )
    assert got.log_likelihood == pytest.approx(likelihood, abs=1e-5)


@pytest.mark.parametrize("name", MIXTURES)
def test_equals_scikit_learn(name):
    values = draw(name, 2_000)
    begin = start(values, 3)
    peer = GaussianMixture(
        3,
        covariance_type="spherical",
        tol=1e-8,
        max_iter=3000,
        reg_covar=0.0,
        means_init=begin.means[:, None],
        weights_init=begin.weights,
        precisions_init=1 / begin.variances,
    ).fit(values[:, None].astype(np.float64))
    got = run(values, np.ones_like(values), begin, 3000, tolerance=1e-8)
    assert got.log_likelihood == pytest.approx(
        peer.score(values[:, None].astype(np.float64)), abs=1e-3
    )
    assert got.converged


def test_blocked_means_are_exact_to_a_millionth():
    values = draw("skewed", 150_000)  # ten blocks
    begin = start(values, 3)
    got = run(values, np.ones_like(values), begin, 5)
    x = values.astype(np.float64)
    means, variances, weights = (a.copy() for a in begin[:3])
    for _ in range(5):  # the oracle's iteration, vectorised in float64 for so many values
        joint = np.log(weights) + norm.logpdf(x[:, None], means, np.sqrt(variances))
        share = np.exp(joint - np.logaddexp.reduce(joint, axis=1, keepdims=True))
        total = share.sum(axis=0)
        means = share.T @ x / total
        variances = np.sum(share * (x[:, None] - means) ** 2, axis=0) / total
        weights = total / x.size
    np.testing.assert_allclose(got.means, means, atol=1e-6)
    np.testing.assert_allclose(got.variances, variances, rtol=1e-5)


def test_weights_stand_for_repeated_values():
    values, counts = np.unique(np.round(draw("skewed", 4_000), 2), return_counts=True)
    every = np.repeat(values, counts)
    begin = start(every, 3)
    weighted, repeated = run(values, counts, begin, 30), run(every, np.ones_like(every), begin, 30)
    np.testing.assert_allclose(weighted.means, repeated.means, atol=1e-6)
    assert weighted.log_likelihood == pytest.approx(repeated.log_likelihood, abs=1e-6)


def test_histogram_mode_is_close_to_the_values():
    values = draw("skewed", 40_000)
    exact = fit_mixture(values, components=3)
    binned = fit_mixture(values, components=3, histogram_above=1_000)
    np.testing.assert_allclose(binned.means, exact.means, atol=2e-3)
    assert binned.log_likelihood == pytest.approx(exact.log_likelihood, abs=1e-3)


def test_a_histogram_of_millions_does_not_stop_early():
    """A bin's count times its log-likelihood has more digits than float32 keeps."""
    rng = np.random.default_rng(0)
    n = 1_000_000
    parts = [(0.106, 0.0093, 0.947), (0.678, 0.026, 0.043), (0.711, 0.041, 0.010)]
    values = np.concatenate([rng.normal(m, s, round(n * share)) for m, s, share in parts])
    found = fit_mixture(values, components=5, histogram_above=1_000)
    x, w = to_histogram(values.astype(np.float32), np.ones(len(values), np.float32), 16_384)
    floor = 1e-4 * np.average((x - np.average(x, weights=w)) ** 2, weights=w)
    alive = found.weights > 1e-9
    means, variances, weights = (each[alive] for each in found[:3])
    likelihoods = []
    for _ in range(100):
        joint = np.log(weights) - (x[:, None] - means) ** 2 / (2 * variances)
        joint -= np.log(2 * np.pi * variances) / 2
        evidence = np.logaddexp.reduce(joint, axis=1)
        likelihoods.append(np.average(evidence, weights=w))
        share = np.exp(joint - evidence[:, None]) * w[:, None]
        weights = share.sum(0) / share.sum()
        means = (share * x[:, None]).sum(0) / share.sum(0)
        spread = (share * (x[:, None] - means) ** 2).sum(0) / share.sum(0)
        variances = np.maximum(spread, floor)
    assert found.log_likelihood == pytest.approx(likelihoods[0], abs=1e-6)
    assert likelihoods[-1] - likelihoods[0] < 1e-5


def test_histogram_keeps_mass_and_mean():
    values = draw("separate", 1_000)
    centres, mass = to_histogram(values, np.ones_like(values), 64)
    assert mass.sum() == 1_000
    assert len(centres) <= 64
    assert np.average(centres, weights=mass) == pytest.approx(values.mean(), abs=1e-6)


def test_finds_what_made_the_values_and_is_sorted():
    found = fit_mixture(draw("separate", 4_000), components=2)
    assert np.all(np.diff(found.means) > 0)
    assert found.converged
    values = draw("separate", 4_000)
    likelihood = fit_mixture(values, components=3).log_likelihood
    truth = start(values, 3)
    assert likelihood >= run(values, np.ones_like(values), truth, 500, 1e-8).log_likelihood - 1e-3


@pytest.mark.parametrize(
    ("values", "components"),
    [([0.3], 1), ([0.3] * 50, 1), ([0.1, 0.2], 2), ([0.1] * 9 + [0.5], 2), ([0, 1, 2], 3)],
)
def test_fewer_components_when_degenerate(values, components):
    found = fit_mixture(np.array(values, np.float32), components=5)
    assert found.means.size == components
    assert np.all(np.isfinite([*found.means, *found.variances, *found.weights]))
    assert found.weights.sum() == pytest.approx(1.0)
    assert np.isfinite(coverage_cut(found, 0.9))


def test_no_value_is_an_error():
    with pytest.raises(InputError, match="at least one value"):
        fit_mixture(np.zeros(0, np.float32))
    with pytest.raises(InputError, match="at least one value"):
        fit_mixture(np.ones(3, np.float32), np.zeros(3, np.float32))


@settings(max_examples=15, deadline=None)
@given(st.lists(st.floats(0, 2, width=32), min_size=1, max_size=40))
def test_never_nan(values):
    found = fit_mixture(np.array(values, np.float32), components=3, max_iterations=20)
    probability = posterior(
        jnp.asarray(values, jnp.float32), *(jnp.asarray(p, jnp.float32) for p in found[:3])
    )
    assert np.all(np.isfinite([*found.means, *found.variances, *found.weights]))
    np.testing.assert_allclose(np.sum(probability, axis=1), 1.0, atol=1e-5)


# The paper's Figure 6a: poison in the benign set, by gamma and K. Coverage moves as it says,
# the posterior reading does not.
N_POISON = 300


@pytest.fixture(scope="module")
def figure_6a():
    rng = np.random.default_rng(0)
    benign = rng.gamma(2.0, 0.03, 30_000)
    poison = np.clip(rng.normal(0.24, 0.07, N_POISON), 0, None)
    c = np.concatenate([benign, poison]).astype(np.float32)
    return c, {k: fit_mixture(c, components=k) for k in (1, 5)}


def leaked(c, mixture, gamma):
    return int(np.sum(c[-N_POISON:] <= coverage_cut(mixture, gamma)))


def test_larger_gamma_admits_more(figure_6a):
    c, fits = figure_6a
    for mixture in fits.values():
        cuts = [coverage_cut(mixture, g) for g in (0.7, 0.8, 0.875, 0.9, 0.95)]
        assert np.all(np.diff(cuts) > 0)
        leaks = [leaked(c, mixture, g) for g in (0.7, 0.875, 0.95)]
        assert leaks == sorted(leaks)


def test_one_component_leaks_more_than_five(figure_6a):
    c, fits = figure_6a
    assert leaked(c, fits[1], 0.875) > leaked(c, fits[5], 0.9)


def test_cut_of_one_component_is_its_quantile(figure_6a):
    c, fits = figure_6a
    assert coverage_cut(fits[1], 0.875) == pytest.approx(c.mean() + 1.1503 * c.std(), rel=1e-3)


def test_posterior_moves_the_other_way(figure_6a):
    c, fits = figure_6a

    def admitted(mixture, gamma):
        parameters = (jnp.asarray(p, jnp.float32) for p in mixture[:3])
        return int(np.sum(np.asarray(posterior(jnp.asarray(c), *parameters))[:, 0] >= gamma))

    assert admitted(fits[5], 0.9) < admitted(fits[5], 0.5)
    assert admitted(fits[1], 0.875) == c.size  # every pair, and all the poison with them


def test_cumulative_is_the_distribution_function():
    mixture = Mixture(np.array([0.0, 1.0]), np.array([1.0, 4.0]), np.array([0.25, 0.75]), 0.0, True)
    x = np.linspace(-3, 5, 9)
    wanted = 0.25 * norm.cdf(x) + 0.75 * norm.cdf(x, 1, 2)
    np.testing.assert_allclose(cumulative(mixture, x), wanted, atol=1e-12)


def test_block_counts_are_few():
    rows = {gmm._blocks(np.zeros(n * gmm.BLOCK, np.float32)).shape[0] for n in range(1, 200)}
    assert len(rows) <= 32
    assert {gmm._blocks(np.zeros(n, np.float32)).shape for n in range(1, 1025)} == {(1, 1024)}
