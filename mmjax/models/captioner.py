"""A small causal captioner that reads a caption embedding and writes the caption.

After DeCap (dhg-wei/DeCap): one prefix vector made from CLIP's *text* embedding, a small decoder
trained from scratch. Frozen, it is what makes CFBD's language-modelling loss say something about
F(I): it only reads text embeddings, so F must produce one (facts/cfbd.md 4.3).
"""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int


class _Block(nn.Module):
    """Pre-norm causal self-attention and MLP."""

    heads: int

    @nn.compact
    def __call__(self, x: Float[Array, "b l w"]) -> Float[Array, "b l w"]:
        b, length, width = x.shape
        split = (b, length, self.heads, width // self.heads)
        qkv = nn.Dense(3 * width, name="qkv")(nn.LayerNorm(name="norm_attention")(x))
        query, key, value = (part.reshape(split) for part in jnp.split(qkv, 3, axis=-1))
        mixed = jax.nn.dot_product_attention(query, key, value, is_causal=True)
        x = x + nn.Dense(width, name="out")(mixed.reshape(b, length, width))
        hidden = nn.gelu(nn.Dense(4 * width, name="up")(nn.LayerNorm(name="norm_mlp")(x)))
        return x + nn.Dense(width, name="down")(hidden)


class Captioner(nn.Module):
    """Logits of every caption token given the embedding and the tokens before it.

    The output table is tied to the token embedding. `width` must be a multiple of `heads`.
    """

    vocabulary: int
    width: int = 512
    layers: int = 4
    heads: int = 8
    max_length: int = 40

    @nn.compact
    def __call__(
        self, embedding: Float[Array, "b d"], tokens: Int[Array, "b l"]
    ) -> Float[Array, "b l v"]:
        """Logits for tokens[:, i] from the embedding and tokens[:, :i]; l <= max_length."""
        table = self.param("tokens", nn.initializers.normal(0.02), (self.vocabulary, self.width))
        position = self.param(
            "position", nn.initializers.normal(0.01), (self.max_length, self.width)
        )
        prefix = nn.Dense(self.width, name="prefix")(embedding)
        x = jnp.concatenate([prefix[:, None], table[tokens[:, :-1]]], axis=1)
        x = x + position[None, : tokens.shape[1]]
        for layer in range(self.layers):
            x = _Block(self.heads, name=f"block_{layer}")(x)
        return nn.LayerNorm(name="norm")(x) @ table.T


def caption_loss(
    logits: Float[Array, "b l v"],
    tokens: Int[Array, "b l"],
    lengths: Int[Array, " b"],
    smoothing: float = 0.1,
) -> Float[Array, ""]:
    """Mean cross-entropy in nats over the tokens that count (BLIP, models/med.py: smoothing .1).

    Args:
        logits: of the captioner.
        tokens: targets.
        lengths: how many of each row's tokens count.
        smoothing: share of the target's mass that is spread over the vocabulary.
    """
    log_p = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
    hit = jnp.take_along_axis(log_p, tokens[..., None], axis=-1)[..., 0]
    loss = -(1 - smoothing) * hit - smoothing * jnp.mean(log_p, axis=-1)
    counts = jnp.arange(tokens.shape[1])[None, :] < lengths[:, None]
    return jnp.sum(jnp.where(counts, loss, 0.0)) / jnp.maximum(jnp.sum(counts), 1)
