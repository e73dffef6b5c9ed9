"""Rematerialisation changes what is kept for the backward pass, and no value."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.models.clip import build
from mmjax.models.policy import Policy
from mmjax.models.presets import VisionPreset
from tests.models import tiny


def loss_of(preset, *, remat):
    towers = build(preset, Policy("float32", remat=remat))
    images, tokens = tiny.images_of(preset, 8), tiny.tokens_of(preset, 8)
    wanted = jnp.asarray(tiny.direction(preset, len(images)))

    def loss(params, stats):
        variables = {"params": params, "batch_stats": stats}
        image, text, _, stats = towers.train_forward(variables, images, tokens)
        return jnp.sum((image + text) * wanted), stats

    variables = jax.jit(towers.init)(jax.random.key(0))
    return loss, (variables["params"], variables["batch_stats"])


def kept(loss, variables):
    """Numbers that the forward pass keeps for the backward pass, parameters included."""
    backward = jax.eval_shape(lambda *args: jax.vjp(loss, *args, has_aux=True)[1], *variables)
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(backward))


@pytest.mark.parametrize(
    "preset",
    [
        pytest.param(tiny.VIT, id="vit"),
        pytest.param(tiny.RESNET, id="resnet", marks=pytest.mark.slow),
    ],
)
def test_remat_keeps_less(preset):
    plain, variables = loss_of(preset, remat=False)
    again, same_variables = loss_of(preset, remat=True)
    assert jax.tree.structure(variables) == jax.tree.structure(same_variables)
    assert kept(again, variables) < 0.5 * kept(plain, variables)


@pytest.mark.slow
@pytest.mark.parametrize(
    "vision",
    [
        pytest.param(VisionPreset(32, 32, 1, patch_size=16, head_width=16), id="vit"),
        pytest.param(VisionPreset(32, 4, (1, 2), head_width=32), id="resnet"),
    ],
)
def test_remat_changes_no_value_and_no_gradient(vision):
    text = dataclasses.replace(tiny.VIT.text, layers=1)
    preset = dataclasses.replace(tiny.VIT, vision=vision, text=text)
    plain, variables = loss_of(preset, remat=False)
    again, _ = loss_of(preset, remat=True)
    gradient = jax.jit(jax.value_and_grad(plain, has_aux=True))
    same_gradient = jax.jit(jax.value_and_grad(again, has_aux=True))
    (loss, stats), gradients = gradient(*variables)
    (same_loss, same_stats), same_gradients = same_gradient(*variables)
    np.testing.assert_allclose(same_loss, loss, rtol=1e-5)
    largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(gradients))
    for one, other in (stats, same_stats), (gradients, same_gradients):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * largest),
            one,
            other,
        )
