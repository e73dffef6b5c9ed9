"""Embeddings of images and captions for evaluation: a batch at a time, split over the mesh."""

import collections
import contextlib
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float32, UInt8
from PIL import Image

from mmjax.core.errors import InputError
from mmjax.core.mesh import DATA, batch_sharding, replicated
from mmjax.core.progress import meter
from mmjax.data.images import MAX_PIXELS, fit_square
from mmjax.data.loader import load_shard
from mmjax.data.shards import Source
from mmjax.data.tokenizer import Tokenizer, bucket_length
from mmjax.learn.pretrained import load_pretrained
from mmjax.models.clip import Towers, build, freeze

Pixels = UInt8[np.ndarray, "n h w 3"]
Embeddings = Float32[np.ndarray, "n d"]


class Embedder(NamedTuple):
    """Towers on a mesh; but for rounding, batch size and devices change nothing of what they give.

    Fields:
        images: unit-norm embeddings of decoded images, any number of them.
        captions: the same of captions; those that are longer than the context are cut.
        mesh: batches are split over its axis `data`.
        batch_size: rows of a batch, over all devices.
        image_size: pixels of a side.
        name: of the model's shape.
        fingerprint: of the weights, empty where they come from memory.
    """

    images: Callable[[Pixels], Embeddings]
    captions: Callable[[Sequence[str]], Embeddings]
    mesh: Mesh
    batch_size: int
    image_size: int
    name: str
    fingerprint: str = ""


def make_embedder(
    towers: Towers,
    variables: Mapping[str, Any],
    tokenizer: Tokenizer,
    *,
    mesh: Mesh,
    batch_size: int = 256,
) -> Embedder:
    """Put towers on a mesh.

    Args:
        towers: trainable or frozen.
        variables: theirs; every device gets a copy.
        tokenizer: theirs.
        mesh: see `Embedder`.
        batch_size: rounded up to a multiple of the devices.
    """
    batch_size = -(-batch_size // mesh.shape[DATA]) * mesh.shape[DATA]
    variables = jax.device_put(dict(variables), replicated(mesh))
    rows = batch_sharding(mesh)
    places = {"in_shardings": (replicated(mesh), rows), "out_shardings": rows}
    image, text = (jax.jit(f, **places) for f in (towers.encode_image, towers.encode_text))
    width = towers.preset.embed_dim

    def embed(encode: Callable[..., jax.Array], array: np.ndarray) -> Embeddings:
        parts = [np.zeros((0, width), np.float32)]
        for batch, count in batches(array, batch_size):
            embedded = encode(variables, jax.device_put(batch, rows))
            parts.append(np.asarray(embedded)[:count])
        return np.concatenate(parts)

    def captions(texts: Sequence[str]) -> Embeddings:
        tokens = tokenizer.encode(texts)
        longest = int(tokens.lengths.max(initial=2))
        length = bucket_length(longest, tokenizer.context_length)
        return embed(text, tokens.ids[:, :length])

    return Embedder(
        lambda images: embed(image, images),
        captions,
        mesh,
        batch_size,
        towers.preset.vision.image_size,
        towers.preset.name,
    )


def load_embedder(
    weights: str,
    tokenizer: str = "",
    *,
    mesh: Mesh,
    batch_size: int = 256,
    precision: Literal["auto", "float32", "bfloat16"] = "float32",
) -> Embedder:
    """An embedder of stored weights, in their fastest form.

    Args:
        weights: as `load_weights` takes it.
        tokenizer: a folder or file; empty = the one beside the weights.
        mesh: see `Embedder`.
        batch_size: see `make_embedder`.
        precision: arithmetic of the products; float32 gives the same figures on every machine.

    Raises:
        WeightsError: the weights cannot be loaded.
        TokenizerError: there is no tokenizer, or it does not fit the model.
    """
    loaded, made = load_pretrained(weights, tokenizer)
    towers, variables = freeze(build(loaded.preset), loaded.variables, precision)
    embedder = make_embedder(towers, variables, made, mesh=mesh, batch_size=batch_size)
    return embedder._replace(fingerprint=loaded.fingerprint)


def batches(array: np.ndarray, size: int) -> Iterator[tuple[np.ndarray, int]]:
    """Rows of an array `size` at a time, and how many of them count.

    The last batch is filled up with its first row, so that one shape is compiled and what fills it
    is as good a row as any.
    """
    for start in range(0, len(array), size):
        part = array[start : start + size]
        filling = np.repeat(part[:1], size - len(part), axis=0)
        yield np.concatenate([part, filling]), len(part)


def class_embeddings(
    embedder: Embedder, classes: Sequence[str], templates: Iterable[str]
) -> Float32[np.ndarray, "c d"]:
    """A zero-shot classifier: of every class the unit-norm mean of its unit-norm prompts.

    Args:
        embedder: of the model.
        classes: their names.
        templates: each with `{}` in the place of the name.

    Source: Radford et al. 2021 (CLIP, arXiv:2103.00020), section 3.1.4.
    """
    prompts = list(templates)
    texts = [prompt.replace("{}", name) for name in classes for prompt in prompts]
    embedded = embedder.captions(texts).reshape(len(classes), len(prompts), -1)
    mean = embedded.mean(axis=1, dtype=np.float64)
    return (mean / np.linalg.norm(mean, axis=1, keepdims=True)).astype(np.float32)


@jax.jit
def cosines(left: jax.Array, right: jax.Array) -> jax.Array:
    """All products of two sets of unit-norm rows."""
    return jnp.matmul(left, right.T, precision=jax.lax.Precision.HIGHEST)


Change = Callable[[Pixels, Sequence[str]], Pixels]
"""What is done to stored pixels before they are embedded, given a name of each."""


class Read(NamedTuple):
    """The rows of a source that could be read, and of the others how many have which status.

    `image` has embeddings by the name of a change; `files` are hashes of the image files.
    """

    image: dict[str, Embeddings]
    captions: tuple[str, ...]
    files: tuple[str, ...]
    skipped: dict[str, int]


def embed_source(
    embedder: Embedder,
    source: Source,
    changes: Mapping[str, Change],
    *,
    size: int = 0,
    workers: int = 2,
    max_pixels: int = MAX_PIXELS,
) -> Read:
    """Embed the images of a source as they are after every change.

    Args:
        embedder: of the model.
        source: what is read, a shard at a time; equal images of a shard are embedded once.
        changes: by name. An image's own name, which they get, is a hash of its pixels: it depends
            neither on the order nor on the batch.
        size: side at which the images are stored and changed; they are then brought to the
            model's, as a loader of the stored files would. 0 = the model's.
        workers: threads that decode.
        max_pixels: larger images are skipped.

    Raises:
        InputError: no row can be read.
    """
    found: dict[str, list[Embeddings]] = {name: [] for name in changes}
    captions: list[str] = []
    files: list[str] = []
    skipped: collections.Counter[str] = collections.Counter()
    total = sum(source.sizes.values()) if len(source.sizes) == len(source.shards) else None
    with contextlib.closing(meter(total, "embedding", unit="image")) as done:
        for shard in source.shards:
            load = load_shard(
                source.open_shard(shard),
                image_size=size or embedder.image_size,
                batch_size=embedder.batch_size,
                workers=workers,
                max_pixels=max_pixels,
            )
            parts: dict[str, list[Embeddings]] = {name: [] for name in changes}
            for batch in load.batches:
                pixels = batch.images[batch.mask]
                names = [hashlib.sha256(image.tobytes()).hexdigest() for image in pixels]
                for name, change in changes.items():
                    fitted = fit(change(pixels, names), embedder.image_size)
                    parts[name].append(embedder.images(fitted))
                done.update(len(pixels))
            usable = [record for record in load.records if record.status == "ok"]
            skipped.update(record.status for record in load.records if record.status != "ok")
            captions += [record.caption for record in usable]
            files += [record.image_sha256 for record in usable]
            if usable:
                rows = np.array([record.image_slot for record in usable])
                for name, each in parts.items():
                    found[name].append(np.concatenate(each)[rows])
    if not captions:
        raise InputError(f"{source.location} has no image that can be read: {dict(skipped)}")
    image = {name: np.concatenate(each) for name, each in found.items()}
    return Read(image, tuple(captions), tuple(files), dict(skipped))


def fit(images: UInt8[np.ndarray, "n h w 3"], size: int) -> UInt8[np.ndarray, "n {size} {size} 3"]:
    """Stored images as a model of another size reads them."""
    if images.shape[1:3] == (size, size):
        return images
    return np.stack([fit_square(Image.fromarray(image), size) for image in images])


def unchanged(images: Pixels, names: Sequence[str]) -> Pixels:
    """The change that is none."""
    return images
