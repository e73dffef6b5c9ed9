import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from mmjax.core.mesh import batch_sharding, make_mesh, replicated
from mmjax.measure.collectives import collectives
from mmjax.models import winograd as module
from mmjax.models.convolution import convolve
from mmjax.models.policy import Policy
from mmjax.models.winograd import pays, winograd
from tests.models.tiny import uniform
from tests.oracles import convolution as oracle

CPU, PLAIN = Policy("float32", "cpu"), Policy("float32", "accelerator")


def arrays(batch=2, height=12, width=13, channels=64, features=72):
    x = uniform((batch, height, width, channels), 0)
    return x, uniform((3, 3, channels, features), 1) / np.float32(np.sqrt(9 * channels))


@pytest.mark.parametrize("size", [(12, 13), (7, 7), (2, 4), (1, 1)])
@pytest.mark.parametrize("cached", [1, 1 << 20])
def test_it_equals_the_oracle(size, cached, monkeypatch):
    monkeypatch.setattr(module, "_CACHED", cached)  # 1: a row at a time; 2^20: all at once
    x, kernel = arrays(3, *size, 5, 6)
    found = jax.jit(winograd)(x, kernel)
    np.testing.assert_allclose(found, oracle.convolve(x, kernel, 1), rtol=1e-5, atol=1e-5)


def test_convolve_takes_it_on_cpus_and_gradients_are_those_of_the_plain_one():
    x, kernel = arrays()
    weights = uniform((*x.shape[:3], kernel.shape[-1]), 2)

    def score(x, kernel, policy):
        return jnp.sum(convolve(x, kernel, 1, policy) * weights)

    slope = jax.jit(jax.value_and_grad(score, argnums=(0, 1)), static_argnums=2)
    lowered = slope.lower(x, kernel, CPU).as_text()
    assert lowered.count("dot_general") >= 32  # there and back
    for near, exact in zip(jax.tree.leaves(slope(x, kernel, CPU)),
                           jax.tree.leaves(slope(x, kernel, PLAIN)), strict=True):  # fmt: skip
        np.testing.assert_allclose(near, exact, rtol=1e-5, atol=1e-5 * np.abs(exact).max())


def test_it_pays_with_many_channels_and_pixels():
    assert pays((64, 7, 7, 512), (3, 3, 512, 512), 1)
    assert not pays((16, 7, 7, 512), (3, 3, 512, 512), 2)
    assert not pays((16, 7, 7, 512), (1, 1, 512, 512), 1)
    assert pays((16, 112, 112, 32), (3, 3, 32, 64), 1)
    assert not pays((16, 112, 112, 32), (3, 3, 32, 32), 1)
    assert not pays((16, 112, 112, 64), (3, 3, 64, 16), 1)
    assert not pays((1, 7, 7, 512), (3, 3, 512, 512), 1)


@pytest.mark.parametrize("sharding", ["compiler", "shard_map"])
def test_each_device_keeps_its_rows(sharding, monkeypatch):
    """Parts of the batch are parts of every device's rows: nothing is sent."""
    monkeypatch.setattr(module, "_CACHED", 2 * 6 * 6 * 8)  # two rows
    mesh = make_mesh()
    x, kernel = arrays(8 * mesh.size, 6, 6, 8, 8)
    rows = batch_sharding(mesh)
    run = winograd
    if sharding == "shard_map":
        run = jax.shard_map(winograd, mesh=mesh, in_specs=(P("data"), P()), out_specs=P("data"))
    compiled = (
        jax.jit(run, in_shardings=(rows, replicated(mesh)), out_shardings=rows)
        .lower(x, kernel)
        .compile()
    )
    assert mesh.size == 4
    assert not collectives(compiled.as_text())
    found = compiled(jax.device_put(x, rows), jax.device_put(kernel, replicated(mesh)))
    np.testing.assert_allclose(found, oracle.convolve(x, kernel, 1), rtol=1e-5, atol=1e-5)
