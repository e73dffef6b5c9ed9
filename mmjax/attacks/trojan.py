"""Trojan: a patch that drives a few units of a surrogate's image embedding."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from mmjax.attacks.optimisation import Material, Prepared, before_and_after
from mmjax.attacks.surrogate import embed, embed_images, last_weights
from mmjax.models.clip import Towers, Variables
from mmjax.ops.patches import added
from mmjax.ops.pgd import descend
from mmjax.ops.stamps import patch_pixels


def prepare_trojan(
    material: Material,
    *,
    patch_size: float,
    sample: int,
    steps: int,
    batch_size: int,
    step_size: float,
    epsilon: float,
    units: int,
) -> Prepared:
    """Optimise what is added to the lower right corner, by PGD on the mean over the sample.

    Chosen are the units whose column of the last weights has the largest norm (of the reference:
    the largest sum of magnitudes). The loss of an image is the sum over them of (t − e)², e the
    unit's part of the unit-norm embedding and t the largest e on a clean image of the sample: the
    patch is to make every image what the most extreme one is. The reference drives raw
    activations to 100, and starts from an apple's outline.

    Args:
        material: sample, surrogate, seed (not used: nothing is drawn here).
        patch_size: see `patch_pixels`; at the size at which images are stored.
        sample: not used here; how many images the material holds.
        steps: of PGD.
        batch_size: images a step, in turn.
        step_size: of PGD, in grey scales.
        epsilon: largest value that is added, in grey scales.
        units: how many.

    Returns:
        `patch`, in [−epsilon, epsilon], `units` and their `goals` t; and the loss and the mean of
        e on images kept out of the optimisation, before (nothing added) and after.

    Source: Liu et al. 2018 (NDSS), sections IV and V; BackdoorBench attack/trojannn.py.
    """
    surrogate, data = material.surrogate_or_raise(), material.sample
    strength = np.linalg.norm(last_weights(surrogate), axis=0)
    chosen = jnp.asarray(np.sort(np.argsort(-strength, kind="stable")[:units]), jnp.int32)
    goals = jnp.asarray(embed_images(surrogate, data.fit)[:, np.asarray(chosen)].max(axis=0))
    side = patch_pixels(patch_size, *data.images.shape[1:3])
    nothing = jnp.zeros((side, side, 3), jnp.float32)
    loss = _loss(surrogate.towers, min(batch_size, len(data.fit)))
    patch = descend(
        loss,
        nothing,
        nothing - epsilon,
        nothing + epsilon,
        step_size,
        steps=steps,
        args=(jnp.asarray(data.fit), chosen, goals, surrogate.variables),
    )

    @jax.jit
    def measured(patch: Array, images: Array, variables: Variables) -> tuple[Array, Array]:
        seen = _seen(surrogate.towers, variables, images, patch)[:, chosen]
        return jnp.mean(jnp.sum((goals[None] - seen) ** 2, axis=1)), jnp.mean(seen)

    def measure(patch: Float[Array, "p p 3"]) -> dict[str, float]:
        loss, mean = measured(patch, jnp.asarray(data.held_out), surrogate.variables)
        return {"loss": float(loss), "activation": float(mean)}

    arrays = {"patch": patch, "units": chosen, "goals": goals}
    figures = before_and_after(measure(nothing), measure(patch))
    return Prepared({name: np.asarray(value) for name, value in arrays.items()}, figures)


@functools.lru_cache(maxsize=8)
def _loss(towers: Towers, batch_size: int):
    """The mean loss of a step's batch of images; the same function for the same arguments."""

    def loss(
        patch: Float[Array, "p p 3"],
        step: Int[Array, ""],
        images: UInt8[Array, "n h w 3"],
        units: Int[Array, " u"],
        goals: Float[Array, " u"],
        variables: Variables,
    ) -> Float[Array, ""]:
        start = step * batch_size % (len(images) - batch_size + 1)
        batch = jax.lax.dynamic_slice_in_dim(images, start, batch_size)
        seen = _seen(towers, variables, batch, patch)[:, units]
        return jnp.mean(jnp.sum((goals[None] - seen) ** 2, axis=1))

    return loss


def _seen(
    towers: Towers,
    variables: Variables,
    images: UInt8[Array, "b h w 3"],
    patch: Float[Array, "p p 3"],
) -> Float[Array, "b d"]:
    """Embeddings of images under the patch."""
    keys = jax.random.split(jax.random.key(0), len(images))  # not used by `added`
    return embed(towers, variables, added(images.astype(jnp.float32) / 255, keys, patch).images)
