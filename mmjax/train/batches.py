"""Image-caption pairs, and the batch of every step as a pure function of its number."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from mmjax.core import keys
from mmjax.core.errors import ConfigError
from mmjax.data.pairs import PairTable, read_table
from mmjax.data.scenes import scene_arrays
from mmjax.data.shards import Source
from mmjax.data.sources import open_source
from mmjax.data.tokenizer import Tokenizer, bucket_length
from mmjax.train.autoaugment import autoaugment
from mmjax.train.config import DataConfig, EpochOf
from mmjax.train.rewording import reword


class Place(NamedTuple):
    """Where pairs are read: a set, a split of it (empty = all), its columns (empty = the usual)."""

    location: str
    split: str = ""
    columns: str = ""

    def open(self, config: DataConfig) -> Source:
        """The set."""
        return open_source(
            self.location,
            input_format=config.input_format,
            split=self.split,
            columns=self.columns,
        )


def read_pairs(
    place: Place, image_size: int, config: DataConfig, *, memory: float = math.inf
) -> PairTable:
    """Decode an image-caption set, each image once however many captions it has.

    Args:
        place: the set.
        image_size: pixels of a side.
        config: how it is read.
        memory: bytes that decoded images may take (`data.pairs.read_table`).

    Raises:
        InputError: the set cannot be opened, or no row of it can be used.
    """
    table, _ = read_table(
        place.open(config),
        image_size,
        workers=config.workers,
        max_pixels=config.max_image_pixels,
        memory=memory,
    )
    return table


def generate_pairs(count: int, image_size: int, captions: int, *, seed: int) -> PairTable:
    """Scenes with several captions each."""
    scenes = scene_arrays(count, seed, image_size, captions=captions)
    return PairTable(scenes.images, scenes.captions, {})


def training_pairs(config: DataConfig, image_size: int, *, seed: int) -> PairTable:
    """What `config` says to learn from."""
    place = _learned(config)
    if place is None:
        return generate_pairs(config.scenes, image_size, config.scene_captions, seed=2 * seed)
    return read_pairs(place, image_size, config, memory=config.memory_gb * 2**30)


def heldout_pairs(config: DataConfig, image_size: int, *, seed: int) -> PairTable | None:
    """What `config` says to judge the model on; None when nothing is held out."""
    if place := _held_out(config):
        return read_pairs(place, image_size, config)
    if config.location == "scenes" and config.heldout_scenes:
        return generate_pairs(config.heldout_scenes, image_size, 1, seed=2 * seed + 1)
    return None


def check_data(config: DataConfig) -> None:
    """Raise InputError unless what is learned from, and what is held out, can be opened."""
    for place in (_learned(config), _held_out(config)):
        if place is not None:
            place.open(config)


def _learned(config: DataConfig) -> Place | None:
    if config.location == "scenes":
        return None
    return Place(config.location, config.split, config.columns)


def _held_out(config: DataConfig) -> Place | None:
    if config.heldout:
        return Place(config.heldout, config.heldout_split, config.heldout_columns)
    if config.location == "scenes" or not config.heldout_split:
        return None
    columns = config.heldout_columns or config.columns
    return Place(config.location, config.heldout_split, columns)


Views = Literal["none", "beside", "instead"]
"""What becomes of the augmentations of a batch (AutoAugment, rewordings)."""

Marks = Callable[[int], Mapping[str, np.ndarray]]
"""From the number of an epoch to arrays with an element a caption, whose rows a batch holds."""


BatchAt = Callable[..., dict[str, np.ndarray]]
"""`batch_at(step, *, views="none", marks=...)`, see `make_batches`."""


def make_batches(
    table: PairTable,
    tokenizer: Tokenizer,
    *,
    batch_size: int,
    captions_per_image: int,
    epoch_of: EpochOf = "images",
    seed: int,
    workers: int = 1,
    part: tuple[int, int] = (0, 1),
) -> BatchAt:
    """Make `batch_at(step)`: `images` uint8 [b, s, s, 3] and `tokens` int32 [b, k, l].

    An epoch is a random order of the images, cut into whole batches; what is left over (another
    remainder each epoch) waits for the next. The captions of an image take turns in a random order
    of its own, k of them an epoch; or the epoch is of pairs, and an image comes as often as it has
    captions. l is the bucket of the longest caption in the batch.

    `views` adds an augmentation of every image and a rewording of every caption: `beside` as
    `image_views` and `token_views`, of the same shapes; `instead` in the place of the pairs. They
    depend on seed, step and row alone. `marks` adds arrays [b, k] with the elements of the batch's
    captions.

    Args:
        table: what is learned from.
        tokenizer: of the captions.
        batch_size: images of a batch, over all processes.
        captions_per_image: k; 1 where an epoch is of pairs.
        epoch_of: what it shows once.
        seed: of both orders and of the views.
        workers: threads that augment images.
        part: (i, n) gives the i-th n-th of every batch's rows: what process i of n feeds.

    Raises:
        ConfigError: fewer of them than one batch.
    """
    steps_per_epoch = epoch_steps(table, batch_size, epoch_of)
    count, owners = _shown(table, epoch_of), table.owners
    captions = [text for each in table.captions for text in each]
    encoded = tokenizer.encode(captions)
    sizes = np.array([len(each) for each in table.captions])
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    turns = _turns(sizes, keys.host(seed, "captions"))
    fed = slice(part[0] * batch_size // part[1], (part[0] + 1) * batch_size // part[1])

    def batch_at(
        step: int, *, views: Views = "none", marks: Marks = lambda epoch: {}
    ) -> dict[str, np.ndarray]:
        epoch, within = divmod(step, steps_per_epoch)
        order = keys.host(seed, "order", epoch).permutation(count)
        chosen = order[within * batch_size : (within + 1) * batch_size]
        if epoch_of == "pairs":
            rows, chosen = chosen[:, None], owners[chosen]
        else:
            turn = epoch * captions_per_image + np.arange(captions_per_image)
            rows = turns[starts[chosen][:, None] + turn[None] % sizes[chosen][:, None]]
        images, ids = table.images[chosen[fed]], encoded.ids[rows[fed]]
        longest = int(encoded.lengths[rows].max())
        viewed = {}
        if views != "none":
            # all processes reword all rows, for they must agree on the longest
            reworded = tokenizer.encode(
                [
                    reword(captions[row], keys.host(seed, "rewording", step, place))
                    for place, row in enumerate(rows.reshape(-1))
                ]
            )
            rngs = [keys.host(seed, "view", step, place) for place in range(batch_size)[fed]]
            viewed["images"] = autoaugment(images, rngs, workers=workers)
            viewed["tokens"] = reworded.ids.reshape(*rows.shape, -1)[fed]
            longest = max(longest, int(reworded.lengths.max()))
        length = bucket_length(longest, tokenizer.context_length)
        batch = {"images": images, "tokens": ids[..., :length]}
        if views == "beside":
            batch["image_views"] = viewed["images"]
            batch["token_views"] = viewed["tokens"][..., :length]
        elif views == "instead":
            batch = {"images": viewed["images"], "tokens": viewed["tokens"][..., :length]}
        return batch | {name: array[rows[fed]] for name, array in marks(epoch).items()}

    return batch_at


def _shown(table: PairTable, epoch_of: EpochOf) -> int:
    return len(table.images) if epoch_of == "images" else len(table.owners)


def epoch_steps(table: PairTable, batch_size: int, epoch_of: EpochOf = "images") -> int:
    """Whole batches of an epoch of images, or of pairs.

    Raises:
        ConfigError: fewer of them than one batch.
    """
    count = _shown(table, epoch_of)
    if count < batch_size:
        raise ConfigError(
            f"a batch of {batch_size} {epoch_of} wants at least as many, got {count}; "
            "lower batch_size or give more data"
        )
    return count // batch_size


def _turns(sizes: Sequence[int] | np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Caption numbers, image by image, each image's own in random order."""
    start, parts = 0, []
    for size in sizes:
        parts.append(start + rng.permutation(size))
        start += size
    return np.concatenate(parts)
