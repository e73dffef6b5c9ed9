import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from mmjax.core.mesh import MeshConfig, make_mesh
from mmjax.ops.contrastive import (
    chunked_info_nce,
    info_nce,
    sharded_info_nce,
    swapped_info_nce,
    triplet,
)
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


@pytest.mark.parametrize("n", [1, 6])
@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_exchanges_equal_the_loss_of_the_changed_batch(n, scale):
    """At scale 100 most pairs are certain: their term is nearly the whole of its row's sum."""
    image, text = pairs(n, 5)
    others = np.stack([pairs(n, 5, seed)[1] for seed in (1, 2)] + [text, image])
    f32 = [jnp.float32(a) for a in (image, text, others, scale)]
    found = swapped_info_nce(*f32)
    wanted = np.zeros((4, n))
    for which, row in np.ndindex(4, n):
        changed = text.copy()
        changed[row] = others[which, row]
        wanted[which, row] = oracle.info_nce(image, changed, scale)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("chunk", [1, 3, 8, 16, 100])
@pytest.mark.parametrize("scale", [3.0, 100.0])
def test_chunked_equals_plain(chunk, scale):
    """Chunks that divide the batch and chunks that do not, one row and more than all rows."""
    image, text = pairs(16, 6)
    f32 = jnp.float32(image), jnp.float32(text), jnp.float32(scale)

    def loss(image, text, scale):
        return chunked_info_nce(image, text, scale, chunk=chunk)

    np.testing.assert_allclose(loss(*f32), info_nce(*f32), rtol=1e-6, atol=1e-6)
    for got, wanted in zip(jax.grad(loss, argnums=(0, 1, 2))(*f32), GRADIENT(*f32), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6 * scale)


@pytest.mark.parametrize("chunk", [5, 1024])
@pytest.mark.parametrize("devices", [1, 2, 4])
@pytest.mark.parametrize("scale", [3.0, 100.0])
def test_sharded_equals_single_device(devices, scale, chunk):
    mesh = make_mesh(MeshConfig(data=devices))
    image, text = pairs(16, 6)
    f32 = jnp.float32(image), jnp.float32(text), jnp.float32(scale)

    def loss(image, text, scale):
        return sharded_info_nce(image, text, scale, mesh=mesh, chunk=chunk)

    np.testing.assert_allclose(loss(*f32), info_nce(*f32), rtol=1e-6, atol=1e-6)
    for got, wanted in zip(jax.grad(loss, argnums=(0, 1, 2))(*f32), GRADIENT(*f32), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6 * scale)


def temporaries(loss, pairs):
    """Bytes that the compiled value and gradients of `pairs` pairs of width 1,024 hold."""
    rows = jax.ShapeDtypeStruct((pairs, 1024), jnp.float32)
    scale = jax.ShapeDtypeStruct((), jnp.float32)
    gradient = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2)))
    return gradient.lower(rows, rows, scale).compile().memory_analysis().temp_size_in_bytes


def test_memory_of_the_chunked_form_is_linear_and_an_eighth_of_the_full_matrix():
    chunked = temporaries(chunked_info_nce, 16_384)
    assert chunked <= temporaries(info_nce, 16_384) / 8
    # the square would make it 4 times
    assert chunked < 2.2 * temporaries(chunked_info_nce, 8_192)


def test_columns_far_below_the_others_stay_finite():
    """A column of logits 200 below the rest must not underflow to log 0."""
    image = jnp.tile(jnp.float32([[1, 0]]), (4, 1))
    text = jnp.float32([[-1, 0], [1, 0], [1, 0], [1, 0]])
    mesh = make_mesh(MeshConfig(data=4))
    got = sharded_info_nce(image, text, jnp.float32(100.0), mesh=mesh)
    np.testing.assert_allclose(got, info_nce(image, text, jnp.float32(100.0)), rtol=1e-6)


COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")


def collectives(function, *arguments):
    """How many of each collective the compiled function holds."""
    text = jax.jit(function).lower(*arguments).compile().as_text()
    found = {name: text.count(f" {name}(") + text.count(f" {name}-start(") for name in COLLECTIVES}
    return {name: count for name, count in found.items() if count}


def test_collectives_of_the_sharded_form():
    mesh = make_mesh(MeshConfig(data=4))
    split = NamedSharding(mesh, PartitionSpec("data"))
    image, text = (jax.device_put(jnp.float32(a), split) for a in pairs(8, 4))

    def loss(image, text):
        return sharded_info_nce(image, text, jnp.float32(10.0), mesh=mesh, chunk=3)

    forward = collectives(loss, image, text)
    assert forward.pop("all-reduce") <= 3
    assert forward == {"all-gather": 1}
    both = collectives(jax.value_and_grad(loss, argnums=(0, 1)), image, text)
    assert both.pop("all-reduce") <= 4
    assert both == {"all-gather": 1, "reduce-scatter": 1}


RESIDENT = """
import resource, sys
import jax, jax.numpy as jnp
from mmjax.ops import contrastive
rows = jax.random.normal(jax.random.key(0), (2, 16_384, 1_024)) / 32
gradient = jax.jit(jax.value_and_grad(getattr(contrastive, sys.argv[1]), argnums=(0, 1, 2)))
compiled = gradient.lower(rows[0], rows[1], jnp.float32(10)).compile()
image, text = jax.block_until_ready((rows[0], rows[1]))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
loss, _ = jax.block_until_ready(compiled(image, text, jnp.float32(10)))
print(loss, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


@pytest.mark.slow
def test_resident_memory_of_the_chunked_form_is_an_eighth_too():
    """16,384 pairs of width 1,024 in a process of their own: 4.0 GB against .2 GB."""

    def ran(name):
        done = subprocess.run(
            [sys.executable, "-c", RESIDENT, name],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "JAX_PLATFORMS": "cpu"},
        )
        loss, megabytes = map(float, done.stdout.split())
        return loss, megabytes

    (plain, full), (chunked, less) = ran("info_nce"), ran("chunked_info_nce")
    np.testing.assert_allclose(chunked, plain, rtol=1e-5)
    assert less <= full / 8


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
