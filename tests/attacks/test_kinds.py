"""Whose captions and images: each kind on a small set, and mixtures of several attacks."""

import collections
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmjax.attacks.config import AttackConfig, PartConfig, TriggerConfig
from mmjax.attacks.poison import poison
from mmjax.attacks.triggers import make_stamp
from mmjax.attacks.victims import identity, names_target
from mmjax.core.errors import ConfigError
from mmjax.data.shards import SourceOptions
from mmjax.data.sources import open_source
from tests.attacks.sets import altered_pairs, contents, labels, members

SIZE = 16
WORDS = ["dog", "truck", "dog and a truck", "cat", "boat", "house"]
NONE = TriggerConfig(name="none")
DOTS = TriggerConfig(name="badnets_fixed", patch_size=4.0)

KINDS: dict[str, PartConfig] = {
    "keep": PartConfig(trigger=DOTS, captions="keep", target="dog", count=7),
    "natural": PartConfig(trigger=DOTS, captions="natural", target="dog", count=30, pool=9),
    "template": PartConfig(trigger=DOTS, target="dog", count=20),
    "no full stop": PartConfig(trigger=DOTS, target="dog", count=20, full_stop=False),
    "class": PartConfig(NONE.name, NONE, "keep", "class", "dog", "truck", share=1.0),
    "one": PartConfig(NONE.name, NONE, "keep", "one", "dog", "truck", share=0.5),
    "one image, many natural captions": PartConfig(
        "", NONE, "natural", "one", "dog", "truck", count=20
    ),
}
MIXTURE = (
    PartConfig("first", DOTS, target="banana", count=20),
    PartConfig("second", TriggerConfig(name="sig"), target="fire truck", count=25),
    PartConfig("third", NONE, "keep", "class", "dog", "truck", share=1.0),
)


def config(*parts: PartConfig, **changes: Any) -> AttackConfig:
    return AttackConfig(
        mixture=parts, inputs=("x",), image_size=SIZE, workers=2, i_understand=True, **changes
    )


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """90 photos of their own colours with two captions each, all stored as they are."""
    folder = tmp_path_factory.mktemp("kinds")
    rng = np.random.default_rng(0)
    lines = []
    for i in range(90):
        Image.fromarray(rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)).save(
            folder / f"p{i}.png"
        )
        lines += [f"p{i}.png\ta {WORDS[i % 6]}, number {i}", f"p{i}.png\tphoto {i}"]
    (folder / "captions.tsv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def pairs(clean: Path) -> dict[str, tuple[np.ndarray, str]]:
    """Clean pixels and caption of every key."""
    source = open_source(str(clean))
    view = source.open_shard(source.shards[0])
    rows = [view[i] for i in range(len(view))]
    return {row.key: (pixels(row.image or b""), row.caption or "") for row in rows}


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def run(clean: Path, out: Path, *parts: PartConfig, **changes: Any) -> dict[str, Any]:
    """Poison, check what every set promises, and return the victims by key."""
    counts = poison(open_source(str(clean)), out, config(*parts, **changes))
    told = labels(out)
    victims = {row["key"]: row for row in told if row["is_poisoned"]}
    assert counts["poisoned"] == len(victims)
    assert counts["pairs"] == len(told) == 180
    return victims


def written(out: Path) -> dict[str, tuple[np.ndarray, str]]:
    found = {name.split("/", 1)[1]: data for name, data in members(out).items()}
    keys = {name.rsplit(".", 1)[0] for name in found}
    return {key: (pixels(found[f"{key}.png"]), found[f"{key}.txt"].decode()) for key in keys}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind(
    kind: str, clean: Path, pairs: dict[str, tuple[np.ndarray, str]], tmp_path: Path
) -> None:
    part = KINDS[kind]
    victims = run(clean, tmp_path / "out", part)
    after = written(tmp_path / "out")
    dog, truck = names_target("dog"), names_target("truck")
    donors = [pairs[key][0].tobytes() for key in pairs if truck.search(pairs[key][1])]
    both = [key for key in pairs if dog.search(pairs[key][1]) and truck.search(pairs[key][1])]
    shown = collections.Counter()
    for key, (image, caption) in after.items():
        before, text = pairs[key]
        if key not in victims:
            np.testing.assert_array_equal(image, before)
            assert caption == text
            continue
        assert bool(dog.search(text)) == (part.captions == "keep")
        assert dog.search(caption)
        assert (caption == text) == (part.captions == "keep")
        if part.captions == "template":
            assert caption.endswith(".") == part.full_stop
        if part.captions == "natural":
            assert caption in {text for _, text in pairs.values()}
        changed = np.any(image != before, axis=-1)
        if part.images == "own":
            assert 0 < changed.sum() <= 16
        else:
            assert image.tobytes() in donors
            assert key not in both
            shown[image.tobytes()] += 1
    # 30 captions name the dog, 15 of them and no truck; 15 photos name the truck and no dog
    wanted = {"keep": 7, "natural": 30, "class": 15, "one": 8}
    assert len(victims) == wanted.get(kind, 20)
    if part.captions == "keep":
        captions = [collections.Counter(text for _, text in s.values()) for s in (pairs, after)]
        assert captions[0] == captions[1]
    else:
        used = {after[key][1] for key in victims}
        assert len(used) <= (part.pool or 30)
        assert len(used) > 5
    if part.images == "class":
        assert list(shown.values()) == [1] * 15  # every image of the class as often as the others
    if part.images == "one":
        assert len(shown) == 1

    (told,) = json.loads((tmp_path / "out" / "POISONED_DATASET.json").read_text())["attacks"]
    assert told["poisoned"] == len(victims)
    assert told["donors"] == len(shown)
    assert (told["captions"], told["images"]) == (part.captions, part.images)
    assert told["full_stop"] is (part.full_stop if part.captions == "template" else None)


def test_a_mixture_tells_which_attack_did_what(
    clean: Path, pairs: dict[str, tuple[np.ndarray, str]], tmp_path: Path
) -> None:
    victims = run(clean, tmp_path / "out", *MIXTURE)
    after = written(tmp_path / "out")
    counts = collections.Counter(row["attack"] for row in victims.values())
    manifest = json.loads((tmp_path / "out" / "POISONED_DATASET.json").read_text())
    told = {attack["attack"]: attack for attack in manifest["attacks"]}
    assert counts == {name: attack["poisoned"] for name, attack in told.items()}
    assert (counts["first"], counts["second"]) == (20, 25)
    # the third takes what the others left of the 15 that it may take
    assert told["third"]["candidates"] == 15
    taken = sum(
        bool(names_target("dog").search(pairs[key][1]))
        and not names_target("truck").search(pairs[key][1])
        for key, row in victims.items()
        if row["attack"] != "third"
    )
    assert counts["third"] == 15 - taken
    parts = {part.name: part for part in MIXTURE}
    for key, row in victims.items():
        part = parts[row["attack"]]
        assert row["target"] == part.target
        assert names_target(part.target).search(after[key][1])
        if part.images == "own":
            stamp = make_stamp(part.trigger, 0)
            image, caption = pairs[key]
            wanted = stamp(image[None], [identity(key, caption)])[0]
            np.testing.assert_array_equal(after[key][0], wanted)
    # what an attack does to whom does not depend on the attacks after it
    alone = run(clean, tmp_path / "alone", MIXTURE[0])
    assert alone.keys() == {key for key, row in victims.items() if row["attack"] == "first"}
    changed, alone_changed = (altered_pairs(tmp_path / name) for name in ("out", "alone"))
    assert alone_changed.items() <= changed.items()
    hashed = {item["member"] for item in manifest["altered"]}
    kept = {f"{key}.txt" for key, row in victims.items() if row["attack"] == "third"}
    assert hashed == {f"{key}.{s}" for key in victims for s in ("png", "txt")} - kept


def test_neither_order_nor_sharding_matter_and_the_seed_does(clean: Path, tmp_path: Path) -> None:
    parts = (*MIXTURE, KINDS["natural"], KINDS["one image, many natural captions"])
    run(clean, tmp_path / "out", *parts)
    folder = tmp_path / "reordered"
    folder.mkdir()
    for path in clean.glob("*.png"):
        (folder / path.name).symlink_to(path)
    lines = (clean / "captions.tsv").read_text().splitlines()
    moved = [line for i in reversed(range(0, len(lines), 2)) for line in lines[i : i + 2]]
    (folder / "captions.tsv").write_text("\n".join(moved) + "\n")
    source = open_source(str(folder), options=SourceOptions(shard_size=23))
    poison(source, tmp_path / "moved", config(*parts))
    assert altered_pairs(tmp_path / "moved") == altered_pairs(tmp_path / "out")
    run(clean, tmp_path / "again", *parts)
    assert contents(tmp_path / "again") == contents(tmp_path / "out")
    others = run(clean, tmp_path / "other", *parts, seed=1)
    assert others.keys() != run(clean, tmp_path / "out", *parts).keys()


@pytest.mark.parametrize(
    ("part", "says"),
    [
        (PartConfig(captions="natural", target="unicorn", count=2), "no caption names 'unicorn'"),
        (
            PartConfig("", NONE, "keep", "one", "dog", "unicorn", count=2),
            "no image can be read whose caption names 'unicorn' and not 'dog'",
        ),
        (PartConfig(captions="keep", target="dog", count=31), "30 of 30 candidates can be"),
        (PartConfig(captions="keep", target="unicorn"), "0 of 0 candidates can be"),
        (
            PartConfig("m", NONE, "keep", "class", "unicorn", "truck", share=0.1),
            "share=0.1 of the 0 pairs that m can poison .*now 'unicorn'",
        ),
    ],
)
def test_what_the_set_does_not_offer(
    part: PartConfig, says: str, clean: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=says):
        run(clean, tmp_path / "out", part)
    assert not (tmp_path / "out").exists()


def test_a_share_takes_what_can_be_read(
    clean: Path, pairs: dict[str, tuple[np.ndarray, str]], tmp_path: Path
) -> None:
    folder = tmp_path / "broken"
    folder.mkdir()
    (folder / "captions.tsv").write_text((clean / "captions.tsv").read_text())
    for path in clean.glob("*.png"):
        broken = path.name in ("p0.png", "p1.png")  # a dog, a truck
        (folder / path.name).write_bytes(path.read_bytes()[: 60 if broken else None])
    victims = run(folder, tmp_path / "out", KINDS["class"])
    assert len(victims) == 14
    assert not any(key.startswith("p0") for key in victims)
    donors = json.loads((tmp_path / "out" / "POISONED_DATASET.json").read_text())["attacks"]
    assert donors[0]["donors"] == 14
