"""CLIP's text tower: a causal Transformer pooled at the end-of-text token."""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int32

from mmjax.models import initial
from mmjax.models.layers import F32, LayerNorm, Transformer, product
from mmjax.models.policy import Policy
from mmjax.models.presets import Activation, TextPreset


class TextTransformer(nn.Module):
    """Token and position embeddings, causal pre-norm blocks, pooling, projection.

    Tokens after the end of text cannot reach the pooled one (causal attention), so ids may be cut
    to any length that still holds it: the result is the same (facts/performance.md 0.4).
    """

    preset: TextPreset
    embed_dim: int
    activation: Activation
    policy: Policy

    @nn.compact
    def __call__(
        self, tokens: Int32[Array, "b l"], embedded: Float[Array, "b l w"] | None = None
    ) -> Float[Array, "b d"]:
        """Returns embeddings, not yet unit-norm; pools where the token id is largest.

        `embedded` takes the place of the tokens' rows of the table, before positions are added.
        """
        preset = self.preset
        length = tokens.shape[1]
        table = self.param(
            "token_embedding", initial.normal(0.02), (preset.vocab_size, preset.width)
        )
        position = self.param(
            "position", initial.normal(0.01), (preset.context_length, preset.width)
        )
        x = table[tokens] if embedded is None else embedded
        x = x.astype(F32) + position[None, :length]
        causal = jnp.tril(jnp.ones((length, length), bool))
        x = Transformer(
            preset.layers,
            preset.heads,
            preset.mlp_ratio,
            self.activation,
            self.policy,
            name="blocks",
        )(x, causal)
        end = jnp.argmax(tokens, axis=-1)
        x = jnp.take_along_axis(x, end[:, None, None], axis=1)[:, 0]
        x = LayerNorm(name="norm_after")(x)
        projection = self.param(
            "projection", initial.normal(preset.width**-0.5), (preset.width, self.embed_dim)
        )
        return product("bw,wd->bd", x, projection, self.policy.compute)
