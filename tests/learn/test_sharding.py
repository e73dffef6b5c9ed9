"""Which array lies where, by the rule table, on four devices."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

from mmjax.core.errors import ConfigError
from mmjax.core.mesh import DATA, MODEL, MeshConfig, make_mesh
from mmjax.learn.sharding import gather, put_state, shardings, without
from mmjax.learn.state import create

RULES = ((r"first/kernel$", P(DATA, MODEL)), (r"kernel$", P(MODEL, None)))
PARAMS = {
    "first": {"kernel": jnp.ones((4, 6)), "bias": jnp.ones(6)},
    "second": {"kernel": jnp.arange(6.0).reshape(6, 1)},
    "odd": {"kernel": jnp.ones((3, 2))},
}


def specs(rules, data=2, model=2):
    state = create(PARAMS, {}, optax.adam(0.1), averaged=True)
    placed = put_state(state, make_mesh(MeshConfig(data=data, model=model)), rules)
    return placed, shardings(state, make_mesh(MeshConfig(data=data, model=model)), rules)


def test_the_first_rule_that_matches_places_a_parameter_and_all_its_copies():
    state, _ = specs(RULES)
    for params in (state.params, state.average[0], state.opt_state[0].mu, state.opt_state[0].nu):
        assert params["first"]["kernel"].sharding.spec == P(DATA, MODEL)
        assert params["first"]["kernel"].addressable_shards[0].data.shape == (2, 3)
        assert params["second"]["kernel"].addressable_shards[0].data.shape == (3, 1)
        assert params["first"]["bias"].sharding.is_fully_replicated
        assert params["odd"]["kernel"].sharding.is_fully_replicated  # 3 rows over 2 devices
    assert state.step.sharding.is_fully_replicated


def test_without_an_axis():
    _, places = specs(without(RULES, DATA), data=4, model=1)
    assert places.params["first"]["kernel"].spec == P(None, MODEL)


def test_gathered_values_are_whole():
    state, _ = specs(RULES)
    mesh = state.params["second"]["kernel"].sharding.mesh
    found = gather(state.params, mesh)["second"]["kernel"]
    assert isinstance(found, np.ndarray)
    np.testing.assert_array_equal(found, PARAMS["second"]["kernel"])


def test_the_state_that_is_placed_shares_no_buffer_with_the_original():
    state, _ = specs(())
    pointers = {
        s.data.unsafe_buffer_pointer() for s in state.params["first"]["kernel"].addressable_shards
    }
    assert PARAMS["first"]["kernel"].unsafe_buffer_pointer() not in pointers


def test_a_spec_that_is_longer_than_the_array_is_refused():
    with pytest.raises(ConfigError, match=r"params/first/bias has shape \[6\]"):
        specs(((r"bias$", P(DATA, MODEL)),))
