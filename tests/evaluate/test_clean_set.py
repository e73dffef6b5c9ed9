"""A poisoned set made from clean embeddings equals a scan of the shards that `attack` writes."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from mmjax.attacks.config import AttackConfig, PartConfig, TriggerConfig
from mmjax.attacks.poison import attack
from mmjax.core.errors import InputError
from mmjax.core.types import Pair
from mmjax.evaluate import clean_set
from mmjax.evaluate.clean_set import CleanSet, embed_pairs, open_clean_set, plant
from mmjax.scan import stages
from mmjax.scan.config import EncodeConfig, ScanConfig
from mmjax.scan.pipeline import open_scan, run_scan
from mmjax.scan.prepare import read_labels
from tests.e2e.conftest import World, embeddings, verdicts

SIZE = 32
MIXED = (
    PartConfig(trigger=TriggerConfig(name="badnets", patch_size=6.0), target="clock", count=9),
    PartConfig(name="two", trigger=TriggerConfig(name="sig"), target="banana", count=4),
    PartConfig(
        name="mmpoison",
        trigger=TriggerConfig(name="none"),
        captions="keep",
        images="class",
        target="bird",
        donor="guitar",
        count=2,
    ),
)


def scan_config(world: World, inputs: Path) -> ScanConfig:
    return ScanConfig(
        inputs=(str(inputs),),
        weights=world.weights,
        mapping=str(world.mapping),
        encode=EncodeConfig(batch_size=16, precision="float32"),
    )


@pytest.fixture(scope="module")
def clean(world: World, tmp_path_factory: pytest.TempPathFactory) -> CleanSet:
    folder = tmp_path_factory.mktemp("clean")
    return open_clean_set(scan_config(world, world.shards), folder / "set")


@pytest.fixture
def mixed(clean: CleanSet) -> AttackConfig:
    return AttackConfig(inputs=clean.config.inputs, mixture=MIXED, image_size=SIZE, seed=3)


@pytest.mark.slow
def test_planting_equals_scanning_the_poisoned_shards(
    clean: CleanSet, mixed: AttackConfig, world: World, tmp_path: Path
) -> None:
    attack(mixed, tmp_path / "poisoned")
    run_scan(scan_config(world, tmp_path / "poisoned"), tmp_path / "run")
    table, labels = (
        verdicts(tmp_path / "run"),
        read_labels(tmp_path / "poisoned" / "poison_labels.parquet"),
    )
    made = plant(clean, mixed)
    assert labels is not None
    assert made.captions == table["caption"].to_pylist()
    assert made.attack == labels["attack"].to_pylist()
    assert np.count_nonzero(made.poisoned) == 15
    with open_scan(tmp_path / "run") as scan:
        for ours, theirs in zip(made.blocks, scan.scanned.blocks, strict=True):
            np.testing.assert_array_equal(ours.image, theirs.image)
            np.testing.assert_array_equal(ours.text, theirs.text)
    scores = stages.score(made.blocks, clean.mapping, clean.config.stages).scores
    told = np.array(stages.VERDICTS)[scores.verdict].tolist()
    assert told == table["verdict"].to_pylist()
    for name in ("consistency", "text_correlation", "poison_score"):
        np.testing.assert_array_equal(getattr(scores, name), table[name].to_numpy())


def test_what_an_attack_changed_is_embedded_once(
    clean: CleanSet, mixed: AttackConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = plant(clean, mixed)
    monkeypatch.setattr(clean_set, "poisoned_pairs", None)
    again = plant(clean, mixed)
    assert (again.captions, again.attack) == (first.captions, first.attack)
    for one, two in zip(first.blocks, again.blocks, strict=True):
        np.testing.assert_array_equal(one.image, two.image)
        np.testing.assert_array_equal(one.text, two.text)


def test_nothing_planted_is_the_clean_set(clean: CleanSet, mixed: AttackConfig) -> None:
    nothing = dataclasses.replace(mixed, mixture=(), rate=0.0)
    for made in (plant(clean, None), plant(clean, nothing)):
        assert not made.poisoned.any()
        assert made.captions == list(clean.captions)
        for ours, theirs in zip(made.blocks, clean.blocks, strict=True):
            assert ours.image is theirs.image
            assert ours.text is theirs.text


def test_a_pair_that_cannot_be_embedded_is_told(clean: CleanSet) -> None:
    with pytest.raises(InputError, match="cannot be embedded: undecodable_image"):
        embed_pairs(clean.encoder, [Pair("a", b"no image", "a clock")])


def test_embeddings_cannot_be_poisoned(tmp_path: Path) -> None:
    embeddings(tmp_path / "set", 60, seed=1)
    embeddings(tmp_path / "reference", 60, seed=2)
    config = ScanConfig(inputs=(str(tmp_path / "set"),), reference=(str(tmp_path / "reference"),))
    config = dataclasses.replace(config, fit=dataclasses.replace(config.fit, kind="ridge"))
    with pytest.raises(InputError, match="holds embeddings; attacks want images"):
        open_clean_set(config, tmp_path / "run")
