from pathlib import Path

import numpy as np
import pytest

from mmjax.attacks.config import AttackConfig, TriggerConfig
from mmjax.core.errors import InputError
from mmjax.data.images import decode
from mmjax.data.scenes import write_scenes
from mmjax.data.sources import open_source
from mmjax.evaluate.training_set import poisoned_copy, read_set, with_victims

SIZE = 32


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sets")
    # two of the rows cannot be read, and every picture has two captions
    write_scenes(folder / "clean", 40, 3, size=SIZE, captions=2, shard_size=30, faults=2)
    return folder


def test_every_row_that_can_be_read(folder):
    source = open_source(str(folder / "clean"))
    found = read_set(source, SIZE)
    assert len(found.rows) == 78
    views = [source.open_shard(shard) for shard in source.shards]
    pairs = [view[i] for view in views for i in range(len(view))]
    for image, caption, row in zip(found.images, found.captions, found.rows, strict=True):
        assert caption == pairs[row].caption
        np.testing.assert_array_equal(image, decode(pairs[row].image, SIZE))
    kept = np.arange(80) % 2 == 0
    table = found.table(kept)
    even = [i for i, row in enumerate(found.rows) if row % 2 == 0]
    assert table.captions == tuple((found.captions[i],) for i in even)
    np.testing.assert_array_equal(table.images, found.images[even])
    assert len(found.table().images) == 78


def test_victims_stand_in_the_place_of_their_clean_pairs(folder):
    source = open_source(str(folder / "clean"))
    trigger = TriggerConfig("badnets_fixed", patch_size=8.0)
    attack = AttackConfig(
        trigger=trigger, inputs=(str(folder / "clean"),), image_size=SIZE, count=7, rate=0.0
    )
    victims = poisoned_copy(source, attack, folder / "poisoned")
    assert len(victims.rows) == 7
    assert all("banana" in (pair.caption or "") for pair in victims.pairs)
    clean = read_set(source, SIZE)
    made = with_victims(clean, victims)
    changed = np.array([a != b for a, b in zip(clean.captions, made.captions, strict=True)])
    np.testing.assert_array_equal(clean.rows[changed], victims.rows)
    different = (clean.images != made.images).any(axis=(1, 2, 3))
    np.testing.assert_array_equal(different, changed)
    # the set as a trainer reads it from the shards
    np.testing.assert_array_equal(
        made.images, read_set(open_source(str(folder / "poisoned")), SIZE).images
    )
    again = poisoned_copy(source, attack, folder / "poisoned")
    assert again.pairs == victims.pairs
    lost = clean._replace(rows=clean.rows[:1], images=clean.images[:1], captions=("x",))
    with pytest.raises(InputError, match="has no clean one in the set"):
        with_victims(lost, victims)
