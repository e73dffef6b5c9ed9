"""CLIP's image Transformer as a user of flax writes it: its own layers with `dtype=bfloat16`."""

from collections.abc import Callable

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Float32, UInt8

from mmjax.models.clip import Variables
from mmjax.models.presets import Preset
from mmjax.models.vit import patches

HALF = jnp.bfloat16


class _Attention(nn.Module):
    heads: int

    @nn.compact
    def __call__(self, x: Float[Array, "b l w"]) -> Float[Array, "b l w"]:
        batch, length, width = x.shape
        fused = nn.Dense(3 * width, dtype=HALF, name="qkv")(x)
        fused = fused.reshape(batch, length, 3, self.heads, width // self.heads)
        mixed = nn.dot_product_attention(*jnp.moveaxis(fused, 2, 0), dtype=HALF)
        return nn.Dense(width, dtype=HALF, name="out")(mixed.reshape(x.shape))


class _Block(nn.Module):
    heads: int

    @nn.compact
    def __call__(self, x: Float[Array, "b l w"]) -> Float[Array, "b l w"]:
        width = x.shape[-1]
        normal = nn.LayerNorm(epsilon=1e-5, dtype=HALF, name="norm_1")(x)
        x = x + _Attention(self.heads, name="attention")(normal)
        normal = nn.LayerNorm(epsilon=1e-5, dtype=HALF, name="norm_2")(x)
        hidden = nn.Dense(4 * width, dtype=HALF, name="expand")(normal)
        hidden = hidden * nn.sigmoid(1.702 * hidden)
        return x + nn.Dense(width, dtype=HALF, name="contract")(hidden)


class _Blocks(nn.Module):
    layers: int
    heads: int

    @nn.compact
    def __call__(self, x: Float[Array, "b l w"]) -> Float[Array, "b l w"]:
        for layer in range(self.layers):
            x = _Block(self.heads, name=f"block_{layer}")(x)
        return x


class _Vit(nn.Module):
    preset: Preset

    @nn.compact
    def __call__(self, pixels: Float[Array, "b h w 3"]) -> Float[Array, "b d"]:
        vision, features = self.preset.vision, self.preset.embed_dim
        layers = vision.layers if isinstance(vision.layers, int) else sum(vision.layers)
        width, init = vision.width, nn.initializers.normal(0.02)
        x = patches(pixels, vision.patch_size)
        x = nn.Dense(width, use_bias=False, dtype=HALF, name="patch")(x)
        start = self.param("class_embedding", init, (width,)).astype(HALF)
        start = jnp.broadcast_to(start[None, None], (x.shape[0], 1, width))
        position = self.param("position", init, (vision.grid**2 + 1, width)).astype(HALF)
        x = jnp.concatenate([start, x], axis=1) + position[None]
        x = nn.LayerNorm(epsilon=1e-5, dtype=HALF, name="norm_before")(x)
        x = _Blocks(layers, width // vision.head_width, name="blocks")(x)
        x = nn.LayerNorm(epsilon=1e-5, dtype=HALF, name="norm_after")(x[:, 0])
        return x @ self.param("projection", init, (width, features)).astype(HALF)


def plain_vit(
    preset: Preset,
) -> Callable[[Variables, UInt8[Array, "b h w 3"]], Float32[Array, "b d"]]:
    """A function of our variables of `preset` and of images: their unit-norm embeddings."""
    tower = _Vit(preset)
    mean, std = jnp.asarray(preset.mean), jnp.asarray(preset.std)

    def encode(variables: Variables, images: UInt8[Array, "b h w 3"]) -> Float32[Array, "b d"]:
        normal = (images.astype(jnp.float32) / 255 - mean[None, None, None]) / std[None, None, None]
        embedded = tower.apply({"params": variables["params"]["visual"]}, normal)
        embedded = jnp.asarray(embedded, jnp.float32)
        return embedded / jnp.linalg.norm(embedded, axis=-1, keepdims=True)

    return encode
