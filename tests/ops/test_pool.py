import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from mmjax.core.mesh import MeshConfig, make_mesh
from mmjax.ops.pool import nearest_entries, put, sharded_nearest_entries
from tests.oracles import pool as oracle

RNG = np.random.default_rng(0)


def unit(*shape):
    x = RNG.normal(size=shape)
    return np.float32(x / np.linalg.norm(x, axis=-1, keepdims=True))


def test_a_batch_takes_the_oldest_ones_place():
    batches = unit(8, 4, 2, 5)
    pool, wanted = jnp.asarray(batches[:3]), list(batches[:3])
    for turn, batch in enumerate(batches[3:]):
        pool, wanted = put(pool, batch, jnp.int32(turn)), oracle.put(wanted, batch)
        oldest = (turn + 1) % 3
        np.testing.assert_array_equal(np.roll(pool, -oldest, axis=0), wanted)


@pytest.mark.parametrize("devices", [1, 2, 4])
def test_the_nearest_entry_is_found_on_whatever_device_it_lies(devices):
    mesh = make_mesh(MeshConfig(data=devices))
    queries, pool = unit(8, 5), unit(6, 8, 2, 5)
    wanted = oracle.nearest(queries, list(pool))
    np.testing.assert_array_equal(nearest_entries(queries, pool), wanted)
    split = jax.device_put(pool, NamedSharding(mesh, PartitionSpec(None, "data")))
    found = sharded_nearest_entries(jnp.asarray(queries), split, mesh=mesh)
    np.testing.assert_array_equal(found, wanted)
    assert found.sharding.shard_shape(found.shape) == (8 // devices, 5)
