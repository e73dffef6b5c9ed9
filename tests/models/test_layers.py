import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf

from mmjax.models.layers import ACTIVATIONS, attend, product, unit_norm
from tests.models.tiny import uniform

PRODUCTS = [
    ("ni,io->no", (5, 8), (8, 6)),
    ("bqhd,bkhd->bhqk", (2, 5, 3, 8), (2, 4, 3, 8)),
    ("bhqk,bkhd->bqhd", (2, 3, 5, 4), (2, 4, 3, 8)),
    ("ni,io->no", (1, 8), (8, 1)),
]


@pytest.mark.parametrize(("subscripts", "left", "right"), PRODUCTS)
@pytest.mark.parametrize(("compute", "tolerance"), [("float32", 1e-5), ("bfloat16", 2e-2)])
def test_products_and_their_gradients_equal_numpys(subscripts, left, right, compute, tolerance):
    a, b = uniform(left, 0), uniform(right, 1)
    exact = np.einsum(subscripts, a.astype(np.float64), b.astype(np.float64))
    weights = uniform(exact.shape, 2)

    def score(a, b):
        out = product(subscripts, a, b, compute)
        assert out.dtype == jnp.float32
        return jnp.sum(out * weights), out

    (da, db), out = jax.jit(jax.grad(score, argnums=(0, 1), has_aux=True))(a, b)
    operands, result = subscripts.split("->")
    first, second = operands.split(",")
    for found, wanted in (
        (out, exact),
        (da, np.einsum(f"{result},{second}->{first}", weights, b)),
        (db, np.einsum(f"{first},{result}->{second}", a, weights)),
    ):
        assert found.dtype == jnp.float32
        limit = tolerance * np.abs(wanted).max()
        np.testing.assert_allclose(found, wanted, rtol=0, atol=limit)


def test_bfloat16_rounds_the_operands_and_float32_does_not():
    a, b = jnp.full((1, 1), 1 + 2**-10), jnp.ones((1, 1))
    assert product("ni,io->no", a, b, "float32")[0, 0] == 1 + 2**-10
    assert product("ni,io->no", a, b, "bfloat16")[0, 0] == 1


@pytest.mark.parametrize("masked", [False, True])
def test_attention_equals_a_loop(masked):
    query, key, value = (uniform((2, 4, 3, 8), seed) for seed in range(3))
    mask = np.tril(np.ones((4, 4), bool)) if masked else None
    found = jax.jit(attend, static_argnums=4)(query, key, value, mask, "float32")
    wanted = np.zeros((2, 4, 3, 8))
    for b in range(2):
        for h in range(3):
            for q in range(4):
                seen = q + 1 if masked else 4
                scores = key[b, :seen, h].astype(np.float64) @ query[b, q, h] / np.sqrt(8)
                weights = np.exp(scores - scores.max())
                wanted[b, q, h] = weights / weights.sum() @ value[b, :seen, h]
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_activations_are_openais_and_the_exact_gelu():
    x = np.linspace(-4, 4, 33, dtype=np.float32)
    quick, exact = x / (1 + np.exp(-1.702 * x)), x * (1 + erf(x / np.sqrt(2))) / 2
    np.testing.assert_allclose(ACTIVATIONS["quick_gelu"](jnp.asarray(x)), quick, atol=1e-5)
    np.testing.assert_allclose(ACTIVATIONS["gelu"](jnp.asarray(x)), exact, atol=1e-5)
    assert np.abs(quick - exact).max() > 1e-2


def test_unit_norm_keeps_a_row_of_zeros_finite_and_its_gradient_too():
    rows = jnp.asarray([[3.0, 4.0], [0.0, 0.0]])
    np.testing.assert_allclose(unit_norm(rows), [[0.6, 0.8], [0, 0]], atol=1e-6)
    assert jnp.isfinite(jax.grad(lambda x: jnp.sum(unit_norm(x)))(rows)).all()
