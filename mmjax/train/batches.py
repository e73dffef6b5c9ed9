"""Image-caption pairs in memory, and the batch of every step as a pure function of its number."""

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32, UInt8

from mmjax.core import keys
from mmjax.core.errors import ConfigError, InputError
from mmjax.data.loader import load_shard
from mmjax.data.scenes import scene_arrays
from mmjax.data.sources import open_source
from mmjax.data.tokenizer import Tokenizer, bucket_length
from mmjax.train.config import DataConfig


class PairTable(NamedTuple):
    """Every image once, decoded, with all of its captions.

    Fields:
        images: pixels.
        captions: for each image at least one caption.
        skipped: rows of the source that could not be used, by status.
    """

    images: UInt8[np.ndarray, "n s s 3"]
    captions: tuple[tuple[str, ...], ...]
    skipped: dict[str, int]

    @property
    def owners(self) -> Int32[np.ndarray, " m"]:
        """For every caption, image by image, the number of its image."""
        return np.repeat(
            np.arange(len(self.captions), dtype=np.int32), [len(c) for c in self.captions]
        )


def read_pairs(location: str, image_size: int, config: DataConfig, *, split: str = "") -> PairTable:
    """Decode an image-caption set into memory, each image once however many captions it has.

    Raises:
        InputError: the set cannot be opened, or no row of it can be used.
    """
    source = open_source(location, input_format=config.input_format, split=split)
    slots: dict[str, int] = {}
    images: list[np.ndarray] = []
    captions: list[list[str]] = []
    skipped: dict[str, int] = {}
    for shard in source.shards:
        load = load_shard(
            source.open_shard(shard),
            image_size=image_size,
            batch_size=256,
            workers=config.workers,
            max_pixels=config.max_image_pixels,
            library="auto",
        )
        fresh = [batch.images[batch.mask] for batch in load.batches]
        decoded = np.concatenate(fresh) if fresh else np.zeros((0,), np.uint8)
        for record in load.records:
            if record.status != "ok":
                skipped[record.status] = skipped.get(record.status, 0) + 1
                continue
            slot = slots.setdefault(record.image_sha256, len(images))
            if slot == len(images):
                images.append(decoded[record.image_slot])
                captions.append([])
            captions[slot].append(record.caption)
    if not images:
        raise InputError(
            f"{location} has no usable image-caption pair ({skipped or 'it is empty'})"
        )
    return PairTable(np.stack(images), tuple(tuple(each) for each in captions), skipped)


def generate_pairs(count: int, image_size: int, captions: int, *, seed: int) -> PairTable:
    """Scenes with several captions each."""
    scenes = scene_arrays(count, seed, image_size, captions=captions)
    return PairTable(scenes.images, scenes.captions, {})


def training_pairs(config: DataConfig, image_size: int, *, seed: int) -> PairTable:
    """What `config` says to learn from."""
    if config.location == "scenes":
        return generate_pairs(config.scenes, image_size, config.scene_captions, seed=2 * seed)
    return read_pairs(config.location, image_size, config, split=config.split)


def heldout_pairs(config: DataConfig, image_size: int, *, seed: int) -> PairTable | None:
    """What `config` says to judge the model on; None when nothing is held out."""
    if config.location == "scenes" and not config.heldout:
        count = config.heldout_scenes
        return generate_pairs(count, image_size, 1, seed=2 * seed + 1) if count else None
    if not config.heldout and not config.heldout_split:
        return None
    location = config.heldout or config.location
    return read_pairs(location, image_size, config, split=config.heldout_split)


def fingerprint(table: PairTable) -> str:
    """The sha256, in hex, of all images and captions in their order."""
    content = hashlib.sha256(repr(table.images.shape).encode())
    content.update(np.ascontiguousarray(table.images).data)
    content.update(json.dumps(table.captions).encode())
    return content.hexdigest()


def make_batches(
    table: PairTable,
    tokenizer: Tokenizer,
    *,
    batch_size: int,
    captions_per_image: int,
    seed: int,
    part: tuple[int, int] = (0, 1),
) -> Callable[[int], dict[str, np.ndarray]]:
    """Make `batch_at(step)`: `images` uint8 [b, s, s, 3] and `tokens` int32 [b, k, l].

    An epoch is a random order of the images, cut into whole batches; what is left over (another
    remainder each epoch) waits for the next. The captions of an image take turns in a random order
    of its own, k of them an epoch. l is the bucket of the longest caption in the batch.

    Args:
        table: what is learned from.
        tokenizer: of the captions.
        batch_size: images of a batch, over all processes.
        captions_per_image: k.
        seed: of both orders.
        part: (i, n) gives the i-th n-th of every batch's rows: what process i of n feeds.

    Raises:
        ConfigError: fewer images than one batch.
    """
    count = len(table.images)
    if count < batch_size:
        raise ConfigError(
            f"a batch of {batch_size} images wants at least as many, got {count}; "
            "lower batch_size or give more data"
        )
    encoded = tokenizer.encode([text for each in table.captions for text in each])
    sizes = np.array([len(each) for each in table.captions])
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    turns = _turns(sizes, keys.host(seed, "captions"))
    steps_per_epoch = count // batch_size

    def batch_at(step: int) -> dict[str, np.ndarray]:
        epoch, within = divmod(step, steps_per_epoch)
        order = keys.host(seed, "order", epoch).permutation(count)
        chosen = order[within * batch_size : (within + 1) * batch_size]
        turn = epoch * captions_per_image + np.arange(captions_per_image)
        rows = turns[starts[chosen][:, None] + turn[None] % sizes[chosen][:, None]]
        length = bucket_length(int(encoded.lengths[rows].max()), tokenizer.context_length)
        fed = slice(part[0] * batch_size // part[1], (part[0] + 1) * batch_size // part[1])
        tokens = encoded.ids[rows[fed]][..., :length]
        return {"images": table.images[chosen[fed]], "tokens": tokens}

    return batch_at


def _turns(sizes: Sequence[int] | np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Caption numbers, image by image, each image's own in random order."""
    start, parts = 0, []
    for size in sizes:
        parts.append(start + rng.permutation(size))
        start += size
    return np.concatenate(parts)
