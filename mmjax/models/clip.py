"""CLIP as a NamedTuple of plain functions over a dictionary of arrays."""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Int32, PRNGKeyArray, UInt8

from mmjax.core.errors import ConfigError
from mmjax.models.layers import F32, unit_norm
from mmjax.models.policy import Policy, inference_compute, resolve
from mmjax.models.presets import Preset
from mmjax.models.resnet import ModifiedResNet, fold_norm
from mmjax.models.text import TextTransformer
from mmjax.models.vit import VisionTransformer

Variables = Mapping[str, Any]
"""`{"params": tree, "batch_stats": tree}`; the statistics are `{}` but for a ResNet."""

Images = UInt8[Array | np.ndarray, "b h w 3"]
Pixels = Float[Array | np.ndarray, "b h w 3"]
Tokens = Int32[Array | np.ndarray, "b l"]
Embeddings = Float[Array, "b d"]

MAX_SCALE = 100.0
_WIDE_RESNET = 64


class Towers(NamedTuple):
    """What can be done with a CLIP model; none is jitted, so that callers decide the sharding.

    init(key) -> variables: random, float32. Frozen towers refuse it.
    encode_image(variables, images) -> unit-norm float32 embeddings of uint8 NHWC images.
    encode_pixels(variables, pixels) -> the same of float pixels in [0, 255]: differentiable.
    encode_text(variables, tokens) -> unit-norm float32 embeddings; any length that holds the end.
    encode_embedded(variables, embedded, tokens) -> the same with `embedded` [b, l, width] in the
      place of the tokens' embeddings: differentiable; the tokens say where captions end.
    token_table(variables) -> the embeddings of all tokens.
    logit_scale(variables) -> the inverse temperature itself, at most 100.
    train_forward(variables, images, tokens) -> (image embeddings, text embeddings, scale, new
      batch statistics): BatchNorm by the batch. Frozen towers refuse it.
    """

    init: Callable[[PRNGKeyArray], Variables]
    encode_image: Callable[[Variables, Images], Embeddings]
    encode_pixels: Callable[[Variables, Pixels], Embeddings]
    encode_text: Callable[[Variables, Tokens], Embeddings]
    encode_embedded: Callable[[Variables, Float[Array, "b l w"], Tokens], Embeddings]
    token_table: Callable[[Variables], Float[Array, "v w"]]
    logit_scale: Callable[[Variables], Float[Array, ""]]
    train_forward: Callable[
        [Variables, Images, Tokens], tuple[Embeddings, Embeddings, Float[Array, ""], Variables]
    ]
    preset: Preset
    policy: Policy


class Clip(nn.Module):
    """Both towers and the logarithm of the scale."""

    preset: Preset
    policy: Policy
    folded: bool = False

    def setup(self):
        """Makes the towers."""
        preset = self.preset
        if preset.vision.kind == "vit":
            self.visual = VisionTransformer(
                preset.vision, preset.embed_dim, preset.activation, self.policy
            )
        else:
            self.visual = ModifiedResNet(preset.vision, preset.embed_dim, self.policy, self.folded)
        self.text = TextTransformer(preset.text, preset.embed_dim, preset.activation, self.policy)
        initial = nn.initializers.constant(math.log(1 / 0.07))
        self.log_scale = self.param("log_scale", initial, ())

    def encode_pixels(self, pixels: Pixels, train: bool = False) -> Embeddings:
        """Normalises pixels of [0, 255] by the preset's mean and deviation and embeds them."""
        mean = jnp.asarray(self.preset.mean, F32) * 255
        std = jnp.asarray(self.preset.std, F32) * 255
        normal = (jnp.asarray(pixels, F32) - mean[None, None, None]) / std[None, None, None]
        return unit_norm(self.visual(normal, train))

    def encode_text(
        self, tokens: Tokens, embedded: Float[Array, "b l w"] | None = None
    ) -> Embeddings:
        """Embeds captions by their ids, or by embeddings in the place of the ids' own."""
        return unit_norm(self.text(jnp.asarray(tokens), embedded))

    def scale(self) -> Float[Array, ""]:
        """Returns the inverse temperature."""
        return jnp.minimum(jnp.exp(self.log_scale.astype(F32)), MAX_SCALE)

    def __call__(
        self, images: Images, tokens: Tokens, train: bool
    ) -> tuple[Embeddings, Embeddings, Float[Array, ""]]:
        """Embeds both sides of a batch of pairs."""
        return (
            self.encode_pixels(jnp.asarray(images, F32), train),
            self.encode_text(tokens),
            self.scale(),
        )


def build(preset: Preset, policy: Policy | None = None) -> Towers:
    """Returns the functions of a CLIP model of shape `preset` that computes as `policy` says."""
    return _towers(preset, resolve(policy or Policy()), folded=False)


@functools.lru_cache(maxsize=16)  # equal models share what JAX traces and compiles
def _towers(preset: Preset, policy: Policy, *, folded: bool) -> Towers:
    model = Clip(preset, policy, folded)

    def init(key: PRNGKeyArray) -> Variables:
        _check_trainable(model)
        size = preset.vision.image_size
        images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.uint8)
        tokens = jax.ShapeDtypeStruct((1, 2), jnp.int32)
        # the initialisers alone, one by one: XLA:CPU takes minutes to compile them as one program
        return {"batch_stats": {}, **model.lazy_init(key, images, tokens, train=False)}

    def encode_pixels(variables: Variables, pixels: Pixels) -> Embeddings:
        _check_images(preset, pixels.shape)
        return jnp.asarray(model.apply(variables, pixels, method="encode_pixels"))

    def encode_image(variables: Variables, images: Images) -> Embeddings:
        return encode_pixels(variables, jnp.asarray(images, F32))

    def encode_text(variables: Variables, tokens: Tokens) -> Embeddings:
        _check_tokens(preset, tokens.shape)
        return jnp.asarray(model.apply(variables, tokens, method="encode_text"))

    def encode_embedded(
        variables: Variables, embedded: Float[Array, "b l w"], tokens: Tokens
    ) -> Embeddings:
        _check_tokens(preset, tokens.shape)
        return jnp.asarray(model.apply(variables, tokens, embedded, method="encode_text"))

    def token_table(variables: Variables) -> Float[Array, "v w"]:
        return jnp.asarray(variables["params"]["text"]["token_embedding"])

    def logit_scale(variables: Variables) -> Float[Array, ""]:
        return jnp.asarray(model.apply(variables, method="scale"))

    def train_forward(
        variables: Variables, images: Images, tokens: Tokens
    ) -> tuple[Embeddings, Embeddings, Float[Array, ""], Variables]:
        _check_trainable(model)
        _check_images(preset, images.shape)
        _check_tokens(preset, tokens.shape)
        outputs, updates = model.apply(
            variables, images, tokens, train=True, mutable=["batch_stats"]
        )
        image_embeddings, text_embeddings, scale = cast(tuple[Array, Array, Array], outputs)
        return image_embeddings, text_embeddings, scale, dict(updates).get("batch_stats", {})

    return Towers(
        init,
        encode_image,
        encode_pixels,
        encode_text,
        encode_embedded,
        token_table,
        logit_scale,
        train_forward,
        preset,
        model.policy,
    )


def freeze(
    towers: Towers,
    variables: Variables,
    compute: Literal["auto", "float32", "bfloat16"] = "auto",
) -> tuple[Towers, Variables]:
    """Returns towers and variables for inference only, in the fastest formulation known here.

    BatchNorm is folded into the convolution before it, and the weights of products are stored in
    the arithmetic of `compute` (`auto`: `policy.inference_compute`, but float32 for a ResNet
    narrower than OpenAI's on a CPU, where that is the faster). The embeddings are the same
    up to rounding; gradients with respect to pixels are there, training is refused.
    """
    backend, vision = resolve(towers.policy).backend, towers.preset.vision
    if compute == "auto" and backend == "cpu" and vision.kind == "resnet":
        compute = "auto" if vision.width >= _WIDE_RESNET else "float32"
    policy = Policy(inference_compute(compute), backend)
    dtype = jnp.dtype(policy.compute)

    def fold(tree: Mapping[str, Any], stats: Mapping[str, Any]) -> dict[str, Any]:
        if "norm" in tree:
            tree = fold_norm(tree["kernel"], tree["norm"], stats["norm"])
        return {
            name: fold(leaf, stats.get(name, {}))
            if isinstance(leaf, Mapping)
            else jnp.asarray(leaf, dtype if name in ("kernel", "projection") else F32)
            for name, leaf in tree.items()
        }

    params = fold(variables["params"], variables["batch_stats"])
    frozen = _towers(towers.preset, policy, folded=True)
    return frozen, {"params": params, "batch_stats": {}}


def clamp_scale(params: Mapping[str, Any]) -> dict[str, Any]:
    """Keep the log of the inverse temperature in [0, ln 100], as CLIP does after every step.

    The forward pass bounds the scale too, but there a parameter beyond the bound has no gradient
    and would never come back.
    """
    bounded = jnp.clip(params["log_scale"], 0, jnp.log(MAX_SCALE))
    return {**params, "log_scale": bounded}


def _check_trainable(model: Clip) -> None:
    if model.folded:
        raise ConfigError(f"{model.preset.name} is frozen; train the towers that `build` returns")


def _check_images(preset: Preset, shape: tuple[int, ...]) -> None:
    size = preset.vision.image_size
    if shape[1:] != (size, size, 3):
        raise ValueError(
            f"{preset.name} reads images of shape [b, {size}, {size}, 3], got {list(shape)}"
        )


def _check_tokens(preset: Preset, shape: tuple[int, ...]) -> None:
    if shape[1] > preset.text.context_length:
        raise ValueError(
            f"{preset.name} reads at most {preset.text.context_length} tokens, got {shape[1]}"
        )
