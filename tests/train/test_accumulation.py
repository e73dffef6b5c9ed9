"""Embedding a batch in parts: the same loss and gradients, a part's activations at a time."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.core.mesh import MeshConfig, make_mesh
from mmjax.learn.sharding import put_batch, put_state
from mmjax.models.clip import build
from mmjax.train.accumulation import in_parts
from mmjax.train.config import TrainConfig
from mmjax.train.objectives import OBJECTIVES
from tests.models import tiny

ROWS = 16


@pytest.mark.parametrize("devices", [1, 2])
def test_parts_are_shared_out_evenly_and_rows_come_back_in_order(devices):
    mesh = make_mesh(MeshConfig(data=devices))
    seen = []

    def embed(carry, rows):
        seen.append(rows["x"].shape)
        return carry + jnp.sum(rows["x"]), {"twice": 2 * rows["x"]}

    rows = put_batch({"x": np.arange(12.0, dtype=np.float32).reshape(12, 1)}, mesh)
    run = jax.jit(lambda rows: in_parts(embed, jnp.float32(0), rows, parts=3, mesh=mesh))
    total, found = run(rows)
    np.testing.assert_array_equal(found["twice"][:, 0], 2 * np.arange(12))
    assert float(total) == 66
    assert set(seen) == {(4, 1)}
    assert found["twice"].sharding.shard_shape((12, 1)) == (12 // devices, 1)


def compiled(parts, devices):
    mesh = make_mesh(MeshConfig(data=devices))
    towers = build(dataclasses.replace(tiny.VIT, text=dataclasses.replace(tiny.VIT.text, layers=1)))
    config = TrainConfig(accumulate=parts, loss_chunk=8)
    loss_fn = OBJECTIVES["clip"](towers, config, mesh)
    tokens = np.stack([tiny.tokens_of(tiny.VIT, ROWS, seed=k) for k in (0, 1)], axis=1)
    batch = {"images": tiny.images_of(tiny.VIT, ROWS), "tokens": tokens}
    params = put_state(jax.jit(towers.init)(jax.random.key(0))["params"], mesh)
    run = jax.jit(jax.value_and_grad(loss_fn, has_aux=True))
    arguments = params, {}, put_batch(batch, mesh), jax.random.key(1)
    return run.lower(*arguments).compile(), arguments


@pytest.mark.slow
def test_four_parts_have_the_loss_and_the_gradients_of_one_in_less_memory():
    whole, arguments = compiled(1, devices=2)
    (loss, _), gradients = whole(*arguments)
    parts, arguments = compiled(4, devices=2)
    (same_loss, _), same_gradients = parts(*arguments)
    np.testing.assert_allclose(same_loss, loss, rtol=1e-6)
    largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(gradients))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * largest),
        gradients,
        same_gradients,
    )
    held = [each.memory_analysis().temp_size_in_bytes for each in (whole, parts)]
    assert held[1] < 0.6 * held[0]
