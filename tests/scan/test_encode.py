"""Encoding a shard: rows keep their order, equal images and captions are embedded once."""

import dataclasses
import io
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from mmjax.attacks.shards import encode_png
from mmjax.core.config import MeshConfig
from mmjax.core.errors import InputError
from mmjax.core.mesh import make_mesh
from mmjax.core.types import Pair
from mmjax.data.tokenizer import Tokenizer, train_bpe
from mmjax.models.clip import build
from mmjax.models.weights import Weights
from mmjax.scan.config import EncodeConfig
from mmjax.scan.encode import EncodedShard, Encoder, encode_shard, encode_views, make_encoder
from tests.e2e.conftest import TINY

SIZE, WORDS = 8, 16


class View(NamedTuple):
    """A shard in memory."""

    pairs: list[Pair]
    warnings: tuple[str, ...] = ("the last row is missing",)
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Pair:
        return self.pairs[index]


class Meter:
    def __init__(self) -> None:
        self.done = 0

    def update(self, n: int = 1) -> None:
        self.done += n

    def close(self) -> None:
        pass


def png(colour: tuple[int, int, int]) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (SIZE, SIZE), colour).save(file, "PNG")
    return file.getvalue()


def colour_embedding(colour: np.ndarray) -> np.ndarray:
    """What the fake image tower makes of one colour."""
    row = np.append(np.asarray(colour, np.float32) / 255, 1).astype(np.float32)
    return row / np.linalg.norm(row)


@jax.jit
def embed_images(images: jax.Array) -> jax.Array:
    mean = images.astype(jnp.float32).mean(axis=(1, 2)) / 255
    rows = jnp.concatenate([mean, jnp.ones((mean.shape[0], 1))], axis=1)
    rows = rows / jnp.linalg.norm(rows, axis=1, keepdims=True)
    black = mean.sum(axis=1) == 0  # a tower that fails on black
    return jnp.where(black[:, None], jnp.nan, rows)


@jax.jit
def embed_text(ids: jax.Array) -> jax.Array:
    weight = jnp.arange(1, ids.shape[1] + 1, dtype=jnp.float32)
    total = (ids * weight[None, :]).sum(axis=1) % 97
    rows = jnp.stack([jnp.cos(total), jnp.sin(total), jnp.zeros_like(total)], axis=1)
    return jnp.concatenate([rows, jnp.zeros((ids.shape[0], 1))], axis=1)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return train_bpe(["a red cat", "a dog"], 514, tmp_path_factory.mktemp("bpe") / "tokenizer.json")


def make(tokenizer: Tokenizer, *, devices: int = 1, **options: int) -> tuple[Encoder, list, list]:
    """An encoder of fake towers, and the batches of images and captions that it was given."""
    images: list[np.ndarray] = []
    captions: list[np.ndarray] = []

    def image(batch: jax.Array) -> jax.Array:
        images.append(np.asarray(batch))
        return embed_images(batch)

    def text(batch: jax.Array) -> jax.Array:
        captions.append(np.asarray(batch))
        return embed_text(batch)

    mesh = make_mesh(MeshConfig(data=devices))
    config = EncodeConfig(workers=2, **options)
    made = Encoder(image, text, tokenizer, config, mesh, SIZE, 4, "float32", rows=devices)
    return made, images, captions


def rows(shard: EncodedShard) -> list[tuple[str, str, tuple[str, ...]]]:
    return [(record.key, record.status, record.flags) for record in shard.records]


def test_every_row_has_its_own_image_and_caption(tokenizer: Tokenizer) -> None:
    colours = np.random.default_rng(0).integers(1, 255, (11, 3))
    colours[7] = colours[2]
    captions = [f"caption {i % 4}" for i in range(11)]
    pairs = [
        Pair(str(i), png(tuple(c.tolist())), text)
        for i, (c, text) in enumerate(zip(colours, captions, strict=True))
    ]
    pairs.insert(3, Pair("broken", b"no picture", "a caption"))
    pairs.append(Pair("silent", png((1, 2, 3)), None))
    encoder, images, texts = make(tokenizer, batch_size=4, text_batch_size=3)
    meter = Meter()
    shard = encode_shard(encoder, View(pairs), meter)
    keys = [*map(str, range(3)), "broken", *map(str, range(3, 11)), "silent"]
    assert [record.key for record in shard.records] == keys
    assert [k for k, ok in zip(keys, shard.valid, strict=True) if not ok] == ["broken", "silent"]
    assert not shard.image[[3, 12]].any()
    assert not shard.text[[3, 12]].any()
    wanted = np.stack([colour_embedding(c) for c in colours])
    np.testing.assert_allclose(shard.image[shard.valid], wanted, atol=1e-3)
    assert (shard.text[shard.valid][0] == shard.text[shard.valid][4]).all()
    assert len(np.unique(shard.text[shard.valid], axis=0)) == 4
    assert [batch.shape[0] for batch in images] == [4, 4, 4]
    assert sum(int(batch.any(axis=(1, 2, 3)).sum()) for batch in images) == 10, "each once"
    assert [batch.shape for batch in texts] == [(3, WORDS), (3, WORDS)]
    assert shard.warnings == ("the last row is missing",)
    assert meter.done == len(pairs)


def test_an_embedding_that_is_no_number_is_a_status(tokenizer: Tokenizer) -> None:
    encoder, _, _ = make(tokenizer, batch_size=4)
    pairs = [Pair("a", png((9, 9, 9)), "x"), Pair("black", png((0, 0, 0)), "x" * 90)]
    shard = encode_shard(encoder, View(pairs))
    assert rows(shard) == [
        ("a", "ok", ()),
        ("black", "nonfinite_embedding", ("caption_truncated",)),
    ]
    assert shard.records[1].message
    assert not shard.image[1].any()
    assert not shard.text[1].any()


def test_an_empty_shard_and_one_without_a_good_row(tokenizer: Tokenizer) -> None:
    encoder, images, texts = make(tokenizer)
    assert encode_shard(encoder, View([])).image.shape == (0, 4)
    shard = encode_shard(encoder, View([Pair("a", None, "x"), Pair("b", b"", "x")]))
    assert shard.image.shape == (2, 4)
    assert not shard.valid.any()
    assert not images
    assert not texts


@pytest.mark.parametrize(("batch", "devices"), [(1, 1), (7, 1), (7, 4), (64, 2)])
def test_batches_and_devices_do_not_matter(
    batch: int, devices: int, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    colours = np.random.default_rng(1).integers(1, 255, (13, 3))
    pairs = [
        Pair(str(i), png(tuple(c.tolist())), f"{'long ' * (3 * i)}caption {i}")
        for i, c in enumerate(colours)
    ]
    alone, _, _ = make(tokenizer, batch_size=13, text_batch_size=13)
    encoder, images, _ = make(tokenizer, devices=devices, batch_size=batch, text_batch_size=batch)
    wanted, found = encode_shard(alone, View(pairs)), encode_shard(encoder, View(pairs))
    assert found.records == wanted.records
    np.testing.assert_allclose(found.image, wanted.image, atol=1e-3)
    np.testing.assert_array_equal(found.text, wanted.text)
    assert all(image.shape[0] % devices == 0 for image in images)


def test_a_real_model_gives_the_same_bits_in_any_batch_on_any_devices(tokenizer: Tokenizer) -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (19, SIZE, SIZE, 3), dtype=np.uint8)
    pairs = [Pair(str(i), encode_png(p), f"a caption, {i}") for i, p in enumerate(pixels)]
    text = dataclasses.replace(TINY.text, vocab_size=tokenizer.vocab_size)
    shape = dataclasses.replace(TINY, text=text)
    weights = Weights(shape, build(shape).init(jax.random.key(0)), None, "", "")

    def encoded(devices: int, batch: int) -> EncodedShard:
        config = EncodeConfig(batch_size=batch, text_batch_size=batch, precision="float32")
        mesh = make_mesh(MeshConfig(data=devices))
        return encode_shard(make_encoder(weights, tokenizer, config, mesh=mesh), View(pairs))

    wanted = encoded(1, 64)
    assert wanted.valid.all()
    for devices, batch in ((1, 1), (2, 7)):
        found = encoded(devices, batch)
        assert found.image.tobytes() == wanted.image.tobytes()
        assert found.text.tobytes() == wanted.text.tobytes()


def test_the_next_shard_is_decoded_while_one_is_embedded(tokenizer: Tokenizer) -> None:
    """Its images are read before the shard before it is done; each keeps its own rows."""
    encoder, _, _ = make(tokenizer, batch_size=4)
    colours = np.random.default_rng(1).integers(1, 255, (3, 6, 3))
    read = threading.Event()

    class Watched(View):
        def __getitem__(self, row: int) -> Pair:
            read.set()
            return super().__getitem__(row)

    def views() -> Iterator[View]:
        for i, shard in enumerate(colours):
            pairs = [Pair(f"{i}-{j}", png(tuple(c.tolist())), "x") for j, c in enumerate(shard)]
            yield Watched(pairs) if i == 1 else View(pairs)

    found = encode_views(encoder, views())
    first = next(found)
    assert read.wait(10), "the second shard is read before it is asked for"
    for i, shard in enumerate([first, *found]):
        assert [record.key for record in shard.records] == [f"{i}-{j}" for j in range(6)]
        wanted = np.stack([colour_embedding(c) for c in colours[i]])
        np.testing.assert_allclose(shard.image, wanted, atol=1e-3)


def test_a_shard_that_cannot_be_opened_stops_at_its_turn(tokenizer: Tokenizer) -> None:
    encoder, _, _ = make(tokenizer)

    def views() -> Iterator[View]:
        yield View([Pair("a", png((9, 9, 9)), "x")])
        raise InputError("no shard")

    found = encode_views(encoder, views())
    assert len(next(found).records) == 1
    with pytest.raises(InputError, match="no shard"):
        next(found)
