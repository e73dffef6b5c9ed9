"""What every trigger is made of: its result, one key an image, pasting and blending."""

import functools
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, UInt32

from mmjax.core import keys as streams
from mmjax.core.errors import ConfigError

Location = Literal["random", "centre"]


class Stamped(NamedTuple):
    """Stamped images, in [0, 1], and the pixels that the trigger may have changed."""

    images: Float[Array, "b h w c"]
    mask: Bool[Array, "b h w"]


@jax.jit
def image_keys(key: Key[Array, ""], identities: UInt32[Array, " b"]) -> Key[Array, " b"]:
    """One key an image, from the image's own identity: the same in any order and any batch."""
    return jax.vmap(functools.partial(jax.random.fold_in, key))(identities)


def pattern_key(name: str, pattern_seed: int) -> Key[Array, ""]:
    """The key of a pattern that is the same on every image."""
    return streams.stream(jax.random.key(pattern_seed), "pattern", name)


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


def paste(
    images: Float[Array, "b h w c"],
    keys: Key[Array, " b"],
    patch: Callable[[Float[Array, "h w c"], Key[Array, ""]], Float[Array, "p p c"]],
    size: int,
    location: Location,
) -> Stamped:
    """Put `patch(image, key)`, clipped to [0, 1], where `location` says.

    Args:
        images: pixels in [0, 1].
        keys: one key an image; split into one for the place and one for the patch.
        patch: makes the patch of an image.
        size: of the patch, in pixels.
        location: `random` = the top-left corner uniform over all places where the whole patch
            fits, `centre` = the middle.
    """

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


def blend(
    images: Float[Array, "b h w c"],
    pattern: Float[Array, "#b h w c"],
    alpha: float | int,
    inside: Bool[Array, "h w"] | None = None,
) -> Stamped:
    """Mix: x' = clip((1 − α)·x + α·pattern, 0, 1), on the pixels `inside` (None: everywhere)."""
    mixed = jnp.clip((1 - alpha) * images + alpha * pattern, 0, 1)
    if inside is None:
        return everywhere(mixed)
    mask = jnp.broadcast_to(inside[None], images.shape[:3])
    return Stamped(jnp.where(mask[..., None], mixed, images), mask)


def everywhere(images: Float[Array, "b h w c"]) -> Stamped:
    """The result of a trigger that may change every pixel."""
    return Stamped(images, jnp.ones(images.shape[:3], bool))


def _corner(
    key: Key[Array, ""], height: int, width: int, size: int, location: Location
) -> tuple[Int[Array, ""], Int[Array, ""]]:
    """The top-left corner of a patch of `size` pixels."""
    if location == "centre":
        return jnp.int32((height - size) // 2), jnp.int32((width - size) // 2)
    limits = jnp.array([height - size + 1, width - size + 1], jnp.int32)
    top, left = jax.random.randint(key, (2,), 0, limits)
    return top, left
