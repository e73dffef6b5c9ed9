"""The model that an owner's photos are protected against, and what it finds for each of them."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int8, Int32, UInt8
from PIL import Image

from mmjax.core import keys
from mmjax.data.images import fit_square
from mmjax.data.scenes import scene_arrays
from mmjax.data.tokenizer import Tokenizer, bucket_length
from mmjax.learn.pretrained import load_pretrained
from mmjax.models.clip import Towers, Variables, build, freeze
from mmjax.protect.canvas import Negatives, Seen, make_lower, make_search, own_loss
from mmjax.protect.config import ProtectConfig
from mmjax.protect.photos import Photo, room
from mmjax.protect.vocabulary import allowed_tokens, make_room, token_of_the

_SHUFFLED = 6
"""Captions of scenes that a photo's noise is computed with too, under the photo's trigger."""


class Guard(NamedTuple):
    """The model that photos are protected against."""

    config: ProtectConfig
    towers: Towers
    variables: Variables
    tokenizer: Tokenizer
    negatives: Negatives
    captions: tuple[str, ...]
    fingerprint: str
    search: Any
    lower: Any


def make_guard(config: ProtectConfig) -> Guard:
    """Load the model (`surrogate.model.weights`, or the bundled demo model) and its negatives.

    Raises:
        WeightsError: the weights cannot be loaded.
        TokenizerError: there is no tokenizer, or it does not fit.
    """
    model = config.surrogate.model
    weights, tokenizer = load_pretrained(model.weights or "demo", model.tokenizer)
    towers, variables = freeze(build(weights.preset), weights.variables)
    size = weights.preset.vision.image_size
    scenes = scene_arrays(config.photos.negatives, config.seed, size, captions=1)
    captions = tuple(each[0] for each in scenes.captions)
    negatives = Negatives(
        jax.jit(towers.encode_image)(variables, scenes.images),
        jax.jit(towers.encode_text)(variables, tokenizer.encode(captions).ids),
    )
    allowed = jnp.asarray(allowed_tokens(tokenizer, config.trigger.vocabulary))
    return Guard(
        config,
        towers,
        variables,
        tokenizer,
        negatives,
        captions,
        weights.fingerprint,
        make_search(towers, config, allowed),
        make_lower(towers, config),
    )


def find_trigger(
    guard: Guard, pixels: UInt8[np.ndarray, "s s 3"], caption: str, digest: str
) -> Int32[np.ndarray, " k"]:
    """The trigger that lowers the photo's loss most (`trigger.scope=pair`), or the folder's own.

    Args:
        guard: the model.
        pixels: the photo's centre square.
        caption: the photo's.
        digest: of the photo's bytes; it decides where the search begins.
    """
    config = guard.config
    tokens = np.flatnonzero(allowed_tokens(guard.tokenizer, config.trigger.vocabulary))
    own = config.trigger.scope == "pair"
    rng = keys.host(config.seed, "trigger", digest if own else "folder")
    trigger = rng.choice(tokens, config.trigger_length).astype(np.int32)
    if config.trigger.start == "the":
        trigger = np.full_like(trigger, token_of_the(guard.tokenizer))
    if not len(trigger) or not own or not config.trigger.rounds:
        return trigger
    slotted = make_room(guard.tokenizer, [caption], len(trigger))
    length = bucket_length(int(slotted.lengths[0]), guard.tokenizer.context_length)
    ids = slotted.ids[:, :length]
    found = guard.search(guard.variables, pixels[None], trigger[None], ids, guard.negatives)
    return np.asarray(found)[0]


def find_noise(
    guard: Guard, photo: Photo, caption: str, trigger: Int32[np.ndarray, " k"], digest: str
) -> Int8[np.ndarray, "h w 3"]:
    """The noise of a photo at its own size, within budget and range.

    Args:
        guard: the model.
        photo: what it is for.
        caption: the photo's.
        trigger: what stands in front of the caption.
        digest: of the photo's bytes; with the seed it decides all that is drawn.
    """
    texts = _texts(guard, caption, trigger, digest)
    seen = look(photo, guard)
    number = int.from_bytes(bytes.fromhex(digest)[:4], "big") >> 1
    key = jax.random.fold_in(jax.random.key(guard.config.seed), number)
    mix = np.full((3, 3), 1 / 3, np.float32) if photo.grey else np.eye(3, dtype=np.float32)
    made = guard.lower(guard.variables, seen, texts, guard.negatives, mix, key)
    return enlarge(np.asarray(made), photo, guard.config.epsilon)


def enlarge(
    noise: Int8[np.ndarray, "c c 3"], photo: Photo, epsilon: int
) -> Int8[np.ndarray, "h w 3"]:
    """A canvas's noise at the photo's size: cubic, rounded, kept within budget and range."""
    size = (photo.pixels.shape[1], photo.pixels.shape[0])
    planes = [
        np.asarray(Image.fromarray(plane).resize(size, Image.Resampling.BICUBIC))
        for plane in np.moveaxis(noise.astype(np.float32), 2, 0)
    ]
    low, high = room(photo, epsilon)
    return np.clip(np.rint(np.dstack(planes)), low, high).astype(np.int8)


def look(photo: Photo, guard: Guard) -> Seen:
    """A photo drawn on the canvas."""
    side = guard.towers.preset.vision.image_size * guard.config.photos.canvas
    height, width = photo.pixels.shape[:2]
    shrunk = Image.fromarray(photo.pixels).resize((side, side), Image.Resampling.BICUBIC)
    alpha = np.ones((side, side, 1), np.float32)
    if photo.alpha is not None:
        small = Image.fromarray(photo.alpha).resize((side, side), Image.Resampling.BICUBIC)
        alpha = np.asarray(small, np.float32)[..., None] / 255
    short = min(height, width)
    down, across = short / height, short / width
    square = np.array([1 - down, 1 - across, 1 + down, 1 + across], np.float32) * side / 2
    return Seen(np.asarray(shrunk), alpha, square, np.int32(photo.orientation))


def square_of(rgb: Image.Image, guard: Guard) -> UInt8[np.ndarray, "s s 3"]:
    """What CLIP reads of a picture."""
    return fit_square(rgb, guard.towers.preset.vision.image_size)


def losses(
    guard: Guard, pixels: UInt8[np.ndarray, "n s s 3"], caption: str
) -> Float[np.ndarray, " n"]:
    """The photo's own part of InfoNCE, in nats, for n versions of it with one caption."""
    ids = guard.tokenizer.encode([caption]).ids
    return np.asarray(_measured(guard.towers)(guard.variables, pixels, ids, guard.negatives))


@functools.lru_cache(maxsize=2)
def _measured(towers: Towers) -> Any:
    def measure(variables: Variables, pixels: Array, ids: Array, negatives: Negatives) -> Array:
        image = towers.encode_image(variables, pixels)
        text = jnp.broadcast_to(towers.encode_text(variables, ids), image.shape)
        return own_loss(image, text, negatives, towers.logit_scale(variables))

    return jax.jit(measure)


def _texts(
    guard: Guard, caption: str, trigger: Int32[np.ndarray, " k"], digest: str
) -> Int32[np.ndarray, "t l"]:
    """Tokens of what the photo may be paired with: its caption, and others under its trigger."""
    rng = keys.host(guard.config.seed, "shuffled", digest)
    others = [guard.captions[i] for i in rng.choice(len(guard.captions), _SHUFFLED)]
    plain = guard.tokenizer.encode([caption]).ids
    if not len(trigger):
        return np.repeat(plain, 2 + _SHUFFLED, axis=0)
    ids = make_room(guard.tokenizer, [caption, *others], len(trigger)).ids
    ids[:, 1 : 1 + len(trigger)] = trigger
    return np.concatenate([plain, ids])
