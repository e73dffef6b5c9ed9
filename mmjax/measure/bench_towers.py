"""Towers: encoding images and captions, noise by PGD, trigger search."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mmjax.core import keys
from mmjax.measure.bench import Part, jitted
from mmjax.measure.bench_config import BenchConfig
from mmjax.measure.flops import count
from mmjax.models.clip import Towers, build, freeze
from mmjax.models.presets import preset
from mmjax.ops import hotflip as search
from mmjax.ops.contrastive import info_nce
from mmjax.ops.pgd import descend, lattice_box

PRESETS = {"tiny": ("demo",), "small": ("demo", "RN50"), "full": ("RN50", "ViT-B-32")}
BATCH = {"tiny": 4, "small": 16, "full": 64}


def _frozen(name: str, compute: Any) -> tuple[Towers, Any]:
    towers = build(preset(name))
    return freeze(towers, towers.init(jax.random.key(0)), compute)


def _images(n: int, size: int) -> np.ndarray:
    return keys.host(0, "bench").integers(0, 256, (n, size, size, 3), dtype=np.uint8)


def _tokens(towers: Towers, n: int, length: int) -> np.ndarray:
    vocabulary = towers.preset.text.vocab_size
    made = keys.host(0, "bench").integers(1, vocabulary - 2, (n, length)).astype(np.int32)
    made[:, 0], made[:, -1] = vocabulary - 2, vocabulary - 1
    return made


def encode(config: BenchConfig, work: Path) -> Iterator[Part]:
    """Images of the frozen towers in both types."""
    n = BATCH[config.size]
    for name in PRESETS[config.size]:
        for compute in ("float32", "bfloat16"):
            towers, variables = _frozen(name, compute)
            images = _images(n, towers.preset.vision.image_size)
            flops = count(jax.make_jaxpr(towers.encode_image)(variables, images))
            run = jitted(towers.encode_image, variables, images)
            yield Part(f"{name} images, {compute}", run, n, f"{name} image", flops=flops)


def text(config: BenchConfig, work: Path) -> Iterator[Part]:
    """Captions in the buckets that real ones fall into, beside the full context."""
    n, name = 4 * BATCH[config.size], PRESETS[config.size][-1]
    towers, variables = _frozen(name, "bfloat16")
    context = towers.preset.text.context_length
    for length in sorted({min(length, context) for length in (16, 32, context)}):
        tokens = _tokens(towers, n, length)
        flops = count(jax.make_jaxpr(towers.encode_text)(variables, tokens))
        run = jitted(towers.encode_text, variables, tokens)
        part = f"{name} captions, {length} tokens, bfloat16"
        yield Part(part, run, n, "caption", flops=flops, peer=length == context)


def pgd(config: BenchConfig, work: Path) -> Iterator[Part]:
    """Eight signed steps on the lattice against a batch's captions."""
    n, name = BATCH[config.size], PRESETS[config.size][-1]
    for compute in ("float32", "bfloat16"):
        towers, variables = _frozen(name, compute)
        images = jnp.asarray(_images(n, towers.preset.vision.image_size))
        low, high = lattice_box(images, 8)
        wanted = jnp.asarray(_unit_rows(n, towers.preset.embed_dim))

        def loss(noise: Any, step: Any, variables: Any, images: Any, wanted: Any, towers=towers):
            image = towers.encode_pixels(variables, images.astype(jnp.float32) + noise)
            return info_nce(image, wanted, jnp.float32(20))

        def run(loss=loss, low=low, high=high, given=(variables, images, wanted)) -> None:
            start = jnp.zeros_like(low)
            jax.block_until_ready(descend(loss, start, low, high, 1, steps=8, args=given))

        yield Part(f"{name} noise, {compute}", run, 8 * n, "image step")


def hotflip(config: BenchConfig, work: Path) -> Iterator[Part]:
    """The best of some candidates for three slots, beside the same with the images encoded too."""
    n, name, candidates = BATCH[config.size], PRESETS[config.size][0], 8
    towers, variables = _frozen(name, "float32")
    table = towers.token_table(variables)
    tokens = jnp.asarray(_tokens(towers, n, min(24, towers.preset.text.context_length)))
    images = jnp.asarray(_images(n, towers.preset.vision.image_size))
    image = towers.encode_image(variables, images)
    drawn = keys.host(0, "bench", "hotflip")
    trigger = jnp.asarray(drawn.integers(1, 400, (n, 3)), jnp.int32)
    tried = jnp.asarray(drawn.integers(1, 400, (n, 3, candidates)), jnp.int32)
    scale = jnp.float32(20)

    def captions(
        embedded: jax.Array, trigger: jax.Array, variables: Any, tokens: jax.Array
    ) -> jax.Array:
        words = jnp.take(table, tokens, axis=0)
        return towers.encode_embedded(variables, words.at[:, 1:4].set(embedded), tokens)

    def ours() -> None:
        given = (variables, tokens)
        jax.block_until_ready(
            search.search(captions, trigger, tried, table, image, scale, args=given)
        )

    def one(trigger: jax.Array, variables: Any, tokens: jax.Array, images: jax.Array) -> jax.Array:
        text = captions(jnp.take(table, trigger, axis=0), trigger, variables, tokens)
        return info_nce(towers.encode_image(variables, images), text, scale)

    compiled = jax.jit(one)

    def reference() -> None:
        best = trigger
        for slot in range(3):
            sets = [best, *(best.at[:, slot].set(tried[:, slot, c]) for c in range(candidates))]
            losses = [float(compiled(each, variables, tokens, images)) for each in sets]
            best = sets[int(np.argmin(losses))]

    tried_in_all = n * 3 * (candidates + 1)
    yield Part(f"{name} trigger search", ours, tried_in_all, "candidate")
    yield Part(
        f"{name}, images encoded for each candidate",
        reference,
        tried_in_all,
        "candidate",
        peer=True,
    )


def _unit_rows(n: int, d: int) -> np.ndarray:
    rows = keys.host(0, "bench").normal(size=(n, d)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)
