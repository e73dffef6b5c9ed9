"""The engine on a linear model whose steps take microseconds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.core.errors import ConfigError, NonFiniteLossError, RetryError, RunError
from mmjax.core.mesh import MeshConfig, make_mesh
from mmjax.learn.config import OptimizerConfig
from mmjax.learn.loop import fit
from mmjax.learn.sharding import put_batch
from mmjax.learn.state import create, make_optimizer
from mmjax.learn.step import make_step

STEPS = 20
TRUE = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
OPTIMIZER = make_optimizer(OptimizerConfig(learning_rate=0.3, weight_decay=0.0), STEPS)


def batch_at(step):
    x = np.random.default_rng(step).normal(size=(16, 8)).astype(np.float32)
    return {"x": x, "y": x @ TRUE}


def loss_fn(params, model_state, batch, key):
    noise = 0.01 * jax.random.normal(key, batch["x"].shape)
    error = (batch["x"] + noise) @ params["w"] - batch["y"]
    return jnp.mean(error**2), ({"seen": model_state["seen"] + 1}, {"error": jnp.max(error)})


def initial():
    return create({"w": jnp.zeros((8, 3))}, {"seen": jnp.zeros((), jnp.int32)}, OPTIMIZER)


def run(devices=4, batches=batch_at, loss=loss_fn, **options):
    seen = []
    state = fit(
        initial(),
        make_step(loss, OPTIMIZER),
        batches,
        steps=STEPS,
        key=jax.random.key(3),
        mesh=make_mesh(MeshConfig(data=devices)),
        on_metrics=lambda done, metrics: seen.append((done, metrics["loss"])),
        **options,
    )
    return state, seen


@pytest.fixture(scope="module")
def uninterrupted():
    return run()


def equal(one, other):
    return jax.tree.all(jax.tree.map(lambda a, b: np.array_equal(a, b), one, other))


def test_it_learns_and_reports_every_step_in_order(uninterrupted):
    state, seen = uninterrupted
    assert [done for done, _ in seen] == list(range(1, STEPS + 1))
    assert seen[-1][1] < 0.2 * seen[0][1]
    assert int(state.step) == STEPS
    assert int(state.model_state["seen"]) == STEPS


def test_the_callers_state_survives():
    state = initial()
    mesh = make_mesh(MeshConfig(data=1))
    step = make_step(loss_fn, OPTIMIZER)
    fit(state, step, batch_at, steps=1, key=jax.random.key(0), mesh=mesh)
    np.testing.assert_array_equal(state.params["w"], np.zeros((8, 3)))


def test_two_interruptions_change_no_bit(uninterrupted, tmp_path):
    losses = []
    for length in (6, 5):
        asked = iter(range(length))
        with pytest.raises(RetryError, match="start the same command again"):
            # one stop falls between checkpoints, one on none of them
            run(
                checkpoint_dir=tmp_path,
                checkpoint_every=4,
                stop=lambda asked=asked: next(asked, None) is None,
            )
    state, losses = run(checkpoint_dir=tmp_path, checkpoint_every=4)
    assert losses == uninterrupted[1][13:]
    assert equal(state, uninterrupted[0])
    again, nothing = run(checkpoint_dir=tmp_path)
    assert nothing == []
    assert equal(again, state)


@pytest.mark.parametrize("devices", [1, 2])
def test_the_number_of_devices_changes_nothing(uninterrupted, devices):
    state, seen = run(devices=devices)
    np.testing.assert_allclose(
        [loss for _, loss in seen], [loss for _, loss in uninterrupted[1]], rtol=1e-5
    )
    np.testing.assert_allclose(state.params["w"], uninterrupted[0].params["w"], atol=1e-5)


def test_a_loss_that_is_no_number_names_its_step_and_is_not_saved(tmp_path):
    def broken(step):
        batch = batch_at(step)
        return {**batch, "y": batch["y"] * np.float32(np.nan)} if step == 9 else batch

    with pytest.raises(NonFiniteLossError, match="step 10 is nan"):
        run(batches=broken, checkpoint_dir=tmp_path, checkpoint_every=5)
    assert sorted(int(path.name) for path in tmp_path.iterdir() if path.name.isdigit()) == [5]


def test_an_error_in_a_batch_reaches_the_caller():
    def broken(step):
        if step == 2:
            raise ValueError("the disk is gone")
        return batch_at(step)

    with pytest.raises(ValueError, match="the disk is gone"):
        run(batches=broken)


def test_a_checkpoint_of_another_model_is_refused(tmp_path, uninterrupted):
    run(checkpoint_dir=tmp_path)
    other = create({"w": jnp.zeros((8, 4))}, {"seen": jnp.zeros((), jnp.int32)}, OPTIMIZER)
    with pytest.raises(RunError, match="does not fit this model"):
        fit(
            other,
            make_step(loss_fn, OPTIMIZER),
            batch_at,
            steps=STEPS,
            key=jax.random.key(0),
            mesh=make_mesh(),
            checkpoint_dir=tmp_path,
        )


def test_a_batch_that_does_not_divide_is_refused():
    with pytest.raises(ConfigError, match="6 rows does not divide among 4 devices"):
        put_batch({"x": np.zeros((6, 2))}, make_mesh())
