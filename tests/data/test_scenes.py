"""Scenes: determinism, independence of order, captions that name what is drawn."""

import json

import numpy as np
import pytest

from mmjax.core.errors import ConfigError
from mmjax.data.images import decode
from mmjax.data.loader import load_shard
from mmjax.data.scene_captions import NOUNS
from mmjax.data.scenes import (
    CLASSES,
    COLOURS,
    make_scene,
    make_scenes,
    scene_arrays,
    write_scenes,
)
from mmjax.data.sources import open_source


def test_scene_depends_on_seed_and_index_only():
    few, many = list(make_scenes(3, 5)), list(make_scenes(8, 5))
    later = next(make_scenes(1, 5, start=2))
    for one, other in zip([*few, later], [*many[:3], many[2]], strict=True):
        np.testing.assert_array_equal(one.image, other.image)
        assert one[1:] == other[1:]
    assert not np.array_equal(few[0].image, next(make_scenes(1, 6)).image)


@pytest.mark.parametrize("size", [64, 71, 96])
def test_scene_arrays_hold_the_scenes(size):
    arrays = scene_arrays(4, 1, size, captions=2)
    assert arrays.images.shape == (4, size, size, 3)
    for row, scene in enumerate(make_scenes(4, 1, size, captions=2)):
        np.testing.assert_array_equal(arrays.images[row], scene.image)
        assert arrays.captions[row] == scene.captions
        assert arrays.object_class[row] == scene.object_class


def test_captions_name_every_object_and_vary():
    scenes = list(make_scenes(400, 2, 32))
    for scene in scenes:
        for thing in scene.objects:
            nouns = NOUNS.get(thing.name, (thing.name,))
            assert any(noun in scene.captions[0] for noun in nouns)
        assert len(scene.captions[0].split()) <= 24
    assert len({scene.captions[0] for scene in scenes}) > 380


def test_every_class_is_drawn_and_banana_is_one():
    assert "banana" in CLASSES
    assert len(CLASSES) >= 20
    seen = {thing.name for scene in make_scenes(600, 3, 16) for thing in scene.objects}
    assert seen == set(CLASSES)


def test_two_objects_probability_and_colours_differ():
    assert all(len(scene.objects) == 1 for scene in make_scenes(40, 4, 16, two_objects=0.0))
    for scene in make_scenes(40, 4, 16, two_objects=1.0):
        first, second = scene.objects
        assert first.colour != second.colour
        assert scene.background.split()[1] not in {first.colour, second.colour}


def test_the_object_has_its_colour():
    for index in range(40):
        scene = make_scene(index, 9, 64, two_objects=0.0)
        colour = np.array(COLOURS[scene.objects[0].colour])
        near = np.abs(scene.image.astype(int) - colour[None, None]).max(-1) < 60
        assert near.mean() > 0.005


@pytest.mark.parametrize(
    "bad", [{"n": -1}, {"seed": -1}, {"size": 8}, {"captions": 0}, {"two_objects": 1.5}]
)
def test_bad_arguments_are_refused_at_once(bad):
    with pytest.raises(ConfigError):
        make_scenes(**({"n": 1, "seed": 0} | bad))


def _bytes(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_written_shards_hold_the_scenes(tmp_path):
    shards = write_scenes(tmp_path / "one", 7, 5, size=32, captions=2, shard_size=5, start=3)
    assert [shard.name for shard in shards] == ["00000.tar", "00001.tar", "00002.tar"]
    source = open_source(str(tmp_path / "one"))
    views = [source.open_shard(shard) for shard in source.shards]
    pairs = [view[row] for view in views for row in range(len(view))]
    assert [len(view) for view in views] == [5, 5, 4]
    scenes = list(make_scenes(7, 5, 32, start=3, captions=2))
    for row, pair in enumerate(pairs):
        scene = scenes[row // 2]
        assert pair.status == "ok"
        assert pair.caption == scene.captions[row % 2]
        np.testing.assert_array_equal(decode(pair.image, 32), scene.image)
    write_scenes(tmp_path / "two", 7, 5, size=32, captions=2, shard_size=5, start=3)
    assert _bytes(tmp_path / "one") == _bytes(tmp_path / "two")


def test_written_faults_are_found_and_named(tmp_path):
    write_scenes(tmp_path, 12, 5, size=16, faults=5)
    source = open_source(str(tmp_path))
    view = source.open_shard(source.shards[0])
    load = load_shard(view, image_size=16, batch_size=8, workers=2)
    list(load.batches)
    found = {record.key: record for record in load.records}
    named = json.loads((tmp_path / "scenes.json").read_text())["faults"]
    statuses = {kind: found[key].status for key, kind in named.items()}
    assert statuses == {
        "truncated image": "truncated_image",
        "no caption": "missing_caption",
        "web page": "undecodable_image",
        "latin-1 caption": "ok",
        "markup caption": "ok",
    }
    assert sum(record.status != "ok" for record in load.records) == 3
    flags = {kind: found[key].flags for key, kind in named.items()}
    assert flags["latin-1 caption"] == ("caption_encoding",)


def test_scenes_are_not_written_over_files(tmp_path):
    with pytest.raises(ConfigError, match="faults in"):
        write_scenes(tmp_path, 2, 0, faults=3)
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(ConfigError, match="holds files"):
        write_scenes(tmp_path, 2, 0)
