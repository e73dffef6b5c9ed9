"""One round's maths: triggers by HotFlip, noise by signed steps on the lattice of bytes.

    min over noise d and trigger t of InfoNCE(f(x + d), g(t + S(caption)))

(MEM, equation 5; S shuffles the captions of a batch, each under the trigger of the image that it
comes to; a pair whose trigger is dropped keeps its own caption, as in EM.) The surrogate's weights
stay as they are meanwhile. Its own training is `learn`'s.
Cost for a batch of b: a search encodes captions (candidates + 1) · k times and no image; a step of
noise is one forward pass of both towers and the image tower's backward pass.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int8, Int32, Key, UInt8

from mmjax.core.keys import stream
from mmjax.models.clip import Towers, Variables
from mmjax.ops import hotflip
from mmjax.ops.contrastive import info_nce
from mmjax.ops.pgd import add_noise, descend, lattice_box
from mmjax.protect.config import ProtectConfig
from mmjax.protect.filling import fill_in
from mmjax.protect.views import draw_view
from mmjax.protect.wording import WordModel

AnyArray = Array | np.ndarray


class OnDevice(NamedTuple):
    """A batch of pairs of different images.

    Fields:
        images: pixels without noise.
        ids: captions with free places for a trigger after the start token.
        plain: captions without such places.
        noise_of: which of the noises each pair has; None where it is the one of its own row.
        trigger_of: which of the triggers each pair has.
    """

    images: UInt8[AnyArray, "b s s 3"]
    ids: Int32[AnyArray, "b l"]
    plain: Int32[AnyArray, "b l"]
    noise_of: Int32[AnyArray, " b"] | None
    trigger_of: Int32[AnyArray, " b"]


class Kernels(NamedTuple):
    """What a round does to a batch; compiled once for each length of captions.

    search(variables, batch, noise, triggers) -> triggers.
    descend(variables, batch, noise, triggers, key) -> noise, and the loss that is left, in nats.
    """

    search: Callable[[Variables, OnDevice, Array, Array], Int32[Array, "t k"]]
    descend: Callable[
        [Variables, OnDevice, Array, Array, Key[Array, ""]], tuple[Int8[Array, "c s s 3"], Array]
    ]


def make_kernels(
    towers: Towers,
    config: ProtectConfig,
    allowed: Bool[Array, " v"] | None = None,
    words: WordModel | None = None,
) -> Kernels:
    """Make the kernels.

    Args:
        towers: of the surrogate; frozen ones are faster.
        config: what noise and triggers are.
        allowed: tokens that triggers may have; None where none is searched.
        words: which of them fit where, of natural triggers; None where all do everywhere.
    """

    def encode(
        embedded: Float[Array, "t k w"],
        triggers: Int32[Array, "t k"],
        variables: Variables,
        ids: Int32[Array, "b l"],
        trigger_of: Int32[Array, " b"],
    ) -> Float[Array, "b d"]:
        places = slice(1, 1 + triggers.shape[1])
        x = towers.token_table(variables)[ids].at[:, places].set(embedded[trigger_of])
        return towers.encode_embedded(variables, x, ids.at[:, places].set(triggers[trigger_of]))

    @jax.jit
    def search(
        variables: Variables, batch: OnDevice, noise: Array, triggers: Int32[Array, "t k"]
    ) -> Int32[Array, "t k"]:
        seen = add_noise(batch.images, _of_rows(noise, batch.noise_of))
        image = towers.encode_image(variables, seen)
        given = {
            "table": towers.token_table(variables),
            "image": image,
            "scale": towers.logit_scale(variables),
            "args": (variables, batch.ids, batch.trigger_of),
        }
        slope = hotflip.gradient(encode, triggers, **given)
        change = hotflip.estimate(slope, given["table"], triggers)
        count = min(config.trigger.candidates, change.shape[-1])
        if words is not None:
            return fill_in(encode, triggers, change, words, config.trigger, given)
        tried = hotflip.choose(change, jnp.asarray(allowed), triggers, count=count)
        found = hotflip.search(
            encode,
            triggers,
            tried,
            **given,
            beam=config.trigger.beam,
            selection=config.trigger.selection,
        )
        return found.trigger

    def loss(
        noise: Float[Array, "c s s 3"],
        step: Int32[Array, ""],
        variables: Variables,
        batch: OnDevice,
        triggers: Int32[Array, "t k"],
        key: Key[Array, ""],
    ) -> Float[Array, ""]:
        key = jax.random.fold_in(key, step)
        rows = len(batch.images)
        order = jnp.arange(rows)
        if config.noise.shuffle:
            order = jax.random.permutation(stream(key, "shuffle"), rows)
        own = triggers[batch.trigger_of]
        tokens = batch.ids[order].at[:, 1 : 1 + own.shape[1]].set(own)
        if config.trigger.dropout and own.shape[1]:
            chance = jax.random.uniform(stream(key, "dropped"), (rows, 1))
            # without its trigger a pair is its own: a stranger's caption has nothing to learn by
            tokens = jnp.where(chance < config.trigger.dropout, batch.plain, tokens)
        pixels = jnp.asarray(batch.images, jnp.float32) + _of_rows(noise, batch.noise_of)
        if batch.noise_of is not None:
            pixels = jnp.clip(pixels, 0, 255)
        seen = draw_view(pixels, config.views, key=stream(key, "view"))
        image = towers.encode_pixels(variables, seen)
        text = towers.encode_text(variables, tokens)
        return info_nce(image, text, towers.logit_scale(variables))

    @jax.jit
    def lower(
        variables: Variables,
        batch: OnDevice,
        noise: Int8[Array, "c s s 3"],
        triggers: Int32[Array, "t k"],
        key: Key[Array, ""],
    ) -> tuple[Int8[Array, "c s s 3"], Float[Array, ""]]:
        if batch.noise_of is None:
            low, high = lattice_box(batch.images, config.epsilon)
        else:  # one noise on many images: what leaves the range is cut when it is added
            high = jnp.full_like(noise, config.epsilon)
            low = -high
        size = (
            config.noise.step_size if config.noise.goal == "minimise" else -config.noise.step_size
        )
        args = (variables, batch, triggers, key)
        noise = descend(loss, noise, low, high, size, steps=config.noise.steps, args=args)
        left = loss(noise.astype(jnp.float32), jnp.int32(config.noise.steps), *args)
        return noise, left

    return Kernels(search, lower)


def _of_rows(noise: Array, noise_of: AnyArray | None) -> Array:
    return noise if noise_of is None else noise[noise_of]
