import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.ops.correlation import centre, leave_one_out, mean_pairwise_cosine, text_correlation
from tests.oracles import correlation as oracle


@pytest.fixture(scope="module")
def text():
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(30, 12)) + 0.5
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_by_centroid_equals_mean_of_pairwise_cosines(text):
    sets = [text[:7], text[5:9]]
    means = jnp.asarray(np.stack([s.mean(axis=0) for s in sets]))
    got = text_correlation(jnp.asarray(text), means)
    for column, seeds in enumerate(sets):
        np.testing.assert_allclose(got[:, column], oracle.text_correlation(text, seeds), atol=1e-6)


def test_half_precision_captions_are_widened(text):
    means = jnp.asarray(text[:7].mean(axis=0)[None])
    half = text_correlation(jnp.asarray(text, jnp.float16), means)
    assert half.dtype == jnp.float32
    # 1e-3: float16 holds unit-norm entries to 2^-11
    np.testing.assert_allclose(half, text_correlation(jnp.asarray(text), means), atol=1e-3)


@pytest.mark.parametrize("rows", [1, 1024, 2048, 2500])
def test_blocks_of_rows_change_no_bit(rows):
    rng = np.random.default_rng(rows)
    text = jnp.asarray(rng.normal(size=(rows, 24)), jnp.float16)
    means = jnp.asarray(rng.normal(size=(3, 24)), jnp.float32)
    whole = jnp.matmul(text.astype(jnp.float32), means.T, precision=jax.lax.Precision.HIGHEST)
    np.testing.assert_array_equal(text_correlation(text, means), whole)


def test_leave_one_out_equals_oracle(text):
    np.testing.assert_allclose(
        leave_one_out(jnp.asarray(text[:9])), oracle.leave_one_out(text[:9]), atol=1e-6
    )


def test_leave_one_out_of_one_seed_is_zero(text):
    np.testing.assert_allclose(leave_one_out(jnp.asarray(text[:1])), [0.0], atol=1e-6)


def test_mean_pairwise_cosine_equals_oracle(text):
    got = float(mean_pairwise_cosine(jnp.asarray(text)))
    assert got == pytest.approx(oracle.mean_pairwise_cosine(text), abs=1e-6)


def test_centre_equals_oracle_and_survives_the_mean_itself(text):
    mean = text.mean(axis=0)
    np.testing.assert_allclose(
        centre(jnp.asarray(text), jnp.asarray(mean)), oracle.centre(text), atol=1e-6
    )
    assert not np.any(centre(jnp.asarray(mean[None]), jnp.asarray(mean)))
