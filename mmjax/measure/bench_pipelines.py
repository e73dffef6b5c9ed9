"""What reads, writes and ties together: loader, checkpoint, a scan from end to end."""

import io
import itertools
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from mmjax.core.checkpoint import open_checkpoints
from mmjax.core.mesh import make_mesh
from mmjax.data.images import decode, have_simplejpeg
from mmjax.data.loader import load_shard
from mmjax.data.records import Row
from mmjax.data.scenes import make_scenes, write_scenes
from mmjax.data.shards import RowView
from mmjax.data.sources import open_source
from mmjax.measure.bench import Part
from mmjax.measure.bench_config import BenchConfig
from mmjax.scan.config import EncodeConfig, ScanConfig
from mmjax.scan.encode import encode_shard, make_encoder
from mmjax.scan.prepare import prepare_scan

IMAGES = {"tiny": 8, "small": 256, "full": 1024}
LIMIT = 2**26


def loader(config: BenchConfig, work: Path) -> Iterator[Part]:
    """Decoding and resizing of JPEG files, by library and number of threads."""
    n = IMAGES[config.size]
    cores = len(os.sched_getaffinity(0))
    for side in (256, 500):
        files = list(jpegs(n, side))
        rows = [Row(str(i), "a caption", data) for i, data in enumerate(files)]
        view = RowView(n, rows.__getitem__, LIMIT)

        def run(library: Literal["pillow", "simplejpeg"], workers: int, view=view) -> None:
            load = load_shard(view, image_size=224, batch_size=64, workers=workers, library=library)
            for batch in load.batches:
                assert batch.mask.any()

        libraries: list[Literal["pillow", "simplejpeg"]] = ["pillow"]
        if have_simplejpeg():
            libraries.append("simplejpeg")
        best = libraries[-1]

        def bare(library: Literal["pillow", "simplejpeg"] = best, files=files) -> None:
            for data in files:
                decode(data, 224, library=library)

        name = f"JPEG {side} px to 224, {best}, bare loop"
        yield Part(name, bare, n, f"{side} px image", peer=True)
        for library, workers in itertools.product(libraries, sorted({1, cores})):
            name = f"JPEG {side} px to 224, {library}, threads: {workers}"
            yield Part(name, lambda a=library, b=workers, r=run: r(a, b), n, f"{side} px image")


def jpegs(n: int, side: int) -> Iterator[bytes]:
    """Files of square pictures, `side` pixels wide, of about the size that photos have."""
    for scene in make_scenes(n, 0, 64):
        # a scene is flat; the noise gives the files the size of photos'
        image = Image.fromarray(scene.image).resize((side, side), Image.Resampling.BICUBIC)
        grain = Image.effect_noise((side, side), 24).convert("RGB")
        out = io.BytesIO()
        Image.blend(image, grain, 0.3).save(out, "JPEG", quality=85)
        yield out.getvalue()


def checkpoint(config: BenchConfig, work: Path) -> Iterator[Part]:
    """Saving and restoring a state."""
    size = {"tiny": 2**16, "small": 2**24, "full": 2**28}[config.size]
    state = {"weights": jnp.ones(size // 4, jnp.float32)}
    numbers = itertools.count()

    def save() -> None:
        with open_checkpoints(work / "saved", keep=1) as checkpoints:
            checkpoints.save(next(numbers), state, {})

    def restore() -> None:
        with open_checkpoints(work / "saved", keep=1) as checkpoints:
            jax.block_until_ready(checkpoints.resume(state, {}))

    yield Part("save", save, size / 1e6, "MB", traffic=float(size))
    yield Part("restore", restore, size / 1e6, "MB", traffic=float(size))


def scan(config: BenchConfig, work: Path) -> Iterator[Part]:
    """Encoding of shards with the demo model, beside its encode step alone: what the loader costs.

    The whole scan, with its score stage and its report, is the third part.
    """
    from mmjax.scan.pipeline import run_scan

    n = {"tiny": 40, "small": 1_000, "full": 5_000}[config.size]
    write_scenes(work / "shards", n, 0, size=64, shard_size=n)
    write_scenes(work / "reference", 200, 1, size=64, shard_size=200)
    options = ScanConfig(
        inputs=(str(work / "shards"),),
        reference=(str(work / "reference"),),
        weights="demo",
        encode=EncodeConfig(batch_size=64),
    )
    given, mesh, numbers = prepare_scan(options), make_mesh(), itertools.count()
    weights, tokenizer = given.model.weights, given.model.tokenizer
    source = open_source(work / "shards")
    assert weights is not None
    assert tokenizer is not None
    encoder = make_encoder(weights, tokenizer, options.encode, mesh=mesh)
    shard = source.shards[0]
    images = jnp.asarray(np.zeros((64, 64, 64, 3), np.uint8))

    def step() -> None:
        for _ in range(-(-n // 64)):
            encoder.embed_images(images).block_until_ready()

    def whole() -> None:
        out = work / f"run{next(numbers)}"
        run_scan(options, out)
        shutil.rmtree(out)

    yield Part("the image step alone", step, n, "pair", peer=True)
    yield Part(
        "shards to embeddings", lambda: encode_shard(encoder, source.open_shard(shard)), n, "pair"
    )
    yield Part("scan, with reference, scores and report", whole, n, "pair")
