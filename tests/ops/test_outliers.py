"""LID, SLOF and DAO against their definitions, point by point in float64."""

import jax.numpy as jnp
import numpy as np

from mmjax.ops.outliers import (
    LARGEST_DIMENSION,
    dimensional_factor,
    local_dimension,
    simplified_factor,
)
from tests.oracles import neighbours as oracle

K = 5


def neighbours(rows: np.ndarray) -> tuple[jnp.ndarray, jnp.ndarray]:
    found = [oracle.neighbours(rows, i, K) for i in range(len(rows))]
    distances = jnp.asarray([[r for r, _ in near] for near in found], jnp.float32)
    return distances, jnp.asarray([[j for _, j in near] for near in found])


def test_factors_equal_the_definitions() -> None:
    rows = np.random.default_rng(0).normal(size=(30, 3))
    rows[0] += 4
    distances, at = neighbours(rows)
    every = range(len(rows))
    lids = [oracle.lid(rows, i, K) for i in every]
    np.testing.assert_allclose(local_dimension(distances), lids, rtol=1e-5)
    slof = [oracle.slof(rows, i, K) for i in every]
    np.testing.assert_allclose(simplified_factor(distances, at), slof, rtol=1e-5)
    dao = [oracle.dao(rows, i, K) for i in every]
    np.testing.assert_allclose(np.exp(dimensional_factor(distances, at)), dao, rtol=1e-4)
    assert np.argmax(dao) == np.argmax(slof) == 0


def test_copies_and_equal_distances_stay_finite() -> None:
    """All neighbours copies, then all equally far: neither 0 / 0 nor an infinite dimension."""
    distances = jnp.asarray([[0.0, 0.0], [1.0, 1.0], [0.0, 1.0]], jnp.float32)
    rows = jnp.asarray([[1, 2], [0, 2], [0, 1]])
    assert local_dimension(distances)[:2].tolist() == [LARGEST_DIMENSION] * 2
    assert np.isfinite(simplified_factor(distances, rows)).all()
    assert np.isfinite(dimensional_factor(distances, rows)).all()
