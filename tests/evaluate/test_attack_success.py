import json
from pathlib import Path

import numpy as np
import pytest

from mmjax.attacks.config import AttackConfig, TriggerConfig
from mmjax.attacks.poison import attack
from mmjax.core.errors import ConfigError, InputError
from mmjax.core.mesh import local_mesh
from mmjax.data.scenes import write_scenes
from mmjax.evaluate.attack_success import (
    donor_ranks,
    read_attacks,
    success,
    target_class,
)
from tests.oracles import classification as oracle


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("scenes") / "s"
    write_scenes(folder, 100, 11, size=32)
    return str(folder)


@pytest.fixture(scope="module")
def poisoned(scenes: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("poisoned") / "p"
    trigger = TriggerConfig("badnets_fixed", patch_size=6.0)
    attack(
        AttackConfig(
            trigger=trigger, inputs=(scenes,), target="banana", image_size=32, seed=3, rate=0.05
        ),
        folder,
    )
    return folder


def test_images_of_the_target_do_not_count():
    rng = np.random.default_rng(0)
    labels, clean, triggered = rng.integers(0, 4, (3, 50)).astype(np.int32)
    found = success(triggered, clean, labels, 2)
    sides = (clean.tolist(), triggered.tolist())
    alarms, rate = (oracle.attack_success(each, labels.tolist(), 2) for each in sides)
    assert (found.false_alarms, found.rate) == pytest.approx((alarms, rate))
    assert found.images == int(np.sum(labels != 2))
    # a model that is right about everything, images of the target included, has no alarm
    assert success(labels, labels, labels, 2).rate == 0
    always = np.full(50, 2, np.int32)
    assert success(always, labels, labels, 2)[:2] == (1, 0)
    with pytest.raises(InputError, match="not of the target: none"):
        success(always, always, always, 2)


def test_the_manifest_gives_the_trigger_back(poisoned):
    (one,) = read_attacks(poisoned / "POISONED_DATASET.json")
    assert read_attacks(poisoned) == (one,)
    assert (one.name, one.target, one.donor, one.image_size) == ("badnets_fixed", "banana", "", 32)
    assert (one.trigger.patch_size, one.arrays) == (6.0, None)
    images = np.full((3, 32, 32, 3), 90, np.uint8)
    stamped = one.stamp(0)(images, ["a", "b", "c"])
    changed = (stamped != images).any(axis=-1)
    assert 0 < changed.sum(axis=(1, 2)).max() <= 36
    np.testing.assert_array_equal(stamped, one.stamp(0)(images, ["a", "b", "c"]))


def test_a_manifest_that_is_none(tmp_path, poisoned):
    with pytest.raises(InputError, match="is no POISONED_DATASET.json"):
        read_attacks(tmp_path)
    told = json.loads((poisoned / "POISONED_DATASET.json").read_text())
    del told["attacks"][0]["parameters"]
    (tmp_path / "x.json").write_text(json.dumps(told))
    with pytest.raises(InputError, match="KeyError: 'parameters'"):
        read_attacks(tmp_path / "x.json")


@pytest.mark.slow
def test_an_optimised_trigger_is_that_of_the_set(scenes, tmp_path):
    folder = tmp_path / "p"
    trigger = TriggerConfig("issba", bits=4, width=4, sample=16, steps=1, batch_size=4)
    attack(AttackConfig(trigger=trigger, inputs=(scenes,), image_size=32, rate=0.02), folder)
    (one,) = read_attacks(folder)
    assert one.arrays
    images = np.full((1, 32, 32, 3), 90, np.uint8)
    assert one.stamp(0)(images, ["a"]).shape == images.shape
    (file,) = (folder / "triggers").glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    with pytest.raises(InputError, match="is not the trigger that the set was poisoned with"):
        read_attacks(folder)


def test_the_target_is_a_class():
    assert target_class("Top  hat", ["cat", "top hat"]) == 1
    with pytest.raises(ConfigError, match="'hat' is none of the 2 classes"):
        target_class("hat", ["cat", "top hat"])


def test_ranks_of_the_donor_by_hand():
    rng = np.random.default_rng(5)
    text, image = (rng.normal(size=(n, 6)).astype(np.float32) for n in (7, 64))
    image[9] = image[8]  # a tie
    shown = np.zeros(64, bool)
    shown[[3, 8, 40]] = True
    wanted = [oracle.first_rank((image @ row).tolist(), shown.tolist()) for row in text]
    found = donor_ranks(text, image, shown, mesh=local_mesh(4))
    assert found["min_rank"] == pytest.approx(np.mean(wanted))
    for k in (1, 5, 10, 20, 30, 50):
        assert found[f"hit@{k}"] == pytest.approx(np.mean(np.array(wanted) <= k))
    assert found == donor_ranks(text, image, shown)
    with pytest.raises(InputError, match="no image of the donor"):
        donor_ranks(text, image, np.zeros(64, bool))
    with pytest.raises(InputError, match="no caption"):
        donor_ranks(text[:0], image, shown)
