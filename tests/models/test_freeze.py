import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.core.errors import ConfigError
from mmjax.models import clip
from mmjax.models.clip import Policy, build, freeze
from tests.models.tiny import RESNET, images_of, tokens_of


@pytest.fixture(scope="session")
def plain(model, tiny):
    """Embeddings by the plainest formulation: lax convolutions, BatchNorm, window pools."""
    towers = build(tiny, Policy("float32", "accelerator"))
    _, variables = model
    image = jax.jit(towers.encode_image)(variables, images_of(tiny))
    return image, jax.jit(towers.encode_text)(variables, tokens_of(tiny))


@pytest.mark.parametrize("backend", ["cpu", "accelerator"])
@pytest.mark.parametrize(("compute", "tolerance"), [("float32", 1e-5), ("bfloat16", 2e-2)])
def test_every_frozen_formulation_equals_the_plain_one(
    model, tiny, plain, backend, compute, tolerance
):
    _, variables = model
    frozen, folded = freeze(build(tiny, Policy("float32", backend)), variables, compute)
    assert frozen.policy == Policy(compute, backend)
    image = jax.jit(frozen.encode_image)(folded, images_of(tiny))
    text = jax.jit(frozen.encode_text)(folded, tokens_of(tiny))
    for found, wanted in zip((image, text), plain, strict=True):
        assert found.dtype == jnp.float32
        np.testing.assert_allclose(found, wanted, atol=tolerance)


def test_frozen_weights_of_products_are_stored_in_the_arithmetic(model, tiny):
    towers, variables = model
    _, folded = freeze(towers, variables, "bfloat16")
    dtypes = {
        path[-1].key: leaf.dtype
        for path, leaf in jax.tree_util.tree_leaves_with_path(folded["params"])
    }
    assert dtypes["kernel"] == dtypes["projection"] == jnp.bfloat16
    assert dtypes["token_embedding"] == dtypes["log_scale"] == jnp.float32
    assert folded["batch_stats"] == {}
    scale = towers.logit_scale(variables)
    assert freeze(towers, variables)[0].logit_scale(folded) == scale


def test_a_narrow_resnet_on_a_cpu_stays_in_float32_unless_told(model, tiny, monkeypatch):
    monkeypatch.setattr(clip, "inference_compute", {"auto": "bfloat16"}.get)
    frozen, _ = freeze(build(tiny, Policy("float32", "accelerator")), model[1])
    assert frozen.policy.compute == "bfloat16"
    monkeypatch.setattr(clip, "inference_compute", lambda compute: compute)
    frozen, _ = freeze(build(tiny, Policy("float32", "cpu")), model[1], "bfloat16")
    assert frozen.policy.compute == "bfloat16"
    if tiny is RESNET:
        frozen, _ = freeze(build(tiny, Policy("float32", "cpu")), model[1])
        assert frozen.policy.compute == "float32"


def test_frozen_towers_refuse_to_train(model, tiny):
    frozen, folded = freeze(*model)
    with pytest.raises(ConfigError, match="is frozen"):
        frozen.train_forward(folded, images_of(tiny), tokens_of(tiny))
    with pytest.raises(ConfigError, match="is frozen"):
        frozen.init(jax.random.key(0))
