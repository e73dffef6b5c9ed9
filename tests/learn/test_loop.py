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


def run(devices=4, batches=batch_at, loss=loss_fn, max_skipped=1, **options):
    seen = []
    state = fit(
        initial(),
        make_step(loss, OPTIMIZER, max_skipped=max_skipped),
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


def test_states_are_shown_after_their_metrics(uninterrupted):
    told = []
    state, seen = run(
        on_state=lambda done, state: told.append((done, int(state.step), state.params["w"].copy())),
        state_every=10,
    )
    assert [each[:2] for each in told] == [(10, 10), (20, 20)]
    np.testing.assert_array_equal(told[-1][2], state.params["w"])
    assert not np.array_equal(told[0][2], told[1][2])
    assert seen == uninterrupted[1]


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


def steps_in(folder):
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())


def broken_at(*wrong):
    def batches(step):
        batch = batch_at(step)
        return {**batch, "y": batch["y"] * np.float32(np.nan)} if step in wrong else batch

    return batches


def test_a_loss_that_is_no_number_names_its_step_and_keeps_the_last_good_one(tmp_path):
    with pytest.raises(NonFiniteLossError, match="step 10 is not finite: loss nan"):
        run(batches=broken_at(9), checkpoint_dir=tmp_path, checkpoint_every=5)
    assert steps_in(tmp_path) == [5, 9]
    good, _ = run(batches=batch_at, checkpoint_dir=tmp_path)
    assert equal(good, run()[0])


def test_bad_steps_are_skipped_and_counted_until_there_are_too_many_in_a_row(tmp_path):
    state, seen = run(batches=broken_at(3, 4, 9), max_skipped=3)
    assert int(state.skipped) == 3
    assert np.isnan([loss for _, loss in seen]).tolist() == [i in (3, 4, 9) for i in range(STEPS)]
    assert np.all(np.isfinite(state.params["w"]))
    with pytest.raises(
        NonFiniteLossError, match="step 8 is not finite: loss nan.* .4 such steps so far"
    ):
        run(batches=broken_at(1, 5, 6, 7), max_skipped=3, checkpoint_dir=tmp_path)
    assert steps_in(tmp_path) == [5]
    with pytest.raises(NonFiniteLossError, match="step 8"):
        run(batches=broken_at(1, 5, 6, 7), max_skipped=3, checkpoint_dir=tmp_path)
    assert steps_in(tmp_path) == [5]
    resumed, _ = run(batches=broken_at(1), max_skipped=3, checkpoint_dir=tmp_path)
    assert equal(resumed, run(batches=broken_at(1), max_skipped=3)[0])


def test_a_resumed_run_asks_for_the_batches_that_are_left(tmp_path):
    asked = []

    def batches(step):
        asked.append(step)
        return batch_at(step)

    left = iter(range(6))
    with pytest.raises(RetryError):
        run(batches=batches, checkpoint_dir=tmp_path, stop=lambda: next(left, None) is None)
    asked.clear()
    run(batches=batches, checkpoint_dir=tmp_path)
    assert asked == list(range(7, STEPS))


def test_other_data_are_refused(tmp_path):
    run(checkpoint_dir=tmp_path, data={"sha256": "ab"})
    with pytest.raises(RunError, match="other data: sha256 is ab, wanted cd"):
        run(checkpoint_dir=tmp_path, data={"sha256": "cd"})


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
