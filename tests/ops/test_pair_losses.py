import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.core.mesh import MeshConfig, make_mesh
from mmjax.ops.contrastive import info_nce
from mmjax.ops.pair_losses import pair_losses, sharded_pair_losses
from tests.oracles import pair_losses as oracle

RNG = np.random.default_rng(0)
SCALE = 7.0
AMONG = {
    "all": np.ones(8, bool),
    "some": np.array([1, 0, 1, 1, 0, 0, 1, 0], bool),
    "none": np.zeros(8, bool),
}


def unit(*shape):
    x = RNG.normal(size=shape)
    return np.float32(x / np.linalg.norm(x, axis=-1, keepdims=True))


QUERIES, PARTNERS = unit(8, 5), unit(8, 5)
WEIGHTS = np.float32(RNG.uniform(size=8))


def value_and_gradient(loss, among, **options):
    def total(queries, partners, scale):
        losses = loss(queries, partners, scale, jnp.asarray(among), **options)
        return jnp.sum(losses * WEIGHTS), losses

    run = jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2), has_aux=True))
    (_, losses), slopes = run(QUERIES, PARTNERS, jnp.float32(SCALE))
    return losses, slopes


@pytest.mark.parametrize("name", AMONG)
@pytest.mark.parametrize("chunk", [3, 8])
def test_values_and_gradients_are_the_oracles(name, chunk):
    losses, slopes = value_and_gradient(pair_losses, AMONG[name], chunk=chunk)
    wanted = oracle.pair_losses(QUERIES, PARTNERS, SCALE, AMONG[name])
    np.testing.assert_allclose(losses, wanted, rtol=1e-5, atol=1e-5)
    for slope, exact in zip(
        slopes, oracle.gradient(QUERIES, PARTNERS, SCALE, AMONG[name], WEIGHTS), strict=True
    ):
        np.testing.assert_allclose(slope, exact, atol=2e-5)


@pytest.mark.parametrize("devices", [2, 4])
def test_more_devices_change_nothing(devices):
    mesh = make_mesh(MeshConfig(data=devices))
    losses, slopes = value_and_gradient(sharded_pair_losses, AMONG["some"], mesh=mesh, chunk=3)
    wanted, wanted_slopes = value_and_gradient(pair_losses, AMONG["some"])
    np.testing.assert_allclose(losses, wanted, rtol=1e-5, atol=1e-6)
    for slope, exact in zip(slopes, wanted_slopes, strict=True):
        np.testing.assert_allclose(slope, exact, rtol=1e-5, atol=1e-6)


def test_both_directions_together_are_info_nce():
    among = jnp.ones(8, bool)
    scale = jnp.float32(SCALE)
    there = pair_losses(QUERIES, PARTNERS, scale, among)
    back = pair_losses(PARTNERS, QUERIES, scale, among)
    np.testing.assert_allclose(
        jnp.mean(there + back) / 2, info_nce(QUERIES, PARTNERS, scale), rtol=1e-5
    )
