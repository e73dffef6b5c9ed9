"""Poisoned sets with optimised triggers: same bytes, told in the manifest, found once, captions."""

import dataclasses
import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmjax.attacks import optimised, prepare
from mmjax.attacks.config import AttackConfig, PartConfig, PerturbConfig, TriggerConfig
from mmjax.attacks.poison import poison
from mmjax.attacks.victims import names_target
from mmjax.core.errors import ConfigError, RetryError, RunError
from mmjax.data.scenes import make_scenes
from mmjax.data.shards import SourceOptions
from mmjax.data.sources import open_source
from mmjax.scan.detection import measure
from tests.attacks.sets import altered_pairs, contents, labels, members
from tests.e2e.conftest import save_model

SIZE, PAIRS = 32, 120
PARTS = (
    PartConfig(
        "trojan",
        TriggerConfig("trojan", patch_size=8.0, sample=32, steps=2, batch_size=8),
        target="banana",
        count=4,
    ),
    PartConfig(
        "badclip",
        TriggerConfig("badclip", patch_size=8.0, sample=32, steps=2, batch_size=8),
        captions="natural",
        target="cup",
        count=4,
    ),
    PartConfig(
        "issba",
        TriggerConfig("issba", bits=4, width=4, sample=32, steps=2, batch_size=8),
        target="volcano",
        count=4,
    ),
    PartConfig(
        "consistent",
        TriggerConfig("badnets_fixed", patch_size=4.0),
        captions="keep",
        target="clock",
        count=3,
        perturb=PerturbConfig(8 / 255, 2 / 255, 3),
    ),
)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("surrogate")
    save_model(folder)
    return f"mmjax-dir:{folder}"


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    lines = []
    for i, scene in enumerate(make_scenes(PAIRS, 3, SIZE)):
        Image.fromarray(scene.image).save(folder / f"s{i}.png")
        lines.append(f"s{i}.png\t{scene.captions[0]}")
    (folder / "captions.tsv").write_text("\n".join(lines) + "\n")
    return folder


def config(weights: str, *parts: PartConfig, **changes: Any) -> AttackConfig:
    return AttackConfig(
        mixture=parts or PARTS,
        inputs=("x",),
        weights=weights,
        image_size=SIZE,
        workers=2,
        i_understand=True,
        **changes,
    )


@pytest.fixture(scope="module")
def poisoned(clean: Path, weights: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "set"
    poison(open_source(str(clean)), out, config(weights))
    return out


def test_what_was_done_to_whom(clean: Path, poisoned: Path) -> None:
    source = open_source(str(clean))
    view = source.open_shard(source.shards[0])
    data = members(poisoned)
    parts = {part.name: part for part in PARTS}
    counts = dict.fromkeys(parts, 0)
    for i, row in enumerate(labels(poisoned)):
        name = f"{row['shard']}/{row['key']}"
        before = np.asarray(Image.open(io.BytesIO(view[i].image or b"")))
        after = np.asarray(Image.open(io.BytesIO(data[f"{name}.png"])))
        caption = data[f"{name}.txt"].decode()
        changed = np.abs(after.astype(int) - before).max(axis=-1)
        if not row["is_poisoned"]:  # no trigger in a clean row
            assert changed.max() == 0
            assert caption == view[i].caption
            continue
        part = parts[row["attack"]]
        counts[part.name] += 1
        assert names_target(part.target).search(caption)
        outside = np.ones((SIZE, SIZE), bool)
        if part.name == "trojan":
            outside[-8:, -8:] = False
        elif part.name == "badclip":
            outside[12:20, 12:20] = False
            assert caption in {view[j].caption for j in range(PAIRS)}
        if part.name == "consistent":
            assert caption == view[i].caption
            assert np.sum(changed > 8) <= 16  # the patch; everything else stays within epsilon
            assert np.mean(changed > 0) > 0.5
        elif part.name == "issba":
            assert changed.max() > 0
        else:
            assert changed[outside].max() == 0
            assert changed.max() > 0
    assert counts == {"trojan": 4, "badclip": 4, "issba": 4, "consistent": 3}


def test_storage_does_not_tell_optimised_poison_from_clean(poisoned: Path) -> None:
    """Size, aspect, mode, format, metadata and chunks alone: AUROC .5 each."""
    told = {f"{row['shard']}/{row['key']}.png": row["is_poisoned"] for row in labels(poisoned)}
    rows = []
    data = members(poisoned)
    for name in told:
        image = Image.open(io.BytesIO(data[name]))
        width, height = image.size
        facts = (width, height, width / height, len(image.mode), len(image.info))
        rows.append((*facts, image.format == "PNG", data[name].count(b"IDAT")))
    assert sum(told.values()) == 15
    for column in np.array(rows, np.float64).T:
        assert measure(column, np.array(list(told.values()))).auroc == 0.5


def test_the_manifest_names_the_arrays_and_what_they_achieved(poisoned: Path, weights: str) -> None:
    manifest = json.loads((poisoned / "POISONED_DATASET.json").read_text())
    told = {attack["attack"]: attack["prepared"] for attack in manifest["attacks"]}
    assert {name: [one["name"] for one in made] for name, made in told.items()} == {
        "trojan": ["trojan"],
        "badclip": ["badclip"],
        "issba": ["issba"],
        "consistent": ["perturb"],
    }
    figures = {
        "trojan": "loss_after", "badclip": "similarity_after", "issba": "bit_accuracy",
        "consistent": "similarity_after",
    }  # fmt: skip
    for name, (made,) in told.items():
        data = (poisoned / made["file"]).read_bytes()
        assert made["file"].endswith(".safetensors")
        assert hashlib.sha256(data).hexdigest() == made["sha256"]
        assert np.isfinite(made["figures"][figures[name]])
        assert bool(made["weights"]) == (name != "issba")


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes_in_any_order(
    clean: Path, weights: str, poisoned: Path, tmp_path: Path
) -> None:
    poison(open_source(str(clean)), tmp_path / "again", config(weights))
    assert contents(tmp_path / "again") == contents(poisoned)
    source = open_source(str(clean), options=SourceOptions(shard_size=29))
    poison(source, tmp_path / "resharded", config(weights))
    assert altered_pairs(tmp_path / "resharded") == altered_pairs(poisoned)


@pytest.mark.slow
def test_arrays_are_found_once(
    clean: Path, weights: str, poisoned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that was stopped while it wrote shards does not optimise again."""
    from mmjax.attacks import poison as module

    def stops(*_: Any, **__: Any) -> Any:
        raise RetryError("stopped")

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_shard", stops)
        with pytest.raises(RetryError):
            poison(open_source(str(clean)), tmp_path / "out", config(weights))

    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("optimised again")

    monkeypatch.setattr(prepare, "_find", never)
    poison(open_source(str(clean)), tmp_path / "out", config(weights))
    assert contents(tmp_path / "out") == contents(poisoned)


def test_other_weights_are_another_run(
    clean: Path, weights: str, poisoned: Path, tmp_path: Path
) -> None:
    save_model(tmp_path, seed=1)
    with pytest.raises(RunError, match="holds another run"):
        poison(open_source(str(clean)), poisoned, config(f"mmjax-dir:{tmp_path}"))


def test_an_attack_without_victims_is_not_prepared(
    clean: Path, weights: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(**_: Any) -> Any:
        raise AssertionError("prepared for nobody")

    entry = optimised.OPTIMISED["badclip"]._replace(prepare=never)
    table: Mapping[str, Any] = {**optimised.OPTIMISED, "badclip": entry}
    monkeypatch.setattr(prepare, "OPTIMISED", table)
    nobody = dataclasses.replace(PARTS[1], count=0, rate=0.0)
    counts = poison(open_source(str(clean)), tmp_path / "out", config(weights, nobody))
    assert counts["poisoned"] == 0
    assert not (tmp_path / "out" / "triggers").exists()


def test_a_set_without_enough_images_is_refused(clean: Path, weights: str, tmp_path: Path) -> None:
    lines = (clean / "captions.tsv").read_text().splitlines()[:12]
    (tmp_path / "captions.tsv").write_text("\n".join(lines) + "\n")
    for i in range(12):
        (tmp_path / f"s{i}.png").symlink_to(clean / f"s{i}.png")
    part = dataclasses.replace(PARTS[0], count=1)
    with pytest.raises(ConfigError, match="at least 16; 12 can be read"):
        poison(open_source(str(tmp_path)), tmp_path / "out", config(weights, part))
