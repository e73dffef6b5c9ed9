import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.models.convolution import average_pool, convolve
from mmjax.models.layers import lax_convolution
from mmjax.models.policy import Policy
from tests.models.tiny import uniform
from tests.oracles import convolution as oracle

EXACT = [Policy("float32", "cpu"), Policy("float32", "accelerator")]
ROUNDED = [Policy("bfloat16", "cpu"), Policy("bfloat16", "accelerator")]
CASES = [(1, 1), (3, 1), (3, 2)]


def arrays(size):
    x = uniform((2, 6, 7, 4), 0)
    kernel = uniform((size, size, 4, 5), 1) / np.float32(2 * size)
    return x, kernel


@pytest.mark.parametrize(("size", "stride"), CASES)
@pytest.mark.parametrize("policy", EXACT + ROUNDED)
def test_convolution_equals_the_oracle(size, stride, policy):
    x, kernel = arrays(size)
    found = jax.jit(convolve, static_argnums=(2, 3))(x, kernel, stride, policy)
    wanted = oracle.convolve(x, kernel, stride)
    tolerance = 1e-5 if policy in EXACT else 2e-2
    np.testing.assert_allclose(found, wanted, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("size", "stride"), CASES)
@pytest.mark.parametrize("policy", ROUNDED)
def test_rounded_gradients_are_those_of_float32(size, stride, policy):
    x, kernel = arrays(size)
    weights = uniform(oracle.convolve(x, kernel, stride).shape, 2)

    def gradient(policy):
        def score(x, kernel):
            return jnp.sum(convolve(x, kernel, stride, policy) * weights)

        return jax.jit(jax.grad(score, argnums=(0, 1)))(x, kernel)

    for near, exact in zip(gradient(policy), gradient(EXACT[0]), strict=True):
        assert near.dtype == jnp.float32
        np.testing.assert_allclose(near, exact, atol=2e-2 * np.abs(exact).max())


@pytest.mark.parametrize("shape", [(2, 6, 8, 3), (2, 7, 5, 3)])
@pytest.mark.parametrize("policy", EXACT)
def test_pool_equals_the_oracle_and_spreads_its_gradient(shape, policy):
    x = uniform(shape, 0)
    found = jax.jit(average_pool, static_argnums=1)(x, policy)
    np.testing.assert_allclose(found, oracle.pool(x), atol=1e-6)
    weights = uniform(found.shape, 1)
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(average_pool(x, policy) * weights)))(x)
    wanted = np.zeros(shape)
    height, width = 2 * found.shape[1], 2 * found.shape[2]
    wanted[:, :height, :width] = weights.repeat(2, axis=1).repeat(2, axis=2) / 4
    np.testing.assert_allclose(gradient, wanted, atol=1e-6)


@pytest.mark.parametrize(("size", "stride"), CASES)
def test_gradients_in_float32_are_those_of_the_compiler(size, stride):
    """The CPU's backward pass is its own; with a stride, even sides need a wider margin."""
    x = jax.random.normal(jax.random.key(0), (2, 7, 10, 5))
    kernel = jax.random.normal(jax.random.key(1), (size, size, 5, 6))

    def loss(convolve, x, kernel):
        return jnp.sum(jnp.sin(convolve(x, kernel)))

    def gradients(convolve):
        return jax.grad(functools.partial(loss, convolve), argnums=(0, 1))(x, kernel)

    own = gradients(lambda x, k: convolve(x, k, stride, Policy("float32", "cpu")))
    wanted = gradients(lambda x, k: lax_convolution(x, k, stride, "float32"))
    for got, want in zip(own, wanted, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="of XLA:CPU's convolutions")
def test_in_a_loop_kernels_stay_in_the_order_that_is_fast():
    """XLA:CPU has no fast convolution for what JAX's own gradient leaves turned around."""
    kernel = jnp.ones((3, 3, 3, 4))

    def loop(convolve):
        def step(_, x):
            return x - jax.grad(lambda x: jnp.sum(convolve(x, kernel) ** 2))(x)

        whole = jax.jit(lambda x: jax.lax.fori_loop(0, 4, step, x))
        return whole.lower(jnp.ones((2, 8, 8, 3))).compile().as_text()

    assert "01oi" in loop(lambda x, k: lax_convolution(x, k, 2, "float32"))
    own = loop(lambda x, k: convolve(x, k, 2, Policy("float32", "cpu")))
    assert "01io" in own
    assert "01oi" not in own
