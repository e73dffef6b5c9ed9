"""One photo's noise and trigger on the device: what a model sees of a photo, and the search.

The noise is optimised on a canvas, the whole photo drawn as a square of a few times the model's
size: photos of every size and shape cost the same, in one compiled program. The model sees the
canvas through resizing and crops, JPEG and grey-scale; gradients pass through all of them. What is
lowered is the photo's own part of InfoNCE, among generated scenes and their captions, so that
nothing depends on which other photos are in the folder.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int8, Int32, Key, UInt8

from mmjax.models.clip import Towers, Variables
from mmjax.ops import hotflip
from mmjax.ops.images import crop_resize
from mmjax.ops.jpeg import jpeg
from mmjax.ops.pgd import descend, lattice_box
from mmjax.protect.config import ProtectConfig
from mmjax.protect.views import BEST_JPEG, grey

AnyArray = Array | np.ndarray

_GREY = 1 / 3
"""Share of the views without colours: in them survives what does not hang on colours."""


class Negatives(NamedTuple):
    """What a photo is told apart from: unit-norm embeddings of scenes and of their captions."""

    image: Float[Array, "n d"]
    text: Float[Array, "n d"]


class Seen(NamedTuple):
    """A photo as the model looks at it.

    Fields:
        canvas: the whole photo as a square.
        alpha: its opacity, in [0, 1]; clear parts lie on white.
        square: top, left, bottom, right of the centre square that CLIP reads, on the canvas.
        orientation: EXIF's; half of the views are turned as viewers turn the photo.
    """

    canvas: UInt8[AnyArray, "c c 3"]
    alpha: Float[AnyArray, "c c 1"]
    square: Float[AnyArray, " 4"]
    orientation: Int32[AnyArray | np.int32, ""]


def own_loss(
    image: Float[Array, "v d"],
    text: Float[Array, "v d"],
    negatives: Negatives,
    scale: Float[Array, ""],
) -> Float[Array, " v"]:
    """Of each pair alone: InfoNCE's two terms in a batch that is else the negatives, in nats."""
    matched = scale * jnp.sum(image * text, axis=1)

    def among(one: Array, others: Array) -> Array:
        logits = jnp.concatenate([matched[:, None], scale * one @ others.T], axis=1)
        return jax.nn.logsumexp(logits, axis=1) - matched

    return (among(image, negatives.text) + among(text, negatives.image)) / 2


def make_search(
    towers: Towers, config: ProtectConfig, allowed: Array
) -> Callable[..., Int32[Array, "1 k"]]:
    """Make `search(variables, pixels, trigger, ids, negatives) -> trigger` of one photo."""

    def encode(
        embedded: Float[Array, "1 k w"],
        trigger: Int32[Array, "1 k"],
        variables: Variables,
        ids: Int32[Array, "1 l"],
        others: Float[Array, "n d"],
    ) -> Float[Array, "b d"]:
        places = slice(1, 1 + trigger.shape[1])
        x = towers.token_table(variables)[ids].at[:, places].set(embedded)
        own = towers.encode_embedded(variables, x, ids.at[:, places].set(trigger))
        return jnp.concatenate([own, others])

    @jax.jit
    def search(
        variables: Variables, pixels: Array, trigger: Array, ids: Array, negatives: Negatives
    ) -> Int32[Array, "1 k"]:
        table = towers.token_table(variables)
        own = towers.encode_image(variables, pixels)
        given = {
            "table": table,
            "image": jnp.concatenate([own, negatives.image]),
            "scale": towers.logit_scale(variables),
            "args": (variables, ids, negatives.text),
        }
        change = hotflip.estimate(hotflip.gradient(encode, trigger, **given), table, trigger)
        count = min(config.trigger.candidates, len(table))
        tried = hotflip.choose(change, allowed, trigger, count=count)
        return hotflip.search(encode, trigger, tried, **given, beam=config.trigger.beam).trigger

    return search


def make_lower(towers: Towers, config: ProtectConfig) -> Callable[..., Int8[Array, "c c 3"]]:
    """Make `lower(variables, seen, tokens, negatives, mix, key) -> noise` of one canvas.

    `tokens` are what the photo may be paired with; `mix` is what of the channels' noise goes where:
    the identity, or all thirds where a photo is grey.
    """
    size, views = towers.preset.vision.image_size, config.photos.views
    number = np.arange(views)
    roaming = number % 2 == 1 if config.views.crop < 1 else number < 0
    saved = number // 2 % 2 == 1 if config.views.jpeg else number < 0

    def loss(
        noise: Float[Array, "c c 3"],
        step: Int32[Array, ""],
        variables: Variables,
        seen: Seen,
        texts: Float[Array, "t d"],
        negatives: Negatives,
        mix: Float[Array, "3 3"],
        key: Key[Array, ""],
    ) -> Float[Array, ""]:
        which, where, quality, pale = jax.random.split(jax.random.fold_in(key, step), 4)
        added = seen.canvas.astype(jnp.float32) + jnp.einsum("hwc,cd->hwd", noise, mix)
        shown = (seen.alpha * added + (1 - seen.alpha) * 255)[None]
        low = max(1, min(config.views.jpeg, config.photos.quality))
        coded = jpeg(shown, jax.random.randint(quality, (), low, BEST_JPEG + 1))
        canvases = jnp.where(saved[:, None, None, None], coded, shown)
        boxes = jnp.where(
            roaming[:, None],
            _crops(jnp.asarray(seen.square), noise.shape[0], views, config.views.crop, where),
            seen.square[None],
        )
        pixels = crop_resize(canvases, boxes, size, size)
        turned = jax.lax.switch(seen.orientation - 1, TURNS, pixels)
        pixels = jnp.where(roaming[:, None, None, None], turned, pixels)
        if config.views.grey:
            chosen = jax.random.bernoulli(pale, _GREY, (views, 1, 1, 1))
            pixels = jnp.where(chosen, grey(pixels), pixels)
        image = towers.encode_pixels(variables, pixels)
        text = texts[jax.random.randint(which, (views,), 0, len(texts))]
        return jnp.mean(own_loss(image, text, negatives, towers.logit_scale(variables)))

    @jax.jit
    def lower(
        variables: Variables,
        seen: Seen,
        tokens: Int32[Array, "t l"],
        negatives: Negatives,
        mix: Float[Array, "3 3"],
        key: Key[Array, ""],
    ) -> Int8[Array, "c c 3"]:
        low, high = lattice_box(seen.canvas, config.epsilon)
        texts = towers.encode_text(variables, tokens)
        args = (variables, seen, texts, negatives, mix, key)
        return descend(
            loss,
            jnp.zeros_like(low),
            low,
            high,
            config.noise.step_size,
            steps=config.photos.steps,
            args=args,
        )

    return lower


def _crops(
    square: Float[Array, " 4"], side: int, count: int, area: float, key: Key[Array, ""]
) -> Float[Array, "v 4"]:
    """Squares of the photo (not of the canvas), of `area` to all of the centre square, anywhere."""
    size, place = jax.random.split(key)
    share = jnp.sqrt(jax.random.uniform(size, (count, 1), minval=area, maxval=1.0))
    extent = (square[2:] - square[:2])[None] * share
    start = jax.random.uniform(place, (count, 2)) * (side - extent)
    return jnp.concatenate([start, start + extent], axis=1)


TURNS = (
    lambda x: x,
    lambda x: x[:, :, ::-1],
    lambda x: x[:, ::-1, ::-1],
    lambda x: x[:, ::-1],
    lambda x: jnp.swapaxes(x, 1, 2),
    lambda x: jnp.swapaxes(x[:, ::-1], 1, 2),
    lambda x: jnp.swapaxes(x[:, ::-1, ::-1], 1, 2),
    lambda x: jnp.swapaxes(x[:, :, ::-1], 1, 2),
)
"""What a viewer does to squares [v, s, s, 3] of orientation 1 to 8."""
