import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmjax.core.config import parse
from mmjax.core.errors import ConfigError
from mmjax.learn.config import OptimizerConfig
from mmjax.learn.state import create, make_optimizer, make_schedule
from mmjax.learn.step import make_step


def rates(steps, **options):
    schedule = make_schedule(OptimizerConfig(learning_rate=1.0, **options), steps)
    return np.array([schedule(step) for step in range(steps)])


@pytest.mark.parametrize("warmup", [10.0, 0.1])
def test_warmup_in_steps_or_as_a_fraction(warmup):
    found = rates(100, warmup=warmup)
    np.testing.assert_allclose(found[:10], np.arange(1, 11) / 10, rtol=1e-6)
    cosine = (1 + np.cos(np.pi * np.arange(90) / 90)) / 2
    np.testing.assert_allclose(found[10:], cosine, atol=1e-6)


def test_constant_schedule_and_no_warmup():
    np.testing.assert_allclose(rates(5, warmup=0.0, schedule="constant"), 1)


def test_a_warmup_as_long_as_the_run_is_refused():
    with pytest.raises(ConfigError, match="warm-up takes 50 of 50 steps"):
        make_schedule(OptimizerConfig(warmup=50.0), 50)


def test_only_matrices_decay():
    config = OptimizerConfig(learning_rate=0.1, warmup=0.0, schedule="constant", weight_decay=0.5)
    optimizer = make_optimizer(config, 10)
    params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2), "log_scale": jnp.ones(())}
    updates, _ = optimizer.update(
        jax.tree.map(jnp.zeros_like, params), optimizer.init(params), params
    )
    np.testing.assert_allclose(updates["kernel"], -0.05, rtol=1e-6)
    np.testing.assert_array_equal(updates["bias"], 0)
    np.testing.assert_array_equal(updates["log_scale"], 0)


def test_gradients_are_clipped_before_adam():
    """Adam is blind to a gradient's scale but not to a change of it: the second step tells."""

    def moved(clip_norm):
        config = OptimizerConfig(
            learning_rate=1.0, warmup=0.0, weight_decay=0.0, clip_norm=clip_norm
        )
        optimizer = make_optimizer(config, 10)
        params = {"w": jnp.zeros((1, 1))}
        state = optimizer.init(params)
        for gradient in (1.0, 100.0):
            updates, state = optimizer.update({"w": jnp.full((1, 1), gradient)}, state, params)
        return float(updates["w"][0, 0])

    assert abs(moved(1.0)) > 0.9
    assert abs(moved(0.0)) < 0.9


def test_options_are_checked():
    with pytest.raises(ConfigError, match="learning_rate"):
        parse(OptimizerConfig, {"learning_rate": -1.0})


def test_step_projects_and_reports():
    optimizer = optax.sgd(1.0)

    def loss_fn(params, model_state, batch, key):
        return params["w"] * batch["x"], (model_state, {"seen": batch["x"]})

    step = make_step(loss_fn, optimizer, lambda params: jax.tree.map(lambda p: p.clip(-1), params))
    state, metrics = step(
        create({"w": jnp.float32(0)}, {}, optimizer), {"x": jnp.float32(3)}, jax.random.key(0)
    )
    assert float(state.params["w"]) == -1  # -3 without the projection
    assert {name: float(value) for name, value in metrics.items()} == {
        "loss": 0,
        "gradient_norm": 3,
        "seen": 3,
        "skipped": 0,
        "diverged": 0,
    }


def test_a_step_that_is_not_finite_changes_nothing_and_is_counted():
    optimizer = optax.adam(0.1)

    def loss_fn(params, model_state, batch, key):
        return jnp.sqrt(params["w"] * batch["x"]), ({"seen": model_state["seen"] + 1}, {})

    step = make_step(loss_fn, optimizer, average_decay=0.5, max_skipped=3)
    state = create({"w": jnp.float32(2)}, {"seen": jnp.int32(0)}, optimizer, averaged=True)
    states = [state]
    for x in (1.0, -1.0, 0.0, 1.0):  # a finite loss, NaN, 0 with an infinite gradient
        state, metrics = step(state, {"x": jnp.float32(x)}, jax.random.key(0))
        states.append(state)
    assert [int(state.skipped) for state in states] == [0, 0, 1, 2, 2]
    assert [int(state.skipped_in_row) for state in states] == [0, 0, 1, 2, 0]
    assert int(metrics["skipped"]) == 2
    good = jax.tree.leaves(states[1])
    assert all(map(np.array_equal, good, jax.tree.leaves(states[3].last_good())))
    assert float(states[4].params["w"]) < float(states[3].params["w"])
    assert int(states[4].model_state["seen"]) == 2
    assert int(states[4].step) == 4


def test_an_update_that_is_not_finite_is_skipped():
    optimizer = optax.sgd(1e30)

    def loss_fn(params, model_state, batch, key):
        return params["w"] * batch["x"], (model_state, {})

    step = make_step(loss_fn, optimizer)
    state = create({"w": jnp.float32(1)}, {}, optimizer)
    state, metrics = step(state, {"x": jnp.float32(1e15)}, jax.random.key(0))
    assert float(metrics["gradient_norm"]) == pytest.approx(1e15)
    assert float(state.params["w"]) == 1
    assert int(state.skipped) == 1


def test_the_learning_rate_is_that_of_the_step_after_skipped_ones_too():
    optimizer = optax.sgd(lambda step: 10.0**step)

    def loss_fn(params, model_state, batch, key):
        return params["w"] * batch["x"], (model_state, {})

    step = make_step(loss_fn, optimizer, max_skipped=3)
    state, seen = create({"w": jnp.float32(0)}, {}, optimizer), []
    for x in (1.0, jnp.nan, jnp.nan, 1.0):
        state, _ = step(state, {"x": jnp.float32(x)}, jax.random.key(0))
        seen.append(float(state.params["w"]))
    assert seen == [-1, -1, -1, -1001]


def test_averages_follow_slowly_and_forget_the_start():
    optimizer = optax.sgd(1.0)

    def loss_fn(params, model_state, batch, key):
        return jnp.sum(-params["w"]), ({"count": model_state["count"] + 1}, {})

    step = make_step(loss_fn, optimizer, average_decay=0.3)
    state = create({"w": jnp.zeros(2)}, {"count": jnp.int32(0)}, optimizer, averaged=True)
    wanted = 0.0
    for done in range(6):  # w is 1, 2, 3, ...
        decay = min(0.3, (1 + done) / (10 + done))
        wanted = decay * wanted + (1 - decay) * (done + 1)
        state, _ = step(state, {}, jax.random.key(0))
    params, model_state = state.average
    np.testing.assert_allclose(params["w"], wanted, rtol=1e-6)
    np.testing.assert_array_equal(state.params["w"], 6)
    assert int(model_state["count"]) == 6


def test_every_step_gets_a_key_of_its_own():
    optimizer = optax.sgd(0.0)

    def loss_fn(params, model_state, batch, key):
        return params["w"] + jax.random.normal(key), (model_state, {})

    step = make_step(loss_fn, optimizer)
    state = create({"w": jnp.float32(0)}, {}, optimizer)
    state, first = step(state, {}, jax.random.key(0))
    state, second = step(state, {}, jax.random.key(0))
    assert float(first["loss"]) != float(second["loss"])
