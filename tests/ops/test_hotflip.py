"""HotFlip against losses computed from scratch, and its beam search against brute force."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import NamedSharding, PartitionSpec

from mmjax.core.mesh import MeshConfig, make_mesh
from mmjax.ops import hotflip
from tests.oracles import hotflip as oracle


def encode(embedded, trigger, captions, maps, owner):
    """The oracle's model."""
    row = captions + jnp.einsum("bkw,kdw->bd", embedded[owner], maps)
    return row / jnp.linalg.norm(row, axis=1, keepdims=True)


def single(model: oracle.Linear) -> dict:
    """What every op is given of a model."""
    f32 = [jnp.asarray(a, jnp.float32) for a in (model.table, model.image, model.scale)]
    table, image, scale = f32
    maps, captions = jnp.float32(model.maps), jnp.float32(model.captions)
    args = (captions, maps, jnp.asarray(model.owner, jnp.int32))
    return {"table": table, "image": image, "scale": scale, "args": args}


def start(model: oracle.Linear) -> jax.Array:
    return jnp.asarray(model.trigger, jnp.int32)


def every_token(model: oracle.Linear) -> np.ndarray:
    shape = (*model.trigger.shape, len(model.table))
    return np.broadcast_to(np.arange(len(model.table), dtype=np.int32), shape)


@pytest.mark.parametrize("universal", [False, True])
def test_gradient_of_the_trigger(universal: bool) -> None:
    model = oracle.Linear(0, 5, 3, universal=universal)
    found = hotflip.gradient(encode, start(model), **single(model))
    np.testing.assert_allclose(found, model.gradient(), rtol=1e-4, atol=1e-5)


def test_the_estimate_is_exact_where_the_loss_is_linear() -> None:
    """Every token in every slot, one by one, of the loss sum of <a, e>."""
    rng = np.random.default_rng(0)
    slope, table = rng.normal(size=(2, 3, 4)), rng.normal(size=(6, 4))
    trigger = rng.integers(6, size=(2, 3))
    wanted = np.zeros((2, 3, 6))
    for row, slot, token in np.ndindex(wanted.shape):
        changed = oracle.exchanged(trigger, row, slot, token)
        wanted[row, slot, token] = (slope * (table[changed] - table[trigger])).sum()
    found = hotflip.estimate(jnp.float32(slope), jnp.float32(table), jnp.int32(trigger))
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_the_estimate_is_the_change_of_infonce_for_near_tokens() -> None:
    model = oracle.Linear(1, 5, 2)
    near = 1e-3
    model.table = model.table[:1] + near * model.table
    slope = hotflip.gradient(encode, start(model), **single(model))
    found = hotflip.estimate(slope, jnp.float32(model.table), start(model))
    wanted = model.changes()
    # what is left is of second order: near² times the curvature
    np.testing.assert_allclose(found, wanted, atol=50 * near**2)
    assert np.abs(wanted).max() > 5 * 50 * near**2


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), allowed=st.lists(st.booleans(), min_size=6, max_size=6))
def test_forbidden_tokens_are_never_chosen(seed: int, allowed: list[bool]) -> None:
    rng = np.random.default_rng(seed)
    estimates = rng.normal(size=(2, 3, 6)).astype(np.float32)
    trigger = rng.integers(6, size=(2, 3)).astype(np.int32)
    found = np.asarray(hotflip.choose(estimates, jnp.asarray(allowed), trigger, count=4))
    permitted = np.flatnonzero(allowed)
    for row, slot in np.ndindex(2, 3):
        best = sorted(permitted, key=lambda token: estimates[row, slot, token])[:4]
        own = [trigger[row, slot]] * (4 - len(best))
        np.testing.assert_array_equal(found[row, slot], [*best, *own])


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("beam", [1, 3])
@pytest.mark.parametrize("selection", ["joint", "per_sample"])
def test_search_is_the_loop(seed: int, beam: int, selection: hotflip.Selection) -> None:
    """Of the reference, where beam is 1 and the selection joint."""
    model = oracle.Linear(seed, 5, 3)
    rng = np.random.default_rng(seed)
    candidates = rng.integers(6, size=(5, 3, 4)).astype(np.int32)
    found = hotflip.search(
        encode, start(model), candidates, beam=beam, selection=selection, **single(model)
    )
    loss, trigger = oracle.search(
        model, candidates, beam=beam, per_sample=selection == "per_sample"
    )
    np.testing.assert_array_equal(found.trigger, trigger)
    np.testing.assert_allclose(found.loss, loss, rtol=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_a_wide_beam_is_brute_force(seed: int) -> None:
    """One trigger of three words for all captions, six words to choose from."""
    model = oracle.Linear(seed, 5, 3, universal=True)
    loss, trigger = oracle.brute_force(model)
    found = hotflip.search(encode, start(model), every_token(model), beam=36, **single(model))
    np.testing.assert_array_equal(found.trigger, trigger)
    np.testing.assert_allclose(found.loss, loss, rtol=1e-5)


def test_selections_and_beams_differ() -> None:
    """The loss falls from no search over the joint rule to a choice for each, and with the beam."""

    def lowest(seed: int, **options) -> float:
        model = oracle.Linear(seed, 5, 3, universal=options.pop("universal", False))
        found = hotflip.search(encode, start(model), every_token(model), **options, **single(model))
        return float(found.loss)

    seeds = range(4)
    unchanged = np.mean(
        [oracle.Linear(s, 5, 3).loss(oracle.Linear(s, 5, 3).trigger) for s in seeds]
    )
    joint = np.mean([lowest(s) for s in seeds])
    each = np.mean([lowest(s, selection="per_sample") for s in seeds])
    assert each < joint - 0.1 < unchanged - 0.2
    greedy = [lowest(s, universal=True) for s in seeds]
    wide = [lowest(s, universal=True, beam=36) for s in seeds]
    assert all(a >= b - 1e-6 for a, b in zip(greedy, wide, strict=True))
    assert np.mean(greedy) > np.mean(wide) + 1e-3


@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_chunks_change_nothing(chunk: int) -> None:
    model = oracle.Linear(0, 5, 3)
    options = {"selection": "per_sample", "beam": 2} | single(model)
    whole = hotflip.search(encode, start(model), every_token(model), **options)
    parts = hotflip.search(encode, start(model), every_token(model), chunk=chunk, **options)
    np.testing.assert_array_equal(parts.trigger, whole.trigger)


@pytest.mark.parametrize("devices", [pytest.param(2, marks=pytest.mark.slow), 4])
def test_devices_change_nothing(devices: int) -> None:
    """The batch split over the mesh finds the same triggers."""
    model = oracle.Linear(2, 8, 3)
    given = single(model)
    candidates = jnp.asarray(every_token(model))
    mesh = make_mesh(MeshConfig(data=devices))
    rows = NamedSharding(mesh, PartitionSpec("data"))
    whole = NamedSharding(mesh, PartitionSpec())
    captions, maps, owner = given["args"]
    split = {
        "table": jax.device_put(given["table"], whole),
        "image": jax.device_put(given["image"], rows),
        "scale": jax.device_put(given["scale"], whole),
        "args": (
            jax.device_put(captions, rows),
            jax.device_put(maps, whole),
            jax.device_put(owner, rows),
        ),
    }
    trigger, tokens = (jax.device_put(a, rows) for a in (start(model), candidates))
    options = {"selection": "per_sample"}
    alone = hotflip.search(encode, start(model), candidates, **options, **given)
    together = hotflip.search(encode, trigger, tokens, **options, **split)
    np.testing.assert_array_equal(together.trigger, alone.trigger)
    np.testing.assert_allclose(
        hotflip.gradient(encode, trigger, **split),
        hotflip.gradient(encode, start(model), **given),
        atol=1e-6,
    )


def test_a_choice_for_each_wants_a_trigger_for_each() -> None:
    model = oracle.Linear(0, 5, 3, universal=True)
    with pytest.raises(ValueError, match="a trigger for each caption, got 1 for 5"):
        hotflip.search(
            encode, start(model), every_token(model), selection="per_sample", **single(model)
        )
