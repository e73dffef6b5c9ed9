"""The clean CLIP that optimised attacks look through."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int32, UInt8

from mmjax.data.tokenizer import Tokenizer
from mmjax.learn.pretrained import load_pretrained
from mmjax.models.clip import Towers, Variables, build, freeze

_BATCH = 32


class Surrogate(NamedTuple):
    """A frozen CLIP, its tokenizer, and the fingerprint of its weights."""

    towers: Towers
    variables: Variables
    tokenizer: Tokenizer
    fingerprint: str


def load_surrogate(weights: str, tokenizer: str = "") -> Surrogate:
    """Load a surrogate.

    Args:
        weights: as `load_weights` takes it.
        tokenizer: a folder or file; empty = the one beside the weights.

    Raises:
        WeightsError: the weights cannot be loaded.
        TokenizerError: there is no tokenizer, or it does not fit the model.
    """
    loaded, made = load_pretrained(weights, tokenizer)
    towers, variables = freeze(build(loaded.preset), loaded.variables)
    return Surrogate(towers, variables, made, loaded.fingerprint)


def embed(
    towers: Towers, variables: Variables, images: Float[Array, "b h w 3"]
) -> Float[Array, "b d"]:
    """Unit-norm embeddings of pixels in [0, 1] of any size; differentiable, not jitted.

    Images of another size than the model's are resized (cubic, antialiased) on the way.
    """
    size = towers.preset.vision.image_size
    if images.shape[1:3] != (size, size):
        shape = (images.shape[0], size, size, 3)
        images = jnp.clip(jax.image.resize(images, shape, "cubic"), 0, 1)
    return towers.encode_pixels(variables, 255 * images)


def embed_images(
    surrogate: Surrogate, images: UInt8[np.ndarray, "n h w 3"]
) -> Float[np.ndarray, "n d"]:
    """Unit-norm embeddings of stored images, a batch at a time."""
    encode = _jitted(surrogate.towers, "image")
    return _in_batches(lambda part: encode(surrogate.variables, part), images)


def embed_captions(surrogate: Surrogate, captions: Sequence[str]) -> Float[np.ndarray, "n d"]:
    """Unit-norm embeddings of captions, a batch at a time."""
    encode = _jitted(surrogate.towers, "text")
    tokens = surrogate.tokenizer.encode(captions).ids
    return _in_batches(lambda part: encode(surrogate.variables, part), tokens)


@functools.lru_cache(maxsize=4)
def _jitted(towers: Towers, side: str):
    def image(variables: Variables, images: UInt8[Array, "b h w 3"]) -> Float[Array, "b d"]:
        return embed(towers, variables, images.astype(jnp.float32) / 255)

    def text(variables: Variables, tokens: Int32[Array, "b l"]) -> Float[Array, "b d"]:
        return towers.encode_text(variables, tokens)

    return jax.jit(image if side == "image" else text)


def _in_batches(encode, rows: np.ndarray) -> np.ndarray:
    """`encode` of all rows; the last batch is padded, so that one shape is compiled."""
    parts = []
    for start in range(0, len(rows), _BATCH):
        part = rows[start : start + _BATCH]
        padded = np.pad(part, [(0, _BATCH - len(part))] + [(0, 0)] * (rows.ndim - 1))
        parts.append(np.asarray(encode(padded))[: len(part)])
    return np.concatenate(parts)


def last_weights(surrogate: Surrogate) -> Float[np.ndarray, "w d"]:
    """The matrix that makes the image embedding of the tower's last features."""
    visual = surrogate.variables["params"]["visual"]
    vit = surrogate.towers.preset.vision.kind == "vit"
    kernel = visual["projection"] if vit else visual["pool"]["out"]["kernel"]
    return np.asarray(kernel, np.float32)
