"""Rematerialisation changes what is kept for the backward pass, and no value."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.models.clip import build
from mmjax.models.policy import Policy
from tests.models import tiny


def gradient(preset, *, remat):
    towers = build(preset, Policy("float32", remat=remat))
    images, tokens = tiny.images_of(preset), tiny.tokens_of(preset)
    wanted = jnp.asarray(tiny.direction(preset, len(images)))

    def loss(params, stats):
        variables = {"params": params, "batch_stats": stats}
        image, text, _, stats = towers.train_forward(variables, images, tokens)
        return jnp.sum((image + text) * wanted), stats

    variables = towers.init(jax.random.key(0))
    run = jax.value_and_grad(loss, has_aux=True)
    arguments = variables["params"], variables["batch_stats"]
    return run, arguments, [v.aval.shape for v in jax.make_jaxpr(run)(*arguments).jaxpr.invars]


def blocks(preset):
    """What is computed again: Transformer blocks of both towers, or stages and the text's."""
    vision = preset.vision.layers
    return preset.text.layers + (vision if isinstance(vision, int) else len(vision))


@pytest.mark.parametrize("preset", [tiny.VIT, tiny.RESNET], ids=lambda preset: preset.name)
def test_remat_keeps_paths_values_and_gradients(preset):
    plain, arguments, shapes = gradient(preset, remat=False)
    again, same, same_shapes = gradient(preset, remat=True)
    assert jax.tree.structure(arguments) == jax.tree.structure(same)
    assert shapes == same_shapes
    assert str(jax.make_jaxpr(again)(*arguments)).count("checkpoint[") == blocks(preset)
    assert "checkpoint[" not in str(jax.make_jaxpr(plain)(*arguments))
    (loss, stats), gradients = jax.jit(plain)(*arguments)
    (same_loss, same_stats), same_gradients = jax.jit(again)(*arguments)
    np.testing.assert_allclose(same_loss, loss, rtol=1e-5)
    largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(gradients))
    for one, other in (stats, same_stats), (gradients, same_gradients):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * largest),
            one,
            other,
        )
