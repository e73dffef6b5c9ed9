"""Poisoned sets: the right rows, the same storage for all, the same bytes each time."""

import dataclasses
import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mmjax.attacks.config import AttackConfig, TriggerConfig
from mmjax.attacks.poison import attack, poison
from mmjax.core.errors import ConfigError, InputError, RetryError, RunError
from mmjax.data.sources import open_source
from mmjax.scan.detection import join_truth, measure
from tests.attacks.sets import altered_pairs, contents, labels, members

PHOTOS, CAPTIONS = 24, 5
SIZE = 32


@pytest.fixture(scope="session")
def clean_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 pairs of 24 photos of various sizes and formats, and some rows that cannot be used."""
    folder = tmp_path_factory.mktemp("clean")
    rng = np.random.default_rng(0)
    lines = []
    for i in range(PHOTOS):
        size = (int(rng.integers(40, 90)), int(rng.integers(40, 90)), 3)
        smooth = np.linspace(0, 200, size[0] * size[1] * 3).reshape(size)
        photo = Image.fromarray((smooth + rng.integers(0, 55, size)).astype(np.uint8))
        name = f"photo{i}.{'png' if i % 4 == 0 else 'jpg'}"
        photo.save(folder / name, quality=int(rng.integers(60, 95)))
        lines += [f"{name}\tcaption {j} of photo {i}" for j in range(CAPTIONS - 1)]
        lines.append(f"{name}\t{'a banana on a table' if i < 6 else f'the last of photo {i}'}")
    (folder / "broken.jpg").write_bytes((folder / "photo1.jpg").read_bytes()[:300])
    lines += ["broken.jpg\ta broken photo", "absent.jpg\tno photo", "photo2.jpg\t "]
    (folder / "captions.tsv").write_text("\n".join(lines) + "\n")
    return folder


def config(folder: Path, **changes: Any) -> AttackConfig:
    trigger = TriggerConfig(name="badnets_fixed", patch_size=6.0)
    made = AttackConfig(
        inputs=(str(folder),), trigger=trigger, rate=0.1, image_size=SIZE, workers=2
    )
    return dataclasses.replace(made, **changes)


@pytest.fixture(scope="session")
def poisoned(clean_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("poisoned") / "out"
    attack(config(clean_set), out)
    return out


def test_counts_order_and_captions(clean_set: Path, poisoned: Path) -> None:
    before, after = open_source(str(clean_set)), open_source(str(poisoned))
    assert after.kind == "webdataset"
    clean = before.open_shard(before.shards[0])
    dirty = after.open_shard(after.shards[0])
    told = labels(poisoned)
    assert len(clean) == len(dirty) == len(told) == PHOTOS * CAPTIONS + 3

    # 121 rows are ok to the reader (the broken photo is found out later): 10 % are 12
    assert sum(row["is_poisoned"] for row in told) == 12
    for i, row in enumerate(told):
        assert (row["shard"], row["ordinal"]) == (after.shards[0].name, i)
        assert row["key"] == dirty[i].key
        if row["is_poisoned"]:
            assert "banana" not in (clean[i].caption or "")
            assert "banana" in (dirty[i].caption or "")
            assert (row["attack"], row["target"]) == ("badnets_fixed", "banana")
        else:
            assert dirty[i].caption == clean[i].caption
            assert (row["attack"], row["target"]) == ("", "")

    # rows that cannot be used come through as they are
    assert clean[120].image == dirty[120].image
    assert [dirty[i].status for i in (120, 121, 122)] == ["ok", "missing_image", "missing_caption"]


def test_only_the_patch_of_a_poisoned_image_changed(clean_set: Path, poisoned: Path) -> None:
    reference = poisoned.parent / "unpoisoned"
    counts = attack(config(clean_set, rate=0.0), reference)
    assert (counts["pairs"], counts["poisoned"]) == (123, 0)
    before, after = members(reference), members(poisoned)
    assert not any(row["is_poisoned"] for row in labels(reference))
    bad = {f"{row['shard']}/{row['key']}.png" for row in labels(poisoned) if row["is_poisoned"]}
    assert before.keys() == after.keys()
    for name, data in after.items():
        if name not in bad:
            assert data == before[name] or name.replace(".txt", ".png") in bad
            continue
        old, new = (np.asarray(Image.open(io.BytesIO(d))) for d in (before[name], data))
        changed = np.argwhere(np.any(old != new, axis=-1))
        assert 0 < len(changed) <= 36
        assert np.all(np.ptp(changed, axis=0) < 6)


def test_manifest(poisoned: Path) -> None:
    manifest = json.loads((poisoned / "POISONED_DATASET.json").read_text())
    (told,) = manifest["attacks"]
    assert (told["attack"], told["trigger"], told["captions"]) == ("badnets_fixed",) * 2 + (
        "template",
    )
    assert told["parameters"] == {"patch_size": 6.0, "location": "random"}
    assert (told["candidates"], told["poisoned"], told["donors"]) == (115, 12, 0)
    assert told["full_stop"] is True
    assert manifest["counts"] == {
        "shards": 1, "pairs": 123, "usable": 121, "candidates": 115, "poisoned": 12
    }  # fmt: skip
    data = members(poisoned)
    assert len(manifest["altered"]) == 24
    for item in manifest["altered"]:
        found = data[f"{item['shard']}/{item['member']}"]
        assert hashlib.sha256(found).hexdigest() == item["sha256"]


@pytest.mark.usefixtures("keys_checked")
def test_same_seed_same_bytes_other_seed_other_victims(clean_set: Path, poisoned: Path) -> None:
    again = poisoned.parent / "again"
    attack(config(clean_set, workers=1), again)
    assert contents(again) == contents(poisoned)
    other = poisoned.parent / "other"
    attack(config(clean_set, seed=1), other)
    victims = [{r["key"] for r in labels(out) if r["is_poisoned"]} for out in (poisoned, other)]
    assert victims[0] != victims[1]


def test_victims_depend_neither_on_the_order_nor_on_the_sharding(
    clean_set: Path, poisoned: Path
) -> None:
    from mmjax.data.shards import SourceOptions

    folder = poisoned.parent / "reordered"
    folder.mkdir()
    lines = (clean_set / "captions.tsv").read_text().splitlines()
    groups = [lines[i : i + CAPTIONS] for i in range(0, PHOTOS * CAPTIONS, CAPTIONS)]
    moved = [line for group in reversed(groups) for line in group]
    (folder / "captions.tsv").write_text("\n".join(moved + lines[PHOTOS * CAPTIONS :]) + "\n")
    for path in clean_set.glob("photo*"):
        (folder / path.name).symlink_to(path)
    (folder / "broken.jpg").symlink_to(clean_set / "broken.jpg")
    source = open_source(str(folder), options=SourceOptions(shard_size=7))
    assert len(source.shards) == 18
    poison(source, poisoned.parent / "resharded", config(clean_set))
    assert altered_pairs(poisoned.parent / "resharded") == altered_pairs(poisoned)


@pytest.mark.parametrize("attack_name", ["dots", "another's image"])
def test_storage_does_not_tell_poison_from_clean(
    attack_name: str, clean_set: Path, poisoned: Path, tmp_path: Path
) -> None:
    """Size, shape, mode, format, chunks and tar headers alone: AUROC .5 each."""
    if attack_name != "dots":
        swap = {"captions": "keep", "images": "class", "target": "banana", "donor": "last"}
        changes = {**swap, "trigger": TriggerConfig(name="none"), "share": 1.0, "name": "swap"}
        poisoned = tmp_path / "out"
        assert attack(config(clean_set, **changes), poisoned)["poisoned"] == 6
    told = {f"{row['key']}": row for row in labels(poisoned)}
    features: dict[str, list[tuple[Any, ...]]] = {"png": [], "txt": []}
    truth: dict[str, list[bool]] = {"png": [], "txt": []}
    for path in poisoned.glob("*.tar"):
        with tarfile.open(path) as tar:
            for entry in tar:
                key, suffix = entry.name.rsplit(".", 1)
                if suffix not in features or int(key.startswith(("broken", "absent", "photo2#5"))):
                    continue
                header = (entry.mtime, entry.mode, entry.uid, entry.gid, len(entry.pax_headers))
                file = tar.extractfile(entry)
                data = file.read() if file else b""
                shape: tuple[Any, ...] = ()
                if suffix == "png":
                    image = Image.open(io.BytesIO(data))
                    shape = (*image.size, len(image.mode), len(image.info), data.count(b"IDAT"))
                    assert image.format == "PNG"
                    assert image.mode == "RGB"
                features[suffix].append(header + shape)
                truth[suffix].append(told[key]["is_poisoned"])
    for suffix, rows in features.items():
        columns = np.array(rows, np.float64).T
        assert len(columns) == (10 if suffix == "png" else 5)
        for column in columns:
            assert measure(column, np.array(truth[suffix])).auroc == 0.5


def test_original_geometry_keeps_clean_files(clean_set: Path, tmp_path: Path) -> None:
    attack(config(clean_set, geometry="original"), tmp_path / "out")
    before, after = open_source(str(clean_set)), open_source(str(tmp_path / "out"))
    clean, dirty = (s.open_shard(s.shards[0]) for s in (before, after))
    for i, row in enumerate(labels(tmp_path / "out")):
        assert (clean[i].image == dirty[i].image) != row["is_poisoned"]


def test_captions_of_one_photo_keep_their_clean_image(poisoned: Path) -> None:
    data = members(poisoned)
    bad = [row for row in labels(poisoned) if row["is_poisoned"]]
    good = {row["key"] for row in labels(poisoned) if not row["is_poisoned"]}
    shared = 0
    for row in bad:
        stem, number = row["key"].split("#")
        for other in (f"{stem}#{n}" for n in range(CAPTIONS) if str(n) != number):
            if other in good:
                shared += 1
                assert (
                    data[f"{row['shard']}/{other}.png"] != data[f"{row['shard']}/{row['key']}.png"]
                )
    assert shared


def test_an_interrupted_run_goes_on(
    clean_set: Path, poisoned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mmjax.attacks import poison as module
    from mmjax.data.shards import SourceOptions

    source = open_source(str(clean_set), options=SourceOptions(shard_size=41))
    whole, broken = poisoned.parent / "whole", poisoned.parent / "interrupted"
    poison(source, whole, config(clean_set))
    written = []
    genuine = module.write_shard

    def stops_at_the_second(view: Any, *rest: Any) -> Any:
        if written:
            raise RetryError("stopped")
        written.append(view)
        return genuine(view, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_shard", stops_at_the_second)
        with pytest.raises(RetryError):
            poison(source, broken, config(clean_set))
    assert len(list(broken.glob("*.tar"))) == 1
    assert not (broken / "POISONED_DATASET.json").exists()
    poison(source, broken, config(clean_set))
    assert contents(broken) == contents(whole)


def test_refusals(clean_set: Path, poisoned: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in clean_set.iterdir()}
    with pytest.raises(RunError, match="choose an empty"):
        attack(config(clean_set), clean_set)
    assert {path: path.read_bytes() for path in clean_set.iterdir()} == before
    with pytest.raises(RunError, match="another run"):
        attack(config(clean_set, seed=9), poisoned)
    with pytest.raises(InputError, match="poisoned already"):
        attack(config(poisoned), tmp_path / "twice")
    with pytest.raises(ConfigError, match="i_understand"):
        attack(config(clean_set, count=20), tmp_path / "many")
    with pytest.raises(ConfigError, match="lower --rate"):
        attack(config(clean_set, count=119, i_understand=True), tmp_path / "most")
    assert list(tmp_path.iterdir()) == []  # refused before anything was written


def test_labels_meet_the_rows_of_a_scan(poisoned: Path) -> None:
    told = pq.read_table(poisoned / "poison_labels.parquet")
    verdicts = told.select(["shard", "ordinal", "key"])
    assert join_truth(verdicts, told)["truth"].to_pylist() == told["is_poisoned"].to_pylist()
