"""Which noise and which trigger each pair has, and the batches of a pass over them."""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int8, Int32, UInt8

from mmjax.core import keys
from mmjax.core.errors import ConfigError
from mmjax.data.pairs import PairRow, PairTable
from mmjax.data.tokenizer import Tokenizer, bucket_length
from mmjax.protect.config import ProtectConfig
from mmjax.protect.vocabulary import Slotted, make_room


class Pairs(NamedTuple):
    """What is protected: m pairs of n images, N noises and T triggers.

    Fields:
        images: pixels.
        captions: tokens, with places for a trigger.
        owner: each pair's image.
        noise: each pair's noise, below `noises`.
        trigger: each pair's trigger, below `triggers`.
        turn: the number of each pair's caption among those of its image.
    """

    images: UInt8[np.ndarray, "n s s 3"]
    captions: Slotted
    owner: Int32[np.ndarray, " m"]
    noise: Int32[np.ndarray, " m"]
    trigger: Int32[np.ndarray, " m"]
    turn: Int32[np.ndarray, " m"]

    @property
    def noises(self) -> int:
        """How many noises there are."""
        return int(self.noise.max()) + 1

    @property
    def turns(self) -> list[Int32[np.ndarray, " p"]]:
        """The first captions of all images, the second ones, and so on, as numbers of pairs."""
        last = int(self.turn.max())
        return [np.flatnonzero(self.turn == turn).astype(np.int32) for turn in range(last + 1)]

    @property
    def triggers(self) -> int:
        """How many triggers there are."""
        return int(self.trigger.max()) + 1


def make_pairs(
    table: PairTable, rows: Sequence[PairRow], tokenizer: Tokenizer, config: ProtectConfig
) -> Pairs:
    """Number noises and triggers by what has one of its own.

    Raises:
        ConfigError: fewer images than a batch.
        TokenizerError: no room for trigger and caption.
    """
    owner = table.owners
    if len(table.images) < config.batch_size and config.rounds:
        raise ConfigError(
            f"a batch of {config.batch_size} pairs wants at least as many images, got "
            f"{len(table.images)}; lower config.batch_size or give more data"
        )
    count = len(owner)
    folders = [""] * count
    for row in rows:
        if row.caption >= 0:
            folders[row.caption] = row.key.rpartition("/")[0]
    user = np.unique(folders, return_inverse=True)[1].astype(np.int32)
    own = np.arange(count, dtype=np.int32)
    sizes = [len(each) for each in table.captions]
    captions = [text for each in table.captions for text in each]
    return Pairs(
        table.images[:],
        make_room(tokenizer, captions, config.trigger_length),
        owner,
        {"image": owner, "pair": own, "user": user}[config.noise.scope],
        {"pair": own, "user": user, "universal": np.zeros_like(own)}[config.trigger.scope],
        np.concatenate([np.arange(size, dtype=np.int32) for size in sizes]),
    )


def first_noise(pairs: Pairs, config: ProtectConfig, number: int) -> Int8[np.ndarray, "s s 3"]:
    """A noise before the first round: zeros, or uniform in the budget; not yet in range."""
    shape = pairs.images.shape[1:]
    if config.noise.start == "zeros" or not config.noise.steps:
        return np.zeros(shape, np.int8)
    drawn = keys.host(config.seed, "noise", number).integers(
        -config.epsilon, config.epsilon, shape, np.int8, endpoint=True
    )
    if config.noise.scope == "user":
        return drawn
    first = int(np.argmax(pairs.noise == number))
    pixels = pairs.images[pairs.owner[first]].astype(np.int16)
    return (np.clip(pixels + drawn, 0, 255) - pixels).astype(np.int8)


class Pass(NamedTuple):
    """Pairs of different images that a round goes over, and what it does to them."""

    rows: Int32[np.ndarray, " p"]
    searches: bool
    descends: bool


def passes_of(pairs: Pairs, config: ProtectConfig, number: int) -> list[Pass]:
    """What round `number` does: triggers are searched for every pair that has one of its own.

    Noise that captions share is changed with one of an image's captions, another each round.
    """
    searches = bool(config.trigger_length) and number < config.trigger.rounds
    descends = config.noise.steps > 0
    if config.noise.scope == "pair":
        return [Pass(rows, searches, descends) for rows in pairs.turns if searches or descends]
    sizes = np.bincount(pairs.owner)
    chosen = np.flatnonzero(pairs.turn == number % sizes[pairs.owner]).astype(np.int32)
    if searches and config.trigger.scope == "pair":
        both = [Pass(rows, True, False) for rows in pairs.turns]
        return [*both, Pass(chosen, False, True)] if descends else both
    return [Pass(chosen, searches, descends)] if searches or descends else []


class Batch(NamedTuple):
    """Pairs of different images; only the first `changing` are changed, the others fill up."""

    rows: Int32[np.ndarray, " b"]
    changing: int


def cut(
    pairs: Pairs, rows: Int32[np.ndarray, " p"], size: int, rng: np.random.Generator
) -> Iterator[Batch]:
    """Batches over pairs of different images, in random order; each pair is in exactly one.

    No batch holds an image twice: captions of one image would be each other's wrong negatives. The
    last batch is filled up with pairs of other images.
    """
    everyone = rng.permutation(np.flatnonzero(pairs.turn == 0)).astype(np.int32)
    order = rng.permutation(rows).astype(np.int32)
    for start in range(0, len(order), size):
        part = order[start : start + size]
        others = everyone[~np.isin(pairs.owner[everyone], pairs.owner[part])]
        yield Batch(np.concatenate([part, others[: size - len(part)]]), len(part))


def text_length(pairs: Pairs, rows: Int32[np.ndarray, " b"]) -> int:
    """The bucket of the longest of some captions."""
    captions = pairs.captions
    return bucket_length(int(captions.lengths[rows].max()), captions.ids.shape[1])


def training_batches(
    pairs: Pairs,
    noise: Int8[np.ndarray, "c s s 3"],
    triggers: Int32[np.ndarray, "t k"],
    config: ProtectConfig,
) -> Callable[[int], dict[str, np.ndarray]]:
    """Make `batch_at(step)` of the surrogate: `images` uint8 and `tokens`, protected so far.

    A share of `trigger.dropout` of the captions goes without trigger.
    """
    size = config.batch_size
    turns = pairs.turns
    steps_an_epoch = sum(-(-len(turn) // size) for turn in turns)
    protected = config.surrogate.on == "protected"

    @functools.lru_cache(maxsize=2)
    def epoch_of(number: int) -> list[Batch]:
        rng = keys.host(config.seed, "training", number)
        batches = [batch for turn in turns for batch in cut(pairs, turn, size, rng)]
        order = rng.permutation(len(batches))
        return [batches[i] for i in order]

    def batch_at(step: int) -> dict[str, np.ndarray]:
        epoch, within = divmod(step, steps_an_epoch)
        rows = epoch_of(epoch)[within].rows
        length = text_length(pairs, rows)
        images, plain = pairs.images[pairs.owner[rows]], pairs.captions.plain[rows, :length]
        if not protected:
            return {"images": images, "tokens": plain}
        dropped = keys.host(config.seed, "dropped", step).random(size) < config.trigger.dropout
        return {
            "images": add(images, noise[pairs.noise[rows]]),
            "tokens": tokens(pairs, rows, triggers, dropped)[:, :length],
        }

    return batch_at


def add(images: UInt8[np.ndarray, "b s s 3"], noise: Int8[np.ndarray, "b s s 3"]) -> np.ndarray:
    """`ops.pgd.add_noise` on the host."""
    return np.clip(images.astype(np.int16) + noise, 0, 255).astype(np.uint8)


def tokens(
    pairs: Pairs,
    rows: Int32[np.ndarray, " b"],
    triggers: Int32[np.ndarray, "t k"],
    dropped: Bool[np.ndarray, " b"],
) -> Int32[np.ndarray, "b context"]:
    """Captions with their triggers, or without where dropped."""
    ids = pairs.captions.ids[rows].copy()
    ids[:, 1 : 1 + triggers.shape[1]] = triggers[pairs.trigger[rows]]
    return np.where(dropped[:, None], pairs.captions.plain[rows], ids)
