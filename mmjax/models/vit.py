"""CLIP's Vision Transformer (open_clip:src/open_clip/transformer.py VisionTransformer)."""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from mmjax.models import initial
from mmjax.models.layers import F32, Dense, LayerNorm, Transformer, product
from mmjax.models.policy import Policy
from mmjax.models.presets import Activation, VisionPreset


def patches(pixels: Float[Array, "b h w c"], size: int) -> Float[Array, "b n p"]:
    """Cuts images into squares, row by row; a patch is flattened as [row, column, channel]."""
    batch, height, width, channels = pixels.shape
    grid = pixels.reshape(batch, height // size, size, width // size, size, channels)
    return grid.transpose(0, 1, 3, 2, 4, 5).reshape(batch, -1, size * size * channels)


class VisionTransformer(nn.Module):
    """Patches, a class token, learned positions, pre-norm blocks; pooled at the class token."""

    preset: VisionPreset
    embed_dim: int
    activation: Activation
    policy: Policy

    @nn.compact
    def __call__(self, pixels: Float[Array, "b h w 3"], train: bool) -> Float[Array, "b d"]:
        """Returns embeddings, not yet unit-norm, of normalised pixels."""
        del train  # a ViT has no batch statistics
        width = self.preset.width
        scale = width**-0.5
        x = patches(pixels, self.preset.patch_size)
        # torch's default for a convolution is uniform in +-1/sqrt(fan in): this standard deviation
        x = Dense(width, self.policy, (3 * x.shape[-1]) ** -0.5, use_bias=False, name="patch")(x)
        start = self.param("class_embedding", initial.normal(scale), (width,))
        start = jnp.broadcast_to(start.astype(F32)[None, None], (x.shape[0], 1, width))
        position = self.param("position", initial.normal(scale), (self.preset.grid**2 + 1, width))
        x = jnp.concatenate([start, x], axis=1) + position[None]
        x = LayerNorm(name="norm_before")(x)
        x = Transformer(
            self._layers(),
            width // self.preset.head_width,
            self.preset.mlp_ratio,
            self.activation,
            self.policy,
            name="blocks",
        )(x)
        x = LayerNorm(name="norm_after")(x[:, 0])
        projection = self.param("projection", initial.normal(scale), (width, self.embed_dim))
        return product("bw,wd->bd", x, projection, self.policy.compute)

    def _layers(self) -> int:
        layers = self.preset.layers
        return layers if isinstance(layers, int) else sum(layers)
