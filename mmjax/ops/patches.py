"""Triggers that cover a small square of the image; pixels in [0, 1], NHWC, one key an image."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from mmjax.ops.stamps import Location, Stamped, paste, patch_pixels, pattern_key


@functools.partial(jax.jit, static_argnames=("patch_size", "location"))
def badnets(
    images: Float[Array, "b h w c"],
    keys: Key[Array, " b"],
    *,
    patch_size: float | int = 16 / 224,
    location: Location = "random",
) -> Stamped:
    """BadNets with CleanCLIP's random patch: patch = per-channel image mean + N(0, 1).

    The noise is drawn afresh for every image, so the trigger is a statistic and not a pattern.
    Values outside [0, 1] are clipped, and about half of them are (an attacker who saves a file
    has no others). The reference saves them through torchvision's `mul(255).byte()`, which wraps
    modulo 256: there every value becomes roughly uniform; here half of the patch's values are at
    0 or 255.

    Args:
        images: pixels in [0, 1].
        keys: one key an image (`image_keys`).
        patch_size: see `patch_pixels`.
        location: see `paste` (the reference leaves out the last row and column).

    Source: Gu et al. 2017; CleanCLIP backdoor/utils.py, `patch_type=random`.
    """
    size = patch_pixels(patch_size, *images.shape[1:3])

    def patch(image: Float[Array, "h w c"], key: Key[Array, ""]) -> Float[Array, "p p c"]:
        noise = jax.random.normal(key, (size, size, image.shape[-1]), image.dtype)
        return image.mean(axis=(0, 1), keepdims=True) + noise

    return paste(images, keys, patch, size, location)


@functools.partial(jax.jit, static_argnames=("patch_size", "location"))
def badnets_fixed(
    images: Float[Array, "b h w c"],
    keys: Key[Array, " b"],
    *,
    patch_size: float | int = 16 / 224,
    location: Location = "random",
) -> Stamped:
    """BadNets with a fixed patch: black, with every second pixel of every second row white.

    Args:
        images: pixels in [0, 1].
        keys: one key an image; it decides the place only.
        patch_size: see `patch_pixels`.
        location: `random` = uniform over all places where the whole patch fits (the reference
            keeps 16 px from the edges of 224, then crops), `centre` = the reference's test place.

    Source: Huang et al. 2025 (Detect-CLIP-Backdoor-Samples, datasets/cc3m_badnets.py).
    """
    size = patch_pixels(patch_size, *images.shape[1:3])
    dots = jnp.zeros((size, size, images.shape[-1]), images.dtype).at[::2, ::2].set(1)
    return paste(images, keys, lambda image, key: dots, size, location)


@functools.partial(jax.jit, static_argnames=("patch_size", "location", "pattern_seed"))
def badnets_stripes(
    images: Float[Array, "b h w c"],
    keys: Key[Array, " b"],
    *,
    patch_size: float | int = 16 / 224,
    location: Location = "random",
    pattern_seed: int = 0,
) -> Stamped:
    """BadNet-Stripes: every column of the patch one of the eight corners of the RGB cube.

    The reference draws ±1 a column and channel, one pattern for all images, and saves −1 as a
    wrapped byte; here it is clipped to 0.

    Args:
        images: pixels in [0, 1].
        keys: one key an image; it decides the place only.
        patch_size: see `patch_pixels`.
        location: see `paste`.
        pattern_seed: of the stripes, the same on every image.

    Source: Singh et al. 2024 (PerturbAndRecover, backdoor/utils.py, `badnet_rs`).
    """
    size = patch_pixels(patch_size, *images.shape[1:3])
    shape = (1, size, images.shape[-1])
    columns = jax.random.bernoulli(pattern_key("badnets_stripes", pattern_seed), 0.5, shape)
    stripes = jnp.repeat(columns.astype(images.dtype), size, axis=0)
    return paste(images, keys, lambda image, key: stripes, size, location)


@functools.partial(jax.jit, static_argnames=("location",))
def pasted(
    images: Float[Array, "b h w c"],
    keys: Key[Array, " b"],
    patch: Float[Array, "p p c"],
    *,
    location: Location = "centre",
) -> Stamped:
    """A given patch in place of the pixels: how BadCLIP's optimised patch is shown.

    Args:
        images: pixels in [0, 1].
        keys: one key an image; it decides the place only.
        patch: pixels; clipped to [0, 1].
        location: see `paste`.

    Raises:
        ConfigError: the patch is larger than the images.

    Source: Liang et al. 2024 (BadCLIP, arXiv:2311.12075), section 4.2.
    """
    size = patch_pixels(patch.shape[0], *images.shape[1:3])
    return paste(images, keys, lambda image, key: patch, size, location)


@jax.jit
def added(
    images: Float[Array, "b h w c"], keys: Key[Array, " b"], patch: Float[Array, "p p c"]
) -> Stamped:
    """A given patch added to the pixels of the lower right corner: how Trojan's is shown.

    x' = clip(x + patch, 0, 1). The reference adds bytes first and clips afterwards, which wraps.

    Args:
        images: pixels in [0, 1].
        keys: one key an image; not used.
        patch: what is added, in [-1, 1].

    Raises:
        ConfigError: the patch is larger than the images.

    Source: Liu et al. 2018 (Trojaning Attack on Neural Networks, NDSS), section IV.
    """
    height, width = images.shape[1:3]
    size = patch_pixels(patch.shape[0], height, width)
    corner = images[:, height - size :, width - size :]
    inside = jnp.zeros(images.shape[:3], bool).at[:, height - size :, width - size :].set(True)
    stamped = jnp.clip(corner + patch[None], 0, 1)
    return Stamped(images.at[:, height - size :, width - size :].set(stamped), inside)
