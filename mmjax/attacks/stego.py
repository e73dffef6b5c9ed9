"""ISSBA: a message that a small network hides in every image, and another one reads."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import traverse_util
from jaxtyping import Array, Float, Key

from mmjax.attacks.optimisation import Material, Prepared, fit_arrays
from mmjax.core import keys
from mmjax.core.errors import ConfigError
from mmjax.learn.step import LossFn
from mmjax.models.stego import GRID, Stego, build_stego
from mmjax.ops.quality import psnr, ssim
from mmjax.ops.stamps import Stamped, everywhere, pattern_key

READABLE = 0.9
"""Share of right bits from which on the image's loss counts (BackdoorBench resource/ssba)."""

Arrays = Mapping[str, Any]
"""`bits`, and the networks' parameters by their paths."""


def prepare_issba(
    material: Material,
    *,
    bits: int,
    width: int,
    sample: int,
    steps: int,
    batch_size: int,
    learning_rate: float,
    image_weight: float,
    pattern_seed: int,
) -> Prepared:
    """Train encoder and decoder on the images at hand; the message is drawn by `pattern_seed`.

    L = mean binary cross-entropy of random messages' bits + w · mean (x' − x)². w is 0 until nine
    bits of ten are read, then rises over a quarter of the steps to `image_weight`. Images are
    rounded to bytes before they are read, as they are when they are stored. No perceptual and no
    adversarial loss, as in BackdoorBench.

    Args:
        material: sample and seed; no surrogate.
        bits: of the message.
        width: of the networks.
        sample: not used here; how many images the material holds.
        steps: of Adam.
        batch_size: images a step.
        learning_rate: of Adam.
        image_weight: the last w.
        pattern_seed: of the message.

    Returns:
        The message as `bits` of 0 and 1, the networks' parameters by their paths; and, on images
        kept out of the training, the share of right bits of random messages (`bit_accuracy`) and
        of the message (`message_accuracy`), PSNR (dB) and SSIM of the message's images.

    Raises:
        ConfigError: the side of the images is not a multiple of 8.

    Source: Li et al. 2021 (ISSBA, arXiv:2012.03816), section 4; BackdoorBench resource/ssba.
    """
    size = material.sample.images.shape[1]
    if size % GRID:
        raise ConfigError(
            f"issba wants images of a side that is a multiple of {GRID}, got {size}; change "
            "--config.image_size"
        )
    stego = build_stego(bits, width)
    key = keys.stream(jax.random.key(material.seed), "issba")
    start = stego.init(keys.stream(key, "start"), size)
    residual = start["hide"]["residual"]
    residual["kernel"] = 0.1 * residual["kernel"]  # else pixels start at the ends of their range
    data = material.sample.fit
    batch_size = min(batch_size, len(data))

    def batch_at(step: int) -> dict[str, np.ndarray]:
        rng = keys.host(material.seed, "issba", step)
        return {"images": data[rng.choice(len(data), batch_size, replace=False)]}

    trained = fit_arrays(
        start,
        {"raised": jnp.zeros(())},
        _make_loss(stego, bits, image_weight, max(steps // 4, 1)),
        batch_at,
        optimizer=optax.adam(learning_rate),
        steps=steps,
        key=keys.stream(key, "messages"),
        what="issba",
    )
    flat = traverse_util.flatten_dict(dict(trained), sep="/")
    arrays = {name: np.asarray(value) for name, value in flat.items()}
    message = jax.random.bernoulli(pattern_key("issba", pattern_seed), 0.5, (bits,))
    arrays["bits"] = np.asarray(message, np.uint8)
    held_out = material.sample.held_out
    figures = measure_issba(arrays, held_out, keys.stream(key, "held out"))
    return Prepared(arrays, figures)


def apply_issba(images: Float[Array, "b h w 3"], keys: Key[Array, " b"], arrays: Arrays) -> Stamped:
    """Hide the message of a preparation in images.

    Args:
        images: pixels in [0, 1].
        keys: one key an image; not used.
        arrays: as `prepare_issba` returns them.
    """
    count, width = arrays["bits"].shape[0], arrays["hide/fine/bias"].shape[0]
    message = jnp.broadcast_to(arrays["bits"].astype(jnp.float32), (images.shape[0], count))
    return everywhere(_stego(count, width).hide(_tree(arrays), images, message))


def read_issba(arrays: Arrays, images: Float[Array, "b h w 3"]) -> Float[Array, "b bits"]:
    """Logits of the bits that a preparation's decoder reads in images; pixels in [0, 1]."""
    count, width = arrays["bits"].shape[0], arrays["hide/fine/bias"].shape[0]
    return _stego(count, width).reveal(_tree(arrays), images)


def measure_issba(arrays: Arrays, held_out: np.ndarray, key: Key[Array, ""]) -> dict[str, float]:
    """What a preparation achieves on images that it was not trained on."""
    count, width = arrays["bits"].shape[0], arrays["hide/fine/bias"].shape[0]
    stego, params = _stego(count, width), _tree(arrays)
    fixed = jnp.broadcast_to(jnp.asarray(arrays["bits"], jnp.float32), (len(held_out), count))
    drawn = jax.random.bernoulli(key, 0.5, fixed.shape).astype(jnp.float32)

    @jax.jit
    def hidden(images: Array, message: Array) -> tuple[Array, Array]:
        stored = _rounded(stego.hide(params, images, message))
        right = (stego.reveal(params, stored) > 0) == (message > 0.5)
        return stored, jnp.mean(right)

    images = jnp.asarray(held_out, jnp.float32) / 255
    _, of_any = hidden(images, drawn)
    stored, of_message = hidden(images, fixed)
    return {
        "bit_accuracy": float(of_any),
        "message_accuracy": float(of_message),
        "psnr": float(jnp.mean(psnr(images, stored))),
        "ssim": float(jnp.mean(ssim(images, stored))),
    }


def _make_loss(stego: Stego, bits: int, image_weight: float, rise: int) -> LossFn:
    def loss_fn(params, model_state, batch, key):
        images = batch["images"].astype(jnp.float32) / 255
        message = jax.random.bernoulli(key, 0.5, (len(images), bits)).astype(jnp.float32)
        hidden = stego.hide(params, images, message)
        logits = stego.reveal(params, hidden + jax.lax.stop_gradient(_rounded(hidden) - hidden))
        bit_loss = jnp.mean(optax.sigmoid_binary_cross_entropy(logits, message))
        image_loss = jnp.mean((hidden - images) ** 2)
        accuracy = jnp.mean((logits > 0) == (message > 0.5))
        raised = model_state["raised"]
        weight = image_weight * jnp.minimum(raised / rise, 1)
        after = {"raised": raised + (accuracy > READABLE)}
        metrics = {"image_loss": image_loss, "bit_accuracy": accuracy}
        return bit_loss + weight * image_loss, (after, metrics)

    return loss_fn


def _rounded(images: Float[Array, "b h w 3"]) -> Float[Array, "b h w 3"]:
    return jnp.round(images * 255) / 255


@functools.lru_cache(maxsize=8)
def _stego(bits: int, width: int) -> Stego:
    return build_stego(bits, width)


def _tree(arrays: Arrays) -> dict:
    """The networks' parameters as `Stego` takes them."""
    weights = {name: jnp.asarray(value) for name, value in arrays.items() if name != "bits"}
    return traverse_util.unflatten_dict(weights, sep="/")
