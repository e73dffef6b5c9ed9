"""JPEG shards to embeddings: what reading, decoding and tokenizing cost beside the encode steps."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Array

from mmjax.core.mesh import make_mesh
from mmjax.data.pack import copy_members
from mmjax.data.records import Row
from mmjax.data.scenes import make_scenes
from mmjax.data.shards import RowView, ShardView, SourceOptions
from mmjax.data.sources import open_source
from mmjax.data.tokenizer import train_bpe
from mmjax.measure.bench import Part
from mmjax.measure.bench_config import BenchConfig
from mmjax.measure.bench_inputs import BATCH, RESNET, model
from mmjax.measure.bench_pipelines import LIMIT, jpegs
from mmjax.models.presets import preset
from mmjax.models.weights import Weights
from mmjax.scan.config import EncodeConfig
from mmjax.scan.encode import Encoder, encode_views, make_encoder

BATCHES = 2
"""Full batches of photos in each of the shards."""
SHARDS, CAPTIONS = 2, 5
"""Every photo has five captions, as Flickr8k's have, and is decoded and embedded once."""

Call = tuple[Callable[[Any], Array], np.ndarray]


def photos(config: BenchConfig, work: Path) -> Iterator[Part]:
    """From shards on disk to embeddings, and the same steps on arrays that are there already."""
    size, name = BATCH[config.size], RESNET[config.size]
    shard = BATCHES * size * CAPTIONS
    n = SHARDS * shard
    view = _given(config.data, n) if config.data else _drawn(n)
    for i in range(SHARDS):
        copy_members(view, range(i * shard, (i + 1) * shard), work / f"{i:05}.tar")
    captions = (view[row].caption or "" for row in range(n))
    tokenizer = train_bpe(captions, 2_000, work / "tokenizer.json")
    encoder = make_encoder(
        Weights(preset(name), model(name)[1], None, "", name),
        tokenizer,
        EncodeConfig(batch_size=size),
        mesh=make_mesh(),
    )
    source = open_source(work)

    def embed(encoder: Encoder) -> list[np.ndarray]:
        views = (source.open_shard(shard) for shard in source.shards)
        return [encoded.image for encoded in encode_views(encoder, views)]

    calls: list[Call] = []
    embed(_recording(encoder, calls))

    def steps() -> Any:
        return jax.block_until_ready([function(given) for function, given in calls])

    yield Part(f"{name} encode steps alone", steps, n, "pair", peer=True)
    yield Part(f"{name} JPEG shards to embeddings", lambda: embed(encoder), n, "pair")


def _recording(encoder: Encoder, calls: list[Call]) -> Encoder:
    def record(function: Callable[[Any], Array]) -> Callable[[Any], Array]:
        def call(given: Any) -> Array:
            calls.append((function, np.asarray(given)))
            return function(given)

        return call

    return dataclasses.replace(
        encoder,
        embed_images=record(encoder.embed_images),
        embed_text=record(encoder.embed_text),
    )


def _given(location: str, n: int) -> ShardView:
    """Pairs of a captioned set that has five captions a photo."""
    source = open_source(location, options=SourceOptions(split="test", shard_size=n))
    return source.open_shard(source.shards[0])


def _drawn(n: int) -> ShardView:
    images = list(jpegs(n // CAPTIONS, 500))
    texts = [scene.captions[0] for scene in make_scenes(n, 0, 16)]
    return RowView(n, lambda i: Row(str(i), texts[i], images[i // CAPTIONS]), LIMIT)
