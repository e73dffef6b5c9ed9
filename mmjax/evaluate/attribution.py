"""What a CLIP model looks at when it matches a picture with a caption, and how pairs lie.

`heat_maps` (Grad-CAM) and `word_attributions` (Integrated Gradients) explain the cosine of a pair,
in inference mode; `project` (t-SNE) shows both modalities in the plane.
"""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int32, UInt8
from sklearn.manifold import TSNE

from mmjax.core.errors import ConfigError
from mmjax.models.clip import Towers
from mmjax.models.feature_maps import encode_features
from mmjax.ops.attribution import grad_cam, integrated_gradients

Variables = Mapping[str, Any]


def heat_maps(
    towers: Towers,
    variables: Variables,
    images: UInt8[np.ndarray, "b s s 3"],
    tokens: Int32[np.ndarray, "b l"],
) -> Float32[np.ndarray, "b h w"]:
    """Grad-CAM of every pair's cosine: where the picture speaks for its caption, in [0, 1]."""
    return np.asarray(_heat(towers, variables, images, tokens))


@functools.partial(jax.jit, static_argnames=("towers",))
def _heat(towers: Towers, variables: Variables, images: Array, tokens: Array) -> Array:
    text = towers.encode_text(variables, tokens)
    pixels = images.astype(jnp.float32)

    def cosines(change: Float[Array, "b h w c"]) -> tuple[Array, Array]:
        seen = encode_features(towers, variables, pixels, change)
        return jnp.sum(seen.embedding * text), seen.features

    shape = jax.eval_shape(lambda: encode_features(towers, variables, pixels).features)
    gradient, features = jax.grad(cosines, has_aux=True)(jnp.zeros(shape.shape))
    return grad_cam(features, gradient)


class WordAttributions(NamedTuple):
    """What each token adds to the cosine of its pair.

    Fields:
        values: a token's part; 0 for start, end and what follows.
        cosine: of the pair.
        empty: of the picture with no words at all.
    """

    values: Float32[np.ndarray, "b l"]
    cosine: Float32[np.ndarray, " b"]
    empty: Float32[np.ndarray, " b"]

    @property
    def gap(self) -> float:
        """How far sums of values are from what they should be (completeness), at worst."""
        return float(np.max(np.abs(self.values.sum(axis=1) - (self.cosine - self.empty))))


def word_attributions(
    towers: Towers,
    variables: Variables,
    images: UInt8[np.ndarray, "b s s 3"],
    tokens: Int32[np.ndarray, "b l"],
    *,
    steps: int = 64,
) -> WordAttributions:
    """Integrated Gradients of every pair's cosine with respect to the embeddings of its tokens.

    The baseline has zeros in the place of words; start, end and positions stay.

    Args:
        towers: trainable or frozen.
        variables: theirs.
        images: a picture a caption.
        tokens: start, words, end (the largest id), then anything.
        steps: of the integral; see `WordAttributions.gap`.
    """
    return WordAttributions(*map(np.asarray, _words(towers, variables, images, tokens, steps)))


@functools.partial(jax.jit, static_argnames=("towers", "steps"))
def _words(
    towers: Towers, variables: Variables, images: Array, tokens: Array, steps: int
) -> tuple[Array, Array, Array]:
    image = towers.encode_image(variables, images)
    embedded = towers.token_table(variables)[tokens]
    column, end = jnp.arange(tokens.shape[1])[None], jnp.argmax(tokens, axis=1)[:, None]
    is_word = (column > 0) & (column < end)
    baseline = jnp.where(is_word[..., None], 0, embedded)

    def cosines(x: Float[Array, "b l w"]) -> Float[Array, " b"]:
        return jnp.sum(towers.encode_embedded(variables, x, tokens) * image, axis=1)

    values = integrated_gradients(cosines, embedded, baseline, steps=steps)
    return jnp.sum(values, axis=-1), cosines(embedded), cosines(baseline)


def project(
    embeddings: Float32[np.ndarray, "n d"], *, seed: int = 42, perplexity: float = 30.0
) -> Float32[np.ndarray, "n 2"]:
    """t-SNE of rows of both modalities; the same rows and seed give the same picture.

    Args:
        embeddings: unit-norm images and captions, one after the other.
        seed: of the descent.
        perplexity: below n.

    Raises:
        ConfigError: there are too few rows for the perplexity.

    Source: van der Maaten and Hinton 2008; the reference's settings (facts/mem.md 5).
    """
    if perplexity >= len(embeddings):
        raise ConfigError(
            f"t-SNE with a perplexity of {perplexity:g} wants more rows than that, got "
            f"{len(embeddings)}"
        )
    made = TSNE(n_components=2, perplexity=perplexity, random_state=seed, init="pca")
    return made.fit_transform(embeddings).astype(np.float32)
