"""Towers: encoding images and captions, noise by PGD, trigger search."""

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32, Int32, UInt8

from mmjax.core import keys
from mmjax.data.tokenizer import bucket_length
from mmjax.measure import bench_inputs as given
from mmjax.measure.bench import Part, jitted
from mmjax.measure.bench_config import BenchConfig
from mmjax.measure.bench_flax import plain_vit
from mmjax.measure.bench_inputs import BATCH, RESNET, SCALE, VIT
from mmjax.measure.flops import count
from mmjax.models.clip import Towers, Variables, freeze
from mmjax.ops import hotflip as search
from mmjax.ops.contrastive import info_nce
from mmjax.ops.pgd import descend, lattice_box
from mmjax.scan.encode import PART, by_parts

Compute = Literal["float32", "bfloat16"]

COMPUTES: tuple[Compute, ...] = ("float32", "bfloat16")
CAPTIONS = {"tiny": 24, "small": 128, "full": 1024}
PAIRS = {"tiny": 20, "small": 32, "full": 256}
STEPS, EPSILON = 8, 8


def _frozen(name: str, compute: Compute) -> tuple[Towers, Variables]:
    return freeze(*given.model(name), compute)


def encode(config: BenchConfig, work: Path) -> Iterator[Part]:
    """Images as a scan embeds them in both types, beside a ViT as flax's own layers make it."""
    n = BATCH[config.size]
    for name, compute in itertools.product((RESNET[config.size], VIT[config.size]), COMPUTES):
        towers, variables = _frozen(name, compute)
        images, unit = given.images(n, towers.preset.vision.image_size), f"{name} image"
        flops = count(jax.make_jaxpr(towers.encode_image)(variables, images))
        run = jitted(by_parts(towers.encode_image, min(n, PART)), variables, images)
        yield Part(f"{name} images, {compute}", run, n, unit, flops)
        if towers.preset.vision.kind == "vit" and compute == "bfloat16":
            run = jitted(plain_vit(towers.preset), variables, images)
            yield Part(f"{name} images, plain flax, bfloat16", run, n, unit, flops, peer=True)


def text(config: BenchConfig, work: Path) -> Iterator[Part]:
    """Captions of real lengths in their buckets, all in one bucket, and in the full context."""
    n, name = 4 * BATCH[config.size], VIT[config.size]
    ids, lengths = real_captions(config)
    for compute in COMPUTES:
        run = _by_bucket(*_frozen(name, compute), ids, lengths)
        yield Part(f"{name} captions, real lengths, {compute}", run, len(ids), "caption")
    towers, variables = _frozen(name, "bfloat16")
    shape = towers.preset.text
    for length in sorted({min(length, shape.context_length) for length in (16, 32, 77)}):
        tokens = given.captions(shape, np.full(n, length), length)
        flops = count(jax.make_jaxpr(towers.encode_text)(variables, tokens))
        run = jitted(towers.encode_text, variables, tokens)
        part = f"{name} captions, {length} tokens, bfloat16"
        yield Part(part, run, n, "caption", flops=flops, peer=length == shape.context_length)


def real_captions(
    config: BenchConfig,
) -> tuple[Int32[np.ndarray, "n l"], Int32[np.ndarray, " n"]]:
    """Captions as long as Flickr8k's, in the full context, and their lengths."""
    shape = given.model(VIT[config.size])[0].preset.text
    lengths = given.real_lengths(CAPTIONS[config.size], shape.context_length)
    return given.captions(shape, lengths, shape.context_length), lengths.astype(np.int32)


def _by_bucket(
    towers: Towers,
    variables: Variables,
    ids: Int32[np.ndarray, "n l"],
    lengths: Int32[np.ndarray, " n"],
) -> Callable[[], Float32[np.ndarray, "n d"]]:
    """A run that embeds captions as a scan does on a CPU: by buckets, so many rows at a time."""
    compiled = jax.jit(towers.encode_text)
    buckets = np.array([bucket_length(int(each), ids.shape[1]) for each in lengths])
    batches = []
    for bucket in np.unique(buckets):
        rows = np.flatnonzero(buckets == bucket)
        for start in range(0, len(rows), PART):
            part = rows[start : start + PART]
            batches.append((part, ids[np.resize(part, PART), :bucket]))

    def run() -> Float32[np.ndarray, "n d"]:
        embedded = [compiled(variables, tokens) for _, tokens in batches]
        out = np.empty((len(ids), towers.preset.embed_dim), np.float32)
        for (part, _), rows in zip(batches, embedded, strict=True):
            out[part] = np.asarray(rows)[: len(part)]
        return out

    return run


def pairs(
    config: BenchConfig,
) -> tuple[UInt8[np.ndarray, "n s s 3"], Int32[np.ndarray, "n l"], Int32[np.ndarray, " n"]]:
    """Images, captions as long as Flickr8k's, and their lengths."""
    n, shape = PAIRS[config.size], given.model(VIT[config.size])[0].preset
    lengths = given.real_lengths(n, shape.text.context_length)
    ids = given.captions(shape.text, lengths, shape.text.context_length)
    return given.images(n, shape.vision.image_size), ids, lengths.astype(np.int32)


def pair(config: BenchConfig, work: Path) -> Iterator[Part]:
    """Both sides of pairs whose captions have real lengths."""
    name = VIT[config.size]
    images, ids, lengths = pairs(config)
    batches = np.split(images, range(PART, len(images), PART))
    for compute in COMPUTES:
        towers, variables = _frozen(name, compute)
        captions = _by_bucket(towers, variables, ids, lengths)
        encode = partial(jax.jit(towers.encode_image), variables)

        def run(encode=encode, captions=captions) -> Float32[np.ndarray, "2 n d"]:
            embedded = [encode(batch) for batch in batches]
            return np.stack([np.concatenate([np.asarray(each) for each in embedded]), captions()])

        yield Part(f"{name} pairs, real lengths, {compute}", run, len(images), "pair")


class Noise(NamedTuple):
    """What noise is found for: images and the captions' embeddings that they are drawn to."""

    name: str
    images: UInt8[np.ndarray, "n s s 3"]
    wanted: Float32[np.ndarray, "n d"]


def noise_case(config: BenchConfig) -> Noise:
    """The images and captions of the case `pgd`."""
    n, name = {"tiny": 4, "small": 4, "full": 16}[config.size], RESNET[config.size]
    shape = given.model(name)[0].preset
    images = given.images(n, shape.vision.image_size)
    return Noise(name, images, given.unit_rows(n, shape.embed_dim))


def pgd(config: BenchConfig, work: Path) -> Iterator[Part]:
    """Signed steps on the lattice against a batch's captions."""
    name, images, wanted = noise_case(config)
    low, high = lattice_box(jnp.asarray(images), EPSILON)
    placed = jnp.asarray(images), jnp.asarray(wanted)
    for compute in COMPUTES:
        towers, variables = _frozen(name, compute)

        def loss(noise: Any, step: Any, variables: Any, images: Any, wanted: Any, towers=towers):
            image = towers.encode_pixels(variables, images.astype(jnp.float32) + noise)
            return info_nce(image, wanted, jnp.float32(SCALE))

        def run(loss=loss, variables=variables) -> jax.Array:
            start, args = jnp.zeros_like(low), (variables, *placed)
            found = descend(loss, start, low, high, 1, steps=STEPS, args=args)
            return jax.block_until_ready(found)

        yield Part(f"{name} noise, {compute}", run, STEPS * len(images), "image step")


class Search(NamedTuple):
    """A search for triggers: captions with room for three tokens, and what is tried there."""

    name: str
    images: UInt8[np.ndarray, "n s s 3"]
    captions: Int32[np.ndarray, "n l"]
    length: int
    trigger: Int32[np.ndarray, "n 3"]
    tried: Int32[np.ndarray, "n 3 c"]

    @property
    def candidates(self) -> int:
        """Captions that are tried in all; in each slot the token that is there is one of them."""
        n, slots, count = self.tried.shape
        return n * slots * (count + 1)


def search_case(config: BenchConfig) -> Search:
    """Few pairs, but in the bucket that the longest caption of 128 needs."""
    n, count = {"tiny": (4, 8), "small": (2, 16), "full": (2, 64)}[config.size]
    name = RESNET[config.size]
    shape = given.model(name)[0].preset
    context = shape.text.context_length
    length = bucket_length(int(given.real_lengths(128, context - 3).max()) + 3, context)
    drawn = keys.host(0, "bench", "hotflip")
    return Search(
        name,
        given.images(n, shape.vision.image_size),
        given.captions(shape.text, given.real_lengths(n, context - 3) + 3, context),
        length,
        drawn.integers(1, 400, (n, 3)).astype(np.int32),
        drawn.integers(1, 400, (n, 3, count)).astype(np.int32),
    )


def hotflip(config: BenchConfig, work: Path) -> Iterator[Part]:
    """The best of some candidates for three slots; images are encoded once."""
    case = search_case(config)
    tokens, images = jnp.asarray(case.captions[:, : case.length]), jnp.asarray(case.images)
    trigger, tried, scale = jnp.asarray(case.trigger), jnp.asarray(case.tried), jnp.float32(SCALE)
    for compute in COMPUTES:
        towers, variables = _frozen(case.name, compute)
        table, encode_image = towers.token_table(variables), jax.jit(towers.encode_image)

        def captions(
            embedded: jax.Array, trigger: jax.Array, variables: Any, tokens: jax.Array,
            towers=towers, table=table,
        ) -> jax.Array:  # fmt: skip
            words = jnp.take(table, tokens, axis=0)
            return towers.encode_embedded(variables, words.at[:, 1:4].set(embedded), tokens)

        def run(
            captions=captions, table=table, encode_image=encode_image, variables=variables
        ) -> jax.Array:
            image, args = encode_image(variables, images), (variables, tokens)
            found = search.search(captions, trigger, tried, table, image, scale, args=args)
            return jax.block_until_ready(found.trigger)

        name = f"{case.name} trigger search, {compute}"
        yield Part(name, run, case.candidates, "candidate")
