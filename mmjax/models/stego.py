"""ISSBA's networks: an encoder that hides a message in an image, a decoder that reads it.

Both work on 4x4 blocks of pixels as channels, which makes their convolutions sixteen times cheaper
than at full resolution; the message is laid out on an 8x8 grid and stretched over the image, so
any side that is a multiple of 8 will do.
Cost at width 32: 1.2 MFLOP a block of 4x4 pixels for both, 0.3 GFLOP an image of 64 px.
Source: Li et al. 2021 (ISSBA, arXiv:2012.03816, section 4), after StegaStamp (arXiv:1904.05343).
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, PRNGKeyArray

from mmjax.models import initial
from mmjax.models.convolution import convolve
from mmjax.models.layers import Dense
from mmjax.models.policy import Policy, resolve

BLOCK = 4
GRID = 8
_GRID_CHANNELS = 16

Params = Mapping[str, Any]


class Stego(NamedTuple):
    """Functions of the two networks; none is jitted.

    init(key, size) -> parameters for images of `size` pixels a side: `{"hide": …, "reveal": …}`.
    hide(params, images, bits) -> the images, in [0, 1], with bits (of 0 and 1) hidden in each.
    reveal(params, images) -> logits of the bits.
    """

    init: Callable[[PRNGKeyArray, int], Params]
    hide: Callable[
        [Params, Float[Array, "b h w 3"], Float[Array, "b bits"]], Float[Array, "b h w 3"]
    ]
    reveal: Callable[[Params, Float[Array, "b h w 3"]], Float[Array, "b bits"]]


def build_stego(bits: int = 100, width: int = 32) -> Stego:
    """The networks for messages of `bits` bits; `width` is the channels of the finest level."""
    policy = resolve(Policy())
    hider, revealer = Hider(bits, width, policy), Revealer(bits, width, policy)

    def init(key: PRNGKeyArray, size: int) -> Params:
        hide_key, reveal_key = jax.random.split(key)
        images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
        message = jax.ShapeDtypeStruct((1, bits), jnp.float32)
        return {
            "hide": hider.lazy_init(hide_key, images, message)["params"],
            "reveal": revealer.lazy_init(reveal_key, images)["params"],
        }

    def hide(
        params: Params, images: Float[Array, "b h w 3"], message: Float[Array, "b bits"]
    ) -> Float[Array, "b h w 3"]:
        residual = hider.apply({"params": params["hide"]}, images, message)
        return jnp.clip(images + jnp.asarray(residual), 0, 1)

    def reveal(params: Params, images: Float[Array, "b h w 3"]) -> Float[Array, "b bits"]:
        return jnp.asarray(revealer.apply({"params": params["reveal"]}, images))

    return Stego(init, hide, reveal)


class Hider(nn.Module):
    """A U-Net of two levels over blocks of pixels, the message among its inputs."""

    bits: int
    width: int
    policy: Policy

    @nn.compact
    def __call__(
        self, images: Float[Array, "b h w 3"], message: Float[Array, "b bits"]
    ) -> Float[Array, "b h w 3"]:
        """Returns what is added to the images."""
        blocks = blocks_of(2 * images - 1)
        grid = Dense(GRID * GRID * _GRID_CHANNELS, self.policy, self.bits**-0.5, name="message")(
            2 * message - 1
        )
        grid = grid.reshape(-1, GRID, GRID, _GRID_CHANNELS)
        shape = (*blocks.shape[:3], _GRID_CHANNELS)
        spread = jax.image.resize(grid, shape, "nearest")
        fine = jnp.concatenate([blocks, spread], axis=-1)
        fine = jax.nn.relu(Convolution(self.width, self.policy, name="fine")(fine))
        coarse = Convolution(2 * self.width, self.policy, stride=2, name="down")(fine)
        coarse = Convolution(2 * self.width, self.policy, name="coarse")(jax.nn.relu(coarse))
        coarse = jax.image.resize(jax.nn.relu(coarse), (*fine.shape[:3], 2 * self.width), "nearest")
        mixed = jnp.concatenate([fine, coarse, spread], axis=-1)
        mixed = jax.nn.relu(Convolution(self.width, self.policy, name="up")(mixed))
        return pixels_of(Convolution(blocks.shape[-1], self.policy, name="residual")(mixed))


class Revealer(nn.Module):
    """Convolutions over blocks of pixels, their means on the message's grid, two dense layers."""

    bits: int
    width: int
    policy: Policy

    @nn.compact
    def __call__(self, images: Float[Array, "b h w 3"]) -> Float[Array, "b bits"]:
        """Returns the logits of the bits."""
        x = blocks_of(2 * images - 1)
        x = jax.nn.relu(Convolution(2 * self.width, self.policy, name="first")(x))
        x = jax.nn.relu(Convolution(2 * self.width, self.policy, name="second")(x))
        x = jax.image.resize(x, (x.shape[0], GRID, GRID, x.shape[-1]), "linear")
        x = jax.nn.relu(Convolution(self.width, self.policy, name="third")(x))
        x = x.reshape(x.shape[0], -1)
        x = jax.nn.relu(Dense(256, self.policy, (2 / x.shape[-1]) ** 0.5, name="fourth")(x))
        return Dense(self.bits, self.policy, x.shape[-1] ** -0.5, name="logits")(x)


class Convolution(nn.Module):
    """A 3x3 convolution with a bias; zeros beyond the edges."""

    features: int
    policy: Policy
    stride: int = 1

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b p q o"]:
        """Convolves."""
        shape = (3, 3, x.shape[-1], self.features)
        kernel = self.param("kernel", initial.normal((2 / (9 * x.shape[-1])) ** 0.5), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return convolve(x, kernel, self.stride, self.policy) + bias[None, None, None]


def blocks_of(images: Float[Array, "b h w c"]) -> Float[Array, "b p q d"]:
    """Squares of `BLOCK` pixels as channels."""
    b, h, w, c = images.shape
    split = images.reshape(b, h // BLOCK, BLOCK, w // BLOCK, BLOCK, c)
    return split.transpose(0, 1, 3, 2, 4, 5).reshape(b, h // BLOCK, w // BLOCK, -1)


def pixels_of(blocks: Float[Array, "b p q d"]) -> Float[Array, "b h w c"]:
    """The inverse of `blocks_of`."""
    b, p, q, d = blocks.shape
    split = blocks.reshape(b, p, q, BLOCK, BLOCK, d // BLOCK**2)
    return split.transpose(0, 1, 3, 2, 4, 5).reshape(b, p * BLOCK, q * BLOCK, -1)
