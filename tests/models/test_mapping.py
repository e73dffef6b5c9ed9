import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.models.mapping import MappingNetwork, unit


@pytest.fixture(scope="module")
def image():
    return unit(jax.random.normal(jax.random.key(0), (5, 12)))


def test_starts_as_the_identity_and_is_unit_norm(image):
    network = MappingNetwork(width=8)
    variables = network.init(jax.random.key(1), image)
    np.testing.assert_allclose(network.apply(variables, image), image, atol=1e-6)
    moved = jax.tree.map(lambda p: p + 0.1, variables)
    mapped = network.apply(moved, image)
    np.testing.assert_allclose(np.linalg.norm(mapped, axis=1), 1.0, atol=1e-5)
    assert np.max(np.abs(mapped - image)) > 1e-2


def test_width_sets_the_hidden_layers(image):
    params = MappingNetwork(width=8).init(jax.random.key(1), image)["params"]
    assert params["up"]["kernel"].shape == (12, 8)
    assert params["middle"]["kernel"].shape == (8, 8)
    assert params["down"]["kernel"].shape == (8, 12)


def test_a_zero_row_stays_zero():
    assert not np.any(unit(jnp.zeros((1, 3))))
