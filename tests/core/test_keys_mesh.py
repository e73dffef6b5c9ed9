"""Named streams do not depend on order; the mesh has the axes and types that the code relies on."""

import jax
import numpy as np
import pytest
from jax.sharding import AxisType

from mmjax.core import keys, mesh
from mmjax.core.config import MeshConfig
from mmjax.core.errors import ConfigError


def test_streams_differ_by_name_only() -> None:
    a = jax.random.key_data(keys.stream(jax.random.key(0), "victims", 3))
    again = jax.random.key_data(keys.stream(jax.random.key(0), "victims", 3))
    other = jax.random.key_data(keys.stream(jax.random.key(0), "victims", 4))
    assert (a == again).all()
    assert (a != other).any()
    assert keys.host(0, "x", 1).random() == keys.host(0, "x", 1).random()
    assert keys.host(0, "x", 1).random() != keys.host(1, "x", 1).random()


def test_mesh_axes() -> None:
    made = mesh.make_mesh()
    assert dict(made.shape) == {"data": len(jax.devices()), "model": 1}
    assert set(made.axis_types) == {AxisType.Auto}
    two = mesh.make_mesh(MeshConfig(data=2, model=2))
    assert dict(two.shape) == {"data": 2, "model": 2}
    placed = jax.device_put(np.zeros((8, 3)), mesh.batch_sharding(two))
    assert placed.sharding.shard_shape((8, 3)) == (4, 3)
    with pytest.raises(ConfigError, match="wants more than the 4"):
        mesh.make_mesh(MeshConfig(data=8))
