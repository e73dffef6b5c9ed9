import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.core.mesh import MeshConfig, make_mesh
from mmjax.ops.contrastive import info_nce, sharded_info_nce, triplet
from tests.oracles import contrastive as oracle

GRADIENT = jax.grad(info_nce, argnums=(0, 1, 2))


def pairs(n: int, d: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    both = rng.normal(size=(2, n, d))
    both[1] += both[0]
    both /= np.linalg.norm(both, axis=-1, keepdims=True)
    return both[0], both[1]


@pytest.mark.parametrize("scale", [1.0, 14.3, 100.0])
def test_value_and_gradients_equal_the_oracle(scale):
    image, text = pairs(7, 5)
    f32 = jnp.float32(image), jnp.float32(text), jnp.float32(scale)
    np.testing.assert_allclose(info_nce(*f32), oracle.info_nce(image, text, scale), rtol=1e-5)
    for got, wanted in zip(GRADIENT(*f32), oracle.gradient(image, text, scale), strict=True):
        # gradients are sums of probabilities times the scale: absolute error grows with it
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-6 * scale)


def test_unaligned_pairs_cost_ln_n():
    same = jnp.ones((8, 4), jnp.float32) / 2
    np.testing.assert_allclose(info_nce(same, same, jnp.float32(20.0)), np.log(8), rtol=1e-6)


@pytest.mark.parametrize("devices", [1, 2, 4])
@pytest.mark.parametrize("scale", [3.0, 100.0])
def test_sharded_equals_single_device(devices, scale):
    mesh = make_mesh(MeshConfig(data=devices))
    image, text = pairs(16, 6)
    f32 = jnp.float32(image), jnp.float32(text), jnp.float32(scale)

    def loss(image, text, scale):
        return sharded_info_nce(image, text, scale, mesh=mesh)

    np.testing.assert_allclose(loss(*f32), info_nce(*f32), rtol=1e-6, atol=1e-6)
    for got, wanted in zip(jax.grad(loss, argnums=(0, 1, 2))(*f32), GRADIENT(*f32), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6 * scale)


def test_columns_far_below_the_others_stay_finite():
    """A column of logits 200 below the rest must not underflow to log 0."""
    image = jnp.tile(jnp.float32([[1, 0]]), (4, 1))
    text = jnp.float32([[-1, 0], [1, 0], [1, 0], [1, 0]])
    mesh = make_mesh(MeshConfig(data=4))
    got = sharded_info_nce(image, text, jnp.float32(100.0), mesh=mesh)
    np.testing.assert_allclose(got, info_nce(image, text, jnp.float32(100.0)), rtol=1e-6)


def test_collectives_of_the_sharded_form():
    mesh = make_mesh(MeshConfig(data=4))
    image, text = pairs(8, 4)

    def loss(image, text):
        return sharded_info_nce(image, text, jnp.float32(10.0), mesh=mesh)

    compiled = jax.jit(loss).lower(jnp.float32(image), jnp.float32(text)).compile().as_text()
    assert compiled.count(" all-gather(") == 1
    assert compiled.count(" all-reduce(") <= 3


@pytest.mark.parametrize("margin", [0.1, 1.0])
def test_triplet_equals_the_oracle(margin):
    """With a margin of .1 some triplets count and some do not."""
    (anchor, positive), (negative, _) = pairs(9, 4), pairs(9, 4, seed=1)
    told = triplet(*(jnp.float32(a) for a in (anchor, positive, negative)), margin)
    parts = oracle.triplets(anchor, positive, negative, margin)
    assert margin == 1.0 or 0 in parts
    assert max(parts) > 0
    np.testing.assert_allclose(told, np.mean(parts), rtol=1e-5)


def test_triplet_has_a_gradient_where_anchor_and_negative_are_one():
    rows = jnp.float32(pairs(3, 4)[0])
    gradient = jax.grad(triplet)(rows, -rows, rows, 1.0)
    assert np.all(np.isfinite(gradient))
    assert np.any(gradient != 0)
