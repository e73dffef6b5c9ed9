"""BadCLIP: a patch that makes a surrogate read any image as the target."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from mmjax.attacks.optimisation import Material, Prepared, before_and_after, fit_arrays
from mmjax.attacks.surrogate import Surrogate, embed, embed_captions, embed_images
from mmjax.core import keys
from mmjax.core.errors import ConfigError
from mmjax.learn.step import LossFn
from mmjax.ops.contrastive import info_nce, triplet
from mmjax.ops.patches import pasted
from mmjax.ops.stamps import Location, image_keys, patch_pixels


def prepare_badclip(
    material: Material,
    *,
    patch_size: float,
    location: Location,
    sample: int,
    steps: int,
    batch_size: int,
    learning_rate: float,
    margin: float,
    triplet: float,
) -> Prepared:
    """Optimise the patch: L = InfoNCE + w · triplet, by Adam, the surrogate frozen.

    InfoNCE pairs the images under the patch with captions that name the target; the triplet loss
    draws their embeddings to those of images of the target and away from their own without the
    patch. The reference takes 7,800 steps at a rate of 10⁻³; here there are fewer and longer ones.

    Args:
        material: sample, surrogate, seed.
        patch_size: see `patch_pixels`; at the size at which images are stored.
        location: where the patch is put, during the optimisation too.
        sample: not used here; how many images the material holds.
        steps: of Adam.
        batch_size: images a step.
        learning_rate: of Adam, in grey scales.
        margin: m of the triplet loss.
        triplet: w.

    Returns:
        `patch`, pixels in [0, 1]; and the loss and the mean cosine to the target's captions, on
        images kept out of the optimisation, before and after.

    Raises:
        ConfigError: the sample holds no image, or no caption, of the target.

    Source: Liang et al. 2024 (arXiv:2311.12075), equations 3 to 6;
    BadCLIP src/embeding_optimize_patch.py.
    """
    surrogate, data = material.surrogate_or_raise(), material.sample
    if not len(data.target_images) or not data.target_captions:
        raise ConfigError(
            f"badclip learns from images and captions of the target, and the set has none of "
            f"{material.target!r} that can be read; choose another --target"
        )
    captions = embed_captions(surrogate, data.target_captions)
    targets = embed_images(surrogate, data.target_images)
    batch_size = min(batch_size, len(data.fit))
    clean = embed_images(surrogate, data.fit)
    loss_fn = _make_loss(surrogate, location, margin, triplet)

    def rows(images: np.ndarray, clean: np.ndarray, count: int, *names: str | int):
        rng = keys.host(material.seed, "badclip", *names)
        chosen = rng.choice(len(images), count, replace=False)
        return {
            "images": images[chosen],
            "clean": clean[chosen],
            "captions": captions[rng.integers(len(captions), size=count)],
            "targets": targets[rng.integers(len(targets), size=count)],
        }

    side = patch_pixels(patch_size, *data.images.shape[1:3])
    key = keys.stream(jax.random.key(material.seed), "badclip")
    drawn = keys.stream(jax.random.key(material.seed), "badclip", "start")
    noise = 0.5 + 0.25 * jax.random.normal(drawn, (side, side, 3))
    start = {"patch": jnp.clip(noise, 0, 1)}
    held_out = rows(
        data.held_out,
        embed_images(surrogate, data.held_out),
        min(batch_size, len(data.held_out)),
        "held out",
    )
    measured = jax.jit(loss_fn)
    fixed = {"surrogate": surrogate.variables}

    def measure(params: dict[str, Array]) -> dict[str, float]:
        loss, (_, extra) = measured(params, fixed, held_out, key)
        return {"loss": float(loss), "similarity": float(extra["similarity"])}

    found = fit_arrays(
        start,
        fixed,
        loss_fn,
        lambda step: rows(data.fit, clean, batch_size, step),
        optimizer=optax.adam(learning_rate),
        steps=steps,
        key=key,
        what="badclip",
        project=lambda params: {"patch": jnp.clip(params["patch"], 0, 1)},
    )
    figures = before_and_after(measure(start), measure(found))
    return Prepared({"patch": np.asarray(found["patch"])}, figures)


def _make_loss(surrogate: Surrogate, location: Location, margin: float, weight: float) -> LossFn:
    towers = surrogate.towers
    scale = towers.logit_scale(surrogate.variables)

    def loss_fn(params, model_state, batch, key):
        pixels = batch["images"].astype(jnp.float32) / 255
        places = image_keys(key, jnp.arange(len(pixels), dtype=jnp.uint32))
        stamped = pasted(pixels, places, params["patch"], location=location).images
        seen: Float[Array, "b d"] = embed(towers, model_state["surrogate"], stamped)
        contrast = info_nce(seen, batch["captions"], scale)
        pull = triplet(seen, batch["targets"], batch["clean"], margin)
        similarity = jnp.mean(seen @ jnp.mean(batch["captions"], axis=0))
        metrics = {"contrast": contrast, "triplet": pull, "similarity": similarity}
        return contrast + weight * pull, (model_state, metrics)

    return loss_fn
