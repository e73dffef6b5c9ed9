"""The rule table names every large parameter of every preset."""

import math

import jax
import numpy as np
import pytest
from jax.sharding import AbstractMesh, AxisType

from mmjax.core.mesh import DATA, MODEL
from mmjax.learn.sharding import shardings
from mmjax.models.clip import build
from mmjax.models.partition import RULES
from mmjax.models.presets import PRESETS

MESH = AbstractMesh((4, 2), (DATA, MODEL), axis_types=(AxisType.Auto, AxisType.Auto))


@pytest.mark.parametrize("name", ["RN50", "RN101", "ViT-B-32", "ViT-L-14"])
def test_a_device_of_eight_holds_an_eighth(name):
    params = jax.eval_shape(build(PRESETS[name]).init, jax.random.key(0))["params"]
    places = shardings(params, MESH, RULES)
    sizes = jax.tree.map(lambda leaf: math.prod(leaf.shape), params)
    held = jax.tree.map(
        lambda leaf, place: math.prod(place.shard_shape(leaf.shape)), params, places
    )
    whole = sum(jax.tree.leaves(sizes))
    assert whole > 90e6
    assert sum(jax.tree.leaves(held)) / whole < 1.02 / 8
    largest = max(
        size
        for size, place in zip(jax.tree.leaves(sizes), jax.tree.leaves(places), strict=True)
        if place.is_fully_replicated
    )
    assert np.sqrt(largest) < 64
