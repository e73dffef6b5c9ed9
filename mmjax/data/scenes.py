"""Captioned scenes made from a seed: the embedded demo data, and test data without any licence."""

import io
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Int32, UInt8
from PIL import Image

from mmjax.core.errors import ConfigError
from mmjax.core.files import atomic_path, write_json
from mmjax.data.pack import TarWriter
from mmjax.data.scene_backgrounds import PATTERNS, paint_background
from mmjax.data.scene_captions import PLACE_WORDS, RELATIONS, SceneObject, write_caption
from mmjax.data.scene_drawing import Colour, blend, draw_object
from mmjax.data.scene_objects import DRAWINGS

CLASSES: Final[tuple[str, ...]] = tuple(DRAWINGS)
"""Object classes in the order of `Scene.object_class`."""

COLOURS: Final[dict[str, Colour]] = {
    "red": (216, 36, 36),
    "orange": (244, 132, 28),
    "yellow": (246, 214, 40),
    "green": (40, 152, 60),
    "blue": (48, 84, 216),
    "purple": (138, 56, 172),
    "pink": (246, 128, 180),
    "brown": (132, 84, 44),
    "white": (246, 246, 246),
    "black": (28, 28, 28),
    "grey": (136, 136, 136),
    "turquoise": (48, 200, 196),
}
SIZES: Final[dict[str, tuple[float, float]]] = {
    "small": (0.40, 0.48),
    "medium": (0.54, 0.66),
    "large": (0.74, 0.90),
}
"""Side of an object as a share of the picture's; each of two objects is a quarter smaller."""

FAULTS: Final = ("truncated image", "no caption", "web page", "latin-1 caption", "markup caption")
"""What `write_scenes` can spoil, in turn; the last two stay readable."""

SEED_LIMIT: Final = 2**63
_COLOUR_NAMES: Final = tuple(COLOURS)
_PATTERN_NAMES: Final = tuple(PATTERNS)
_PLACE_NAMES: Final = tuple(PLACE_WORDS)
_PAIRS: Final = tuple(RELATIONS)
_SIZE_NAMES: Final = tuple(SIZES)
_ACROSS: Final = {"left": 0.0, "right": 1.0}
_DOWN: Final = {"top": 0.0, "bottom": 1.0}


class Scene(NamedTuple):
    """One captioned picture; `object_class` is the index of its first object in `CLASSES`."""

    image: UInt8[np.ndarray, "side side 3"]
    captions: tuple[str, ...]
    object_class: int
    objects: tuple[SceneObject, ...]
    background: str


class SceneArrays(NamedTuple):
    """Many scenes in memory, one row each; `captions[i]` are the captions of `images[i]`."""

    images: UInt8[np.ndarray, "n side side 3"]
    captions: tuple[tuple[str, ...], ...]
    object_class: Int32[np.ndarray, " n"]


def _one_of(rng: np.random.Generator, names: tuple) -> int:
    return int(rng.random() * len(names))


def _choose_objects(rng: np.random.Generator, two_objects: float) -> tuple[SceneObject, ...]:
    colours = rng.permutation(len(COLOURS))
    if rng.random() >= two_objects:
        places = (_PLACE_NAMES[_one_of(rng, _PLACE_NAMES)],)
    else:
        places = _PAIRS[_one_of(rng, _PAIRS)]
    return tuple(
        SceneObject(
            CLASSES[_one_of(rng, CLASSES)],
            _COLOUR_NAMES[colours[order]],
            _SIZE_NAMES[_one_of(rng, _SIZE_NAMES)],
            place,
        )
        for order, place in enumerate(places)
    )


def _corner(place: str, free: int, rng: np.random.Generator) -> tuple[int, int]:
    """Upper left corner of an object that leaves `free` pixels on either axis."""
    words = place.split()
    across = next((_ACROSS[word] for word in words if word in _ACROSS), 0.5)
    down = next((_DOWN[word] for word in words if word in _DOWN), 0.5)
    jitter_x, jitter_y = rng.uniform(-0.1, 0.1, 2)
    x = round(np.clip(across + jitter_x, 0, 1) * free)
    y = round(np.clip(down + jitter_y, 0, 1) * free)
    return x, y


def _paste(
    picture: Image.Image, thing: SceneObject, share: float, rng: np.random.Generator
) -> None:
    """Draws `thing` with a varied shade, tilt and direction."""
    low, high = SIZES[thing.size]
    side = max(4, round(rng.uniform(low, high) * share * picture.width))
    shade = rng.uniform(-0.15, 0.15)
    base = COLOURS[thing.colour]
    colour = blend(base, (255, 255, 255) if shade > 0 else (0, 0, 0), abs(shade))
    sprite = draw_object(DRAWINGS[thing.name], colour, side)
    if rng.random() < 0.5:
        sprite = sprite.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    sprite = sprite.rotate(rng.uniform(-12, 12), Image.Resampling.BILINEAR)
    picture.paste(sprite, _corner(thing.place, picture.width - side, rng), sprite)


def _ground_tones(name: str) -> tuple[Colour, Colour]:
    """A lighter and a duller tone of a colour, apart even for black and white."""
    base = COLOURS[name]
    lighter = 0.2 + 0.35 * sum(base) / 765
    return blend(base, (255, 255, 255), lighter), blend(base, (128, 128, 128), 0.15)


def make_scene(
    index: int, seed: int, size: int = 64, captions: int = 1, two_objects: float = 0.25
) -> Scene:
    """Makes scene `index` of the endless series that `seed` names; it depends on nothing else.

    Args:
        index: number of the scene.
        seed: name of the series.
        size: pixels of a side.
        captions: how many captions are written for the picture.
        two_objects: probability of a second object.
    """
    rng = np.random.Generator(np.random.PCG64([seed, index]))
    things = _choose_objects(rng, two_objects)
    pattern = _PATTERN_NAMES[_one_of(rng, _PATTERN_NAMES)]
    taken = {thing.colour for thing in things}
    grounds = tuple(name for name in _COLOUR_NAMES if name not in taken)
    ground = grounds[_one_of(rng, grounds)]
    picture = Image.fromarray(paint_background(pattern, *_ground_tones(ground), rng, size))
    share = 1.0 if len(things) == 1 else 0.75
    for thing in things:
        _paste(picture, thing, share, rng)
    ways = PATTERNS[pattern][1]
    written = tuple(
        write_caption(things, ways[_one_of(rng, ways)].format(ground), rng) for _ in range(captions)
    )
    return Scene(
        np.asarray(picture), written, CLASSES.index(things[0].name), things, f"{pattern} {ground}"
    )


def make_scenes(
    n: int,
    seed: int,
    size: int = 64,
    *,
    start: int = 0,
    captions: int = 1,
    two_objects: float = 0.25,
) -> Iterator[Scene]:
    """Makes scenes `start` to `start + n` of a series (see `make_scene`).

    Raises:
        ConfigError: `n`, `seed`, `start` or `two_objects` is out of range, or `size` below 16.
    """
    if n < 0 or start < 0 or not 0 <= seed < SEED_LIMIT:
        raise ConfigError(
            f"scenes need n, start and seed >= 0, got n={n}, start={start}, seed={seed}"
        )
    if size < 16 or captions < 1 or not 0 <= two_objects <= 1:
        raise ConfigError(
            "scenes need size >= 16, captions >= 1 and two_objects in [0, 1], "
            f"got size={size}, captions={captions}, two_objects={two_objects}"
        )
    return (make_scene(i, seed, size, captions, two_objects) for i in range(start, start + n))


def scene_arrays(
    n: int,
    seed: int,
    size: int = 64,
    *,
    start: int = 0,
    captions: int = 1,
    two_objects: float = 0.25,
) -> SceneArrays:
    """The scenes of `make_scenes`, in memory."""
    scenes = make_scenes(n, seed, size, start=start, captions=captions, two_objects=two_objects)
    images = np.empty((n, size, size, 3), np.uint8)
    written: list[tuple[str, ...]] = []
    classes = np.empty(n, np.int32)
    for row, scene in enumerate(scenes):
        images[row], classes[row] = scene.image, scene.object_class
        written.append(scene.captions)
    return SceneArrays(images, tuple(written), classes)


def write_scenes(
    out_dir: Path | str,
    n: int,
    seed: int,
    *,
    size: int = 64,
    start: int = 0,
    captions: int = 1,
    two_objects: float = 0.25,
    shard_size: int = 1000,
    faults: int = 0,
    rare: str = "",
) -> list[Path]:
    """Writes scenes as WebDataset shards 00000.tar, ... of PNG, TXT and JSON members.

    A scene with several captions is several pairs of the same picture. Beside the shards stand
    `sizes.json` (pairs a shard) and, written last, `scenes.json` (arguments, keys of spoiled
    pairs). The same arguments give the same bytes.

    Args:
        out_dir: a new or empty folder.
        n: number of scenes.
        seed: name of the series (see `make_scene`).
        size: pixels of a side.
        start: the first scene.
        captions: pairs a scene.
        two_objects: probability of a second object.
        shard_size: pairs a shard.
        faults: pairs that are spoiled, by the kinds of `FAULTS` in turn.
        rare: a class of which nine in ten scenes are passed over: as rare as things are on the web.

    Returns:
        The shards.

    Raises:
        ConfigError: an argument is out of range, or `out_dir` holds files.
    """
    out_dir = Path(out_dir)
    pairs = n * captions
    if shard_size < 1 or not 0 <= faults <= pairs:
        raise ConfigError(
            f"scenes need shard_size >= 1 and faults in [0, {pairs}], "
            f"got shard_size={shard_size}, faults={faults}"
        )
    # asks for more than n, because some may be passed over; scenes are made when they are taken
    plenty = make_scenes(2 * n, seed, size, start=start, captions=captions, two_objects=two_objects)
    kept = (s for i, s in enumerate(plenty) if i % 10 == 0 or not _shows(s, rare))
    scenes = itertools.islice(kept, n)
    if out_dir.exists() and any(out_dir.iterdir()):
        raise ConfigError(f"{out_dir} holds files; choose a new or empty folder for scenes")
    out_dir.mkdir(parents=True, exist_ok=True)
    rows = np.random.Generator(np.random.PCG64([seed, SEED_LIMIT - 1])).permutation(pairs)[:faults]
    spoiled = {int(row): FAULTS[turn % len(FAULTS)] for turn, row in enumerate(rows)}
    members = _members(scenes, spoiled)
    shards = [out_dir / f"{number:05d}.tar" for number in range(-(-pairs // shard_size))]
    for number, shard in enumerate(shards):
        with atomic_path(shard) as temporary, TarWriter(temporary) as writer:
            for row in range(number * shard_size, min((number + 1) * shard_size, pairs)):
                for extension, content in next(members).items():
                    writer.add_member(f"{row:09d}.{extension}", content)
    sizes = {path.name: min(shard_size, pairs - i * shard_size) for i, path in enumerate(shards)}
    write_json(out_dir / "sizes.json", sizes)
    arguments = {"n": n, "seed": seed, "size": size, "start": start, "captions": captions}
    arguments |= {"two_objects": two_objects, "shard_size": shard_size, "rare": rare}
    faulty = {f"{row:09d}": kind for row, kind in sorted(spoiled.items())}
    write_json(out_dir / "scenes.json", {"arguments": arguments, "faults": faulty})
    return shards


def _shows(scene: Scene, name: str) -> bool:
    return any(thing.name == name for thing in scene.objects)


def _members(scenes: Iterator[Scene], spoiled: dict[int, str]) -> Iterator[dict[str, bytes]]:
    """Contents of each pair's files by extension, spoiled where `spoiled` says so by row."""
    row = 0
    for scene in scenes:
        file = io.BytesIO()
        Image.fromarray(scene.image).save(file, "PNG", compress_level=3)
        facts = [thing._asdict() for thing in scene.objects]
        about = json.dumps({"objects": facts, "background": scene.background}).encode()
        for caption in scene.captions:
            files = {"png": file.getvalue(), "txt": caption.encode(), "json": about}
            yield _spoil(files, spoiled[row]) if row in spoiled else files
            row += 1


def _spoil(files: dict[str, bytes], kind: str) -> dict[str, bytes]:
    match kind:
        case "truncated image":
            return files | {"png": files["png"][: len(files["png"]) // 2]}
        case "no caption":
            return {name: content for name, content in files.items() if name != "txt"}
        case "web page":
            return files | {"png": b"<!DOCTYPE html><title>404 Not Found</title>"}
        case "latin-1 caption":
            return files | {"txt": files["txt"] + " in a café".encode("latin-1")}
        case _:
            return files | {"txt": files["txt"] + b" <script>alert('{{7*7}}')</script>"}
