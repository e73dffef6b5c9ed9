"""The last spatial features of an image tower, and the embedding as a function of them."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from mmjax.core.errors import ConfigError
from mmjax.models.clip import Pixels, Towers
from mmjax.models.resnet import AttentionPool


class Features(NamedTuple):
    """An image's unit-norm embedding and the features that it is made of."""

    embedding: Float[Array, "b d"]
    features: Float[Array, "b p q c"]


def encode_features(
    towers: Towers,
    variables: Mapping[str, Any],
    pixels: Pixels,
    change: Float[Array, "b p q c"] | None = None,
) -> Features:
    """Embed images; `change` is added to the features on the way, so that they have a gradient.

    A ResNet's features are what its attention pool reads; a ViT's are the patches, normalised, that
    the last block's attention reads (the class token apart): later ones do not reach the embedding.

    Args:
        towers: trainable or frozen.
        variables: theirs.
        pixels: in [0, 255].
        change: of the features; None adds nothing.

    Raises:
        ConfigError: the towers compute again what they do not keep (`remat`).
    """
    if towers.policy.remat:
        raise ConfigError("features are not kept under remat; build the towers without it")
    vision = towers.preset.vision
    if vision.kind == "resnet":
        found, intercept = _before_pool(change)
    else:
        layers = vision.layers if isinstance(vision.layers, int) else sum(vision.layers)
        found, intercept = _after_norm(f"block_{layers - 1}", vision.grid, change)
    with nn.intercept_methods(intercept):
        embedding = towers.encode_pixels(variables, pixels)
    return Features(embedding, found[0])


Interceptor = Callable[[Callable[..., Any], tuple, dict, nn.module.InterceptorContext], Any]


def _before_pool(change: Array | None) -> tuple[list[Array], Interceptor]:
    found: list[Array] = []

    def intercept(call, args, kwargs, context):
        if not (isinstance(context.module, AttentionPool) and context.method_name == "__call__"):
            return call(*args, **kwargs)
        features = args[0].astype(jnp.float32)
        found.append(features)
        return call(features if change is None else features + change, *args[1:], **kwargs)

    return found, intercept


def _after_norm(block: str, grid: int, change: Array | None) -> tuple[list[Array], Interceptor]:
    found: list[Array] = []

    def intercept(call, args, kwargs, context):
        made = call(*args, **kwargs)
        path = ("visual", "blocks", block, "norm_1")
        if context.module.path != path or context.method_name != "__call__":
            return made
        patches = made[:, 1:]
        found.append(patches.reshape(len(made), grid, grid, -1))
        if change is None:
            return made
        return made.at[:, 1:].add(change.reshape(patches.shape))

    return found, intercept
