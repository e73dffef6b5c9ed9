import jax
import numpy as np
import pytest

from mmjax.models.clip import build
from mmjax.models.initial import normal, uniform_fan_in
from tests.models.tiny import RESNET

DRAWS = {"normal": (normal(0.5), 0.5), "uniform_fan_in": (uniform_fan_in(), (3 * 600) ** -0.5)}


@pytest.mark.parametrize("name", sorted(DRAWS))
def test_values_have_their_deviation_and_depend_on_the_key_alone(name):
    draw, deviation = DRAWS[name]
    key, other = jax.random.split(jax.random.key(0))
    values = np.asarray(draw(key, (20, 30, 40)))
    assert values.dtype == np.float32
    assert abs(values.mean()) < 4 * deviation / np.sqrt(values.size)
    assert values.std() == pytest.approx(deviation, rel=0.02)
    np.testing.assert_array_equal(values, jax.jit(draw, static_argnums=1)(key, (20, 30, 40)))
    assert not np.array_equal(values, draw(other, (20, 30, 40)))


@pytest.mark.usefixtures("keys_checked")
def test_a_model_starts_as_clip_does():
    init = jax.jit(build(RESNET).init)
    params = init(jax.random.key(0))["params"]
    block = params["visual"]["stage_1_block_0"]
    assert (block["conv_3"]["norm"]["scale"] == 0).all()  # every block starts as its shortcut
    assert (block["conv_2"]["norm"]["scale"] == 1).all()
    assert float(np.std(params["text"]["token_embedding"])) == pytest.approx(0.02, rel=0.05)
    assert float(np.std(params["text"]["position"])) == pytest.approx(0.01, rel=0.1)
    again = init(jax.random.key(0))["params"]
    jax.tree.map(np.testing.assert_array_equal, params, again)
    other = init(jax.random.key(1))["params"]["text"]["token_embedding"]
    assert not np.array_equal(other, params["text"]["token_embedding"])
