import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.ops.consistency import consistency
from tests.oracles import consistency as oracle


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    made = rng.normal(size=(3, 40, 16))
    return (made / np.linalg.norm(made, axis=-1, keepdims=True)).astype(np.float32)


def test_equals_oracle(rows):
    scores = consistency(*map(jnp.asarray, rows), jnp.ones(40, bool))
    wanted = oracle.consistency(*rows)
    for got, want in zip(scores, wanted, strict=True):
        np.testing.assert_allclose(got, want, atol=1e-6)
    # rectified on both sides, and the two forms of c differ
    assert np.min(wanted[0]) == 0
    assert np.any(wanted[2] != wanted[3])


def test_masked_rows_are_zero(rows):
    mask = np.arange(40) % 2 == 0
    scores = consistency(*map(jnp.asarray, rows), jnp.asarray(mask))
    for got in scores:
        assert not np.any(np.asarray(got)[~mask])
    assert np.all(np.asarray(scores.absolute)[mask] >= np.asarray(scores.signed)[mask])
