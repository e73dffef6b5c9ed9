"""CLIP's ModifiedResNet (openai/CLIP:clip/model.py): deep stem, anti-aliased, attention pool."""

import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from mmjax.models import initial
from mmjax.models.convolution import average_pool, convolve
from mmjax.models.layers import F32, Dense, along_last, attend
from mmjax.models.policy import Policy
from mmjax.models.presets import VisionPreset

EPSILON = 1e-5
_MOMENTUM = 0.9  # flax's; torch calls the same 0.1


class ConvNorm(nn.Module):
    """A convolution without bias and its BatchNorm; `folded`: one convolution with a bias."""

    features: int
    size: int
    policy: Policy
    folded: bool
    stride: int = 1
    zero_scale: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b p q o"]:
        """Applies both; under `train` with the batch's statistics, in float32."""
        shape = (self.size, self.size, x.shape[-1], self.features)
        kernel = self.param("kernel", initial.uniform_fan_in(), shape)
        x = convolve(x, kernel, self.stride, self.policy)
        if self.folded:
            bias = self.param("bias", nn.initializers.zeros, (self.features,))
            return x.astype(F32) + along_last(bias, x)
        scale = nn.initializers.zeros if self.zero_scale else nn.initializers.ones
        return nn.BatchNorm(
            use_running_average=not train,
            momentum=_MOMENTUM,
            epsilon=EPSILON,
            dtype=F32,
            scale_init=scale,
            name="norm",
        )(x)


def fold_norm(
    kernel: Float[Array | np.ndarray, "k k c o"],
    norm: Mapping[str, Float[Array | np.ndarray, " o"]],
    stats: Mapping[str, Float[Array | np.ndarray, " o"]],
) -> dict[str, Float[Array, "..."]]:
    """Returns the kernel and the bias that equal a convolution followed by its BatchNorm."""
    scale = jnp.asarray(norm["scale"], F32) * jax.lax.rsqrt(stats["var"] + EPSILON)
    kernel = jnp.asarray(kernel, F32)
    return {
        "kernel": kernel * along_last(scale, kernel),
        "bias": jnp.asarray(norm["bias"] - stats["mean"] * scale),
    }


class Bottleneck(nn.Module):
    """1x1, 3x3, (pool), 1x1, added to the input, which a pool and a 1x1 bring to the same shape."""

    width: int
    stride: int
    policy: Policy
    folded: bool

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b p q o"]:
        """Applies the block."""
        dtype = jnp.dtype(self.policy.compute)

        def layer(name: str, features: int, size: int, zero_scale: bool = False) -> ConvNorm:
            return ConvNorm(
                features, size, self.policy, self.folded, zero_scale=zero_scale, name=name
            )

        out = jax.nn.relu(layer("conv_1", self.width, 1)(x, train)).astype(dtype)
        out = jax.nn.relu(layer("conv_2", self.width, 3)(out, train)).astype(dtype)
        if self.stride > 1:
            out = average_pool(out, self.policy)
        out = layer("conv_3", 4 * self.width, 1, zero_scale=True)(out, train)
        if self.stride > 1 or x.shape[-1] != 4 * self.width:
            if self.stride > 1:
                x = average_pool(x, self.policy)
            x = layer("shortcut", 4 * self.width, 1)(x, train)
        return jax.nn.relu(out + x.astype(F32)).astype(dtype)


class AttentionPool(nn.Module):
    """Attention over the feature map with its mean as the only query."""

    heads: int
    features: int
    policy: Policy

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b d"]:
        """Pools the map to one vector."""
        batch, height, width, channels = x.shape
        x = x.astype(F32).reshape(batch, height * width, channels)
        x = jnp.concatenate([jnp.mean(x, axis=1, keepdims=True), x], axis=1)
        stddev = channels**-0.5
        position = self.param("position", initial.normal(stddev), (height * width + 1, channels))
        x = x + position[None]
        query = Dense(channels, self.policy, stddev, name="query")(x[:, :1])
        key = Dense(channels, self.policy, stddev, name="key")(x)
        value = Dense(channels, self.policy, stddev, name="value")(x)

        def split(array: Array) -> Array:
            return array.reshape(batch, -1, self.heads, channels // self.heads)

        mixed = attend(split(query), split(key), split(value), None, self.policy.compute)
        return Dense(self.features, self.policy, stddev, name="out")(mixed.reshape(batch, channels))


def _stage(
    net: "ModifiedResNet", x: Float[Array, "b h w c"], *, stage: int, blocks: int, train: bool
) -> Float[Array, "b p q o"]:
    """Applies the blocks of one stage of `net`."""
    for block in range(blocks):
        x = Bottleneck(
            net.preset.width * 2**stage,
            2 if stage > 0 and block == 0 else 1,
            net.policy,
            net.folded,
            name=f"stage_{stage + 1}_block_{block}",
        )(x, train)
    return x


class ModifiedResNet(nn.Module):
    """The image tower of RN50 and its family."""

    preset: VisionPreset
    embed_dim: int
    policy: Policy
    folded: bool = False

    @nn.compact
    def __call__(self, pixels: Float[Array, "b h w 3"], train: bool) -> Float[Array, "b d"]:
        """Returns embeddings, not yet unit-norm, of normalised pixels."""
        width = self.preset.width
        dtype = jnp.dtype(self.policy.compute)
        x = pixels
        for number, (features, stride) in enumerate(
            ((width // 2, 2), (width // 2, 1), (width, 1)), start=1
        ):
            layer = ConvNorm(
                features, 3, self.policy, self.folded, stride=stride, name=f"stem_{number}"
            )
            x = jax.nn.relu(layer(x, train)).astype(dtype)
        x = average_pool(x, self.policy).astype(dtype)
        for stage, blocks in enumerate(self._stages()):
            run = functools.partial(_stage, stage=stage, blocks=blocks, train=train)
            x = (nn.remat(run) if self.policy.remat else run)(self, x)
        heads = width * 32 // self.preset.head_width
        return AttentionPool(heads, self.embed_dim, self.policy, name="pool")(x)

    def _stages(self) -> tuple[int, ...]:
        layers = self.preset.layers
        return (layers,) if isinstance(layers, int) else layers
