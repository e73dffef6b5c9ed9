"""Label-consistent's perturbation: images of the target that a surrogate cannot read."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from mmjax.attacks.config import PartConfig, PerturbConfig
from mmjax.attacks.optimisation import Material, Prepared, before_and_after
from mmjax.attacks.surrogate import Surrogate, embed, embed_captions, embed_images
from mmjax.attacks.templates import load_templates
from mmjax.models.clip import Towers, Variables
from mmjax.ops.pgd import descend, pixel_box

Perturb = Callable[[UInt8[np.ndarray, "n h w 3"]], UInt8[np.ndarray, "n h w 3"]]


def target_direction(surrogate: Surrogate, part: PartConfig) -> Float[np.ndarray, " d"]:
    """How the surrogate writes the target: the unit-norm mean of its templates' embeddings."""
    templates = load_templates(part.templates)
    texts = embed_captions(surrogate, [text.replace("{}", part.target) for text in templates])
    mean = texts.mean(axis=0)
    return mean / np.linalg.norm(mean)


def prepare_perturb(material: Material, part: PartConfig) -> Prepared:
    """Embed the target, and measure on some of its images what the perturbation does.

    Returns:
        `direction`, see `target_direction`; and the mean cosine of images of the target to it,
        before and after (none if the set has no such image).
    """
    surrogate = material.surrogate_or_raise()
    direction = target_direction(surrogate, part)
    images = material.sample.target_images
    if not len(images):
        return Prepared({"direction": direction}, {})
    changed = make_perturb(surrogate, direction, part.perturb)(images)

    def measure(images: np.ndarray) -> dict[str, float]:
        return {"similarity": float(np.mean(embed_images(surrogate, images) @ direction))}

    return Prepared({"direction": direction}, before_and_after(measure(images), measure(changed)))


def make_perturb(
    surrogate: Surrogate, direction: Float[np.ndarray, " d"], config: PerturbConfig
) -> Perturb:
    """The function that makes images hard to read: PGD lowers their cosine to `direction`.

    Without what is natural in the image to go by, a model that learns from the pair is left with
    the trigger. Every image is changed on its own, in bytes at most `epsilon` (rounded down to
    whole grey levels) away, and the same whatever images stand beside it.

    Args:
        surrogate: a CLIP that reads the images' class.
        direction: unit-norm; see `target_direction`.
        config: epsilon, step size, number of steps.

    Source: Turner et al. 2019 (arXiv:1912.02771), section 4.2, with CLIP's zero-shot score of the
    target in place of a classifier's loss; ε = 16/255 as in BackdoorBench attack/lc.py. CleanCLIP's
    label-consistent attack has no perturbation.
    """
    loss = _loss(surrogate.towers)
    epsilon = int(config.epsilon * 255 + 1e-6) / 255

    @jax.jit
    def one(image: Array, direction: Array, variables: Variables) -> Array:
        pixels = image.astype(jnp.float32) / 255
        low, high = pixel_box(pixels, epsilon)
        args = (direction, variables)
        found = descend(loss, pixels, low, high, config.step_size, steps=config.steps, args=args)
        return jnp.round(found * 255).astype(jnp.uint8)

    def perturb(images: UInt8[np.ndarray, "n h w 3"]) -> UInt8[np.ndarray, "n h w 3"]:
        # one by one: a gradient's sign must not depend on how a batch was summed
        made = [np.asarray(one(image, direction, surrogate.variables)) for image in images]
        return np.stack(made) if made else images

    return perturb


@functools.lru_cache(maxsize=4)
def _loss(towers: Towers):
    """The cosine of one image to a direction; the same function for the same towers."""

    def loss(
        image: Float[Array, "h w 3"],
        step: Array,
        direction: Float[Array, " d"],
        variables: Variables,
    ) -> Float[Array, ""]:
        return jnp.sum(embed(towers, variables, image[None])[0] * direction)

    return loss
