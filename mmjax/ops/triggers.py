"""Visual triggers: what an attacker paints on an image; pixels in [0, 1], NHWC, one key an image.

Every trigger maps (images, keys) to (stamped images, mask of the pixels it may have changed).
An image's result depends on that image and its own key only, never on the rest of the batch.
Cost: O(pixels of the batch); peak memory two batches of float32 and the patches.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, UInt32

from mmjax.core.errors import ConfigError

Location = Literal["random", "centre"]


class Stamped(NamedTuple):
    """Stamped images, in [0, 1], and the pixels that the trigger may have changed."""

    images: Float[Array, "b h w c"]
    mask: Bool[Array, "b h w"]


class Trigger(NamedTuple):
    """An entry of `TRIGGERS`: `apply(images, keys, **parameters)`, its parameters, its source."""

    apply: Callable[..., Stamped]
    defaults: Mapping[str, Any]
    source: str


@jax.jit
def image_keys(key: Key[Array, ""], identities: UInt32[Array, " b"]) -> Key[Array, " b"]:
    """One key an image, from the image's own identity: the same in any order and any batch."""
    return jax.vmap(functools.partial(jax.random.fold_in, key))(identities)


def patch_pixels(patch_size: float | int, height: int, width: int) -> int:
    """The side of a square patch in pixels.

    Args:
        patch_size: below 1 a fraction of the image's shorter side (16/224 is the literature's),
            from 1 on a number of pixels.
        height: of the image, in pixels.
        width: of the image, in pixels.

    Raises:
        ConfigError: the patch is not positive or larger than the image.
    """
    shorter = min(height, width)
    pixels = round(patch_size * shorter) if patch_size < 1 else round(patch_size)
    pixels = max(pixels, 1) if patch_size > 0 else 0
    if not 1 <= pixels <= shorter:
        raise ConfigError(
            f"patch_size={patch_size} wants a patch of {pixels} px on an image of {height}x{width};"
            f" give a fraction in (0, 1) or 1 to {shorter} pixels"
        )
    return pixels


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
        location: `random` = the top-left corner uniform over all places where the whole patch
            fits (the reference leaves out the last row and column), `centre` = the middle.

    Source: Gu et al. 2017; CleanCLIP backdoor/utils.py, `patch_type=random`.
    """
    size = patch_pixels(patch_size, *images.shape[1:3])

    def patch(image: Float[Array, "h w c"], key: Key[Array, ""]) -> Float[Array, "p p c"]:
        noise = jax.random.normal(key, (size, size, image.shape[-1]), image.dtype)
        return image.mean(axis=(0, 1), keepdims=True) + noise

    return _paste(images, keys, patch, size, location)


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
    return _paste(images, keys, lambda image, key: dots, size, location)


def _paste(
    images: Float[Array, "b h w c"],
    keys: Key[Array, " b"],
    patch: Callable[[Float[Array, "h w c"], Key[Array, ""]], Float[Array, "p p c"]],
    size: int,
    location: Location,
) -> Stamped:
    """Put `patch(image, key)`, clipped to [0, 1], where `location` says."""

    def one(
        image: Float[Array, "h w c"], key: Key[Array, ""]
    ) -> tuple[Float[Array, "h w c"], Bool[Array, "h w"]]:
        place_key, patch_key = jax.random.split(key)
        top, left = _corner(place_key, image.shape[0], image.shape[1], size, location)
        values = jnp.clip(patch(image, patch_key), 0, 1)
        stamped = jax.lax.dynamic_update_slice(image, values, (top, left, 0))
        inside = jax.lax.dynamic_update_slice(
            jnp.zeros(image.shape[:2], bool), jnp.ones((size, size), bool), (top, left)
        )
        return stamped, inside

    return Stamped(*jax.vmap(one)(images, keys))


def _corner(
    key: Key[Array, ""], height: int, width: int, size: int, location: Location
) -> tuple[Int[Array, ""], Int[Array, ""]]:
    """The top-left corner of a patch of `size` pixels."""
    if location == "centre":
        return jnp.int32((height - size) // 2), jnp.int32((width - size) // 2)
    limits = jnp.array([height - size + 1, width - size + 1], jnp.int32)
    top, left = jax.random.randint(key, (2,), 0, limits)
    return top, left


TRIGGERS: dict[str, Trigger] = {
    "badnets": Trigger(
        badnets,
        {"patch_size": 16 / 224, "location": "random"},
        "Gu et al. 2017 (arXiv:1708.06733), as in CleanCLIP (arXiv:2303.03323)",
    ),
    "badnets_fixed": Trigger(
        badnets_fixed,
        {"patch_size": 16 / 224, "location": "random"},
        "Gu et al. 2017, the dots of Huang et al. 2025 (arXiv:2502.01385)",
    ),
}
"""Every visual trigger, by the name that a configuration gives it."""
