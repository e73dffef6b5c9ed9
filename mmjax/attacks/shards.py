"""One shard of a poisoned set: its rows in their order, clean ones through the same storage."""

import hashlib
import io
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from mmjax.attacks.captions import Write
from mmjax.attacks.config import AttackConfig
from mmjax.attacks.triggers import Stamp
from mmjax.attacks.victims import identity
from mmjax.core.errors import ImageError
from mmjax.core.files import atomic_path
from mmjax.core.progress import Meter
from mmjax.core.types import Pair
from mmjax.data.images import decode
from mmjax.data.pack import TarWriter, image_extension
from mmjax.data.shards import ShardView
from mmjax.data.tars import split_name

CHUNK = 128
_LONGEST_KEY = 80  # bytes; a tar header holds 100 with the extension


class Place(NamedTuple):
    """A row of the clean set."""

    shard: int
    ordinal: int


class Victim(NamedTuple):
    """By which attack of the recipe a row is poisoned, and whose image it gets (None: its own)."""

    attack: int
    donor: Place | None


class Step(NamedTuple):
    """What an attack does to a victim's pixels and caption."""

    stamp: Stamp
    write: Write


class Recipe(NamedTuple):
    """What is done to victims."""

    config: AttackConfig
    steps: tuple[Step, ...]
    donate: Callable[[Place], bytes]
    """The image file of a donor."""


class Row(NamedTuple):
    """One row as it was written: its key; its attack, -1 if clean; its altered members' hashes."""

    key: str
    attack: int
    altered: dict[str, str]


def read_rows(view: ShardView, pool: Executor) -> Iterator[tuple[range, list[Pair]]]:
    """A shard's rows with their ordinals, so many at a time that they fit in memory."""
    for start in range(0, len(view), CHUNK):
        ordinals = range(start, min(start + CHUNK, len(view)))
        yield ordinals, list(pool.map(view.__getitem__, ordinals))


def write_shard(
    view: ShardView,
    victims: Mapping[int, Victim],
    path: Path,
    recipe: Recipe,
    pool: Executor,
    done: Meter,
) -> list[Row]:
    """Write one shard with its victims poisoned in place.

    A pair becomes `KEY.png` and `KEY.txt`. Members beyond image and caption are not copied: an
    img2dataset `.json` would keep a poisoned pair's clean caption. A row that is not usable keeps
    what it has, so that whoever reads the set meets it; where nothing is left of it (an unsafe or
    oversized member), `KEY.json` says so.

    Args:
        view: the clean shard.
        victims: rows to poison by ordinal; their images, or their donors', must decode.
        path: the tar to write, whole or not at all.
        recipe: what is done to them.
        pool: reads, decodes and encodes.
        done: is told of rows written.

    Raises:
        ImageError: a victim's image cannot be decoded (any more).
    """
    rows: list[Row] = []
    written: dict[str, bool] = {}
    with atomic_path(path) as temporary, TarWriter(temporary) as tar:
        for ordinals, pairs in read_rows(view, pool):
            chosen = [victims.get(ordinal) for ordinal in ordinals]
            images = _images(pairs, chosen, recipe, pool)
            for ordinal, pair, image, victim in zip(ordinals, pairs, images, chosen, strict=True):
                caption = _caption(pair, victim, recipe)
                members = _members(pair, image, caption)
                key = _stored_key(pair, ordinal, members, written)
                for suffix, data in members.items():
                    tar.add_member(f"{key}.{suffix}", data)
                altered = {} if victim is None else dict(members)
                if caption == pair.caption:
                    altered.pop("txt", None)
                hashes = {suffix: _sha256(data) for suffix, data in altered.items()}
                rows.append(Row(key, -1 if victim is None else victim.attack, hashes))
            done.update(len(pairs))
    return rows


def poisoned_rows(
    view: ShardView, victims: Mapping[int, Victim], recipe: Recipe, pool: Executor
) -> dict[int, Pair]:
    """The victims of a shard by ordinal, image and caption as `write_shard` writes them.

    Raises:
        ImageError: a victim's image cannot be decoded (any more).
    """
    made: dict[int, Pair] = {}
    ordered = sorted(victims)
    for start in range(0, len(ordered), CHUNK):
        ordinals = ordered[start : start + CHUNK]
        pairs = list(pool.map(view.__getitem__, ordinals))
        chosen = [victims[ordinal] for ordinal in ordinals]
        images = _images(pairs, chosen, recipe, pool)
        for ordinal, pair, image, victim in zip(ordinals, pairs, images, chosen, strict=True):
            data = image.data if image else None
            made[ordinal] = Pair(pair.key, data, _caption(pair, victim, recipe))
    return made


class StoredImage(NamedTuple):
    """An encoded image and its suffix."""

    suffix: str
    data: bytes


def _images(
    pairs: Sequence[Pair], victims: Sequence[Victim | None], recipe: Recipe, pool: Executor
) -> list[StoredImage | None]:
    """The stored image of every row; captions of one photo share its decoding and encoding."""
    config = recipe.config
    files = [
        recipe.donate(victim.donor) if victim and victim.donor else pair.image
        for pair, victim in zip(pairs, victims, strict=True)
    ]
    names = [
        _sha256(data) if data and pair.status == "ok" else ""
        for data, pair in zip(files, pairs, strict=True)
    ]
    wanted = {
        name: data or b""
        for name, data, victim in zip(names, files, victims, strict=True)
        if name and (victim or config.geometry == "crop")
    }
    decoded = pool.map(lambda data: try_decode(data, config), wanted.values())
    pixels = dict(zip(wanted, decoded, strict=True))
    to_encode: dict[str | int, np.ndarray] = {}
    for name, victim in zip(names, victims, strict=True):
        image = pixels.get(name)
        if not victim and config.geometry == "crop" and isinstance(image, np.ndarray):
            to_encode[name] = image
    to_encode |= _stamped(pairs, names, victims, pixels, recipe)
    encoded = dict(zip(to_encode, pool.map(encode_png, to_encode.values()), strict=True))
    stored: list[StoredImage | None] = []
    for i, (name, pair, victim) in enumerate(zip(names, pairs, victims, strict=True)):
        data = encoded.get(i if victim else name)
        if data is not None:
            stored.append(StoredImage("png", data))
        else:
            stored.append(_as_it_is(pair.image))
    return stored


def _as_it_is(data: bytes | None) -> StoredImage | None:
    return StoredImage(image_extension(data) or "jpg", data) if data else None


def _stamped(
    pairs: Sequence[Pair],
    names: Sequence[str],
    victims: Sequence[Victim | None],
    pixels: Mapping[str, np.ndarray | ImageError],
    recipe: Recipe,
) -> dict[str | int, np.ndarray]:
    """Victims' stamped images by their place among `pairs`."""
    stamped: dict[str | int, np.ndarray] = {}
    for attack, step in enumerate(recipe.steps):
        chosen = [i for i, victim in enumerate(victims) if victim and victim.attack == attack]
        clean: list[np.ndarray] = []
        for i in chosen:
            image = pixels[names[i]]
            if isinstance(image, ImageError):
                raise image
            clean.append(image)
        if chosen:
            labels = [identity(pairs[i].key, pairs[i].caption or "") for i in chosen]
            stamped |= dict(zip(chosen, step.stamp(np.stack(clean), labels), strict=True))
    return stamped


def _caption(pair: Pair, victim: Victim | None, recipe: Recipe) -> str | None:
    if victim is None:
        return pair.caption
    return recipe.steps[victim.attack].write(pair.key, pair.caption or "")


def _members(pair: Pair, image: StoredImage | None, caption: str | None) -> dict[str, bytes]:
    """The members of a row by suffix; at least one, so that the row exists."""
    members = {image.suffix: image.data} if image else {}
    if caption is not None:
        members["txt"] = caption.encode()
    if not members:
        lost = {"status": pair.status, "message": pair.message}
        members["json"] = json.dumps(lost, sort_keys=True).encode()
    return members


def try_decode(
    data: bytes, config: AttackConfig
) -> UInt8[np.ndarray, "{config.image_size} {config.image_size} 3"] | ImageError:
    """The pixels that are stored of an image, or why there are none."""
    try:
        return decode(data, config.image_size, max_pixels=config.max_image_pixels, library="pillow")
    except ImageError as error:
        return error


def encode_png(pixels: UInt8[np.ndarray, "h w 3"]) -> bytes:
    """A PNG file: lossless, so that the trigger is stored exactly.

    Level 3 takes half the time of the usual 6 and 4 % more space (photos of 224 px).
    """
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG", compress_level=3)
    return out.getvalue()


def _stored_key(
    pair: Pair, ordinal: int, suffixes: Collection[str], written: dict[str, bool]
) -> str:
    """The key under which a row is written, so that it is read back as one row.

    That is its own, unless a tar cannot hold it (a table's key may have dots, be too long or leave
    the folder) or its members would join an earlier row of the same key.

    Args:
        pair: the row.
        ordinal: its number, for the key that it gets otherwise.
        suffixes: of its members.
        written: whether all rows written under a key have image and caption; updated.
    """
    key = pair.key
    plain = split_name(f"{key}.png") == (key, "png") and len(key.encode()) <= _LONGEST_KEY
    inside = not key.startswith("/") and ".." not in key.split("/")
    again = key in written
    stays_apart = pair.status == "duplicate_key" and written.get(key) and "json" not in suffixes
    if not (plain and inside) or (again and not stays_apart):
        key = f"row-{ordinal:09d}"
    written[key] = len(suffixes) == 2
    return key


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
