"""MEM's tables: what each set is made with, recipes, and whole tables on a few scenes."""

import base64
import dataclasses
import io
import json

import numpy as np
import pytest
from PIL import Image

from mmjax.core.config import parse
from mmjax.core.config_file import from_file
from mmjax.core.errors import ConfigError, InputError
from mmjax.data.scenes import scene_arrays
from mmjax.data.sources import open_source
from mmjax.evaluate import mem, mem_faces, mem_figures, mem_plots, mem_victims
from mmjax.evaluate.experiment import MemConfig, ReproduceConfig
from mmjax.evaluate.mem_methods import PROTECTIONS, method
from mmjax.evaluate.mem_pages import (
    write_partial,
    write_robustness,
    write_sets,
    write_table2,
    write_table3,
    write_table4,
)
from mmjax.evaluate.mem_sets import Recipe, Workshop
from mmjax.evaluate.mem_settings import settings
from mmjax.evaluate.tables import write_results
from mmjax.models import presets
from mmjax.protect.config import ProtectConfig
from tests.conftest import ROOT
from tests.protect.conftest import MODEL


def check(name, config):
    """A protection of a configuration is valid, and its surrogate a model."""
    told = parse(
        ProtectConfig,
        {"inputs": ("x",), "output": "shards", **method(name, settings(config), "tokenizer.json")},
    )
    assert told.epsilon == 8
    assert bool(told.trigger_length) == ("trigger" in name or "prefix" in name or "mem" in name)
    assert (told.noise.goal == "maximise") == name.startswith("uap")
    assert told.noise.shuffle == (name.startswith("mem") and name != "mem_plus")
    model = told.surrogate.model
    assert model.preset in presets.PRESETS, "the experiments' default is a model"
    assert model.weights == config.weights
    assert bool(model.weights) != bool(model.tokenizer)
    return told


@pytest.mark.parametrize("name", PROTECTIONS)
def test_every_set_is_a_valid_protection(name):
    small, paper = (check(name, ReproduceConfig(scale=scale)) for scale in ("small", "paper"))
    assert small.noise.scope == "image"
    assert paper.noise.scope == ("image" if name == "mem_plus" else "pair")
    assert paper.surrogate.model.preset == "RN50"


def test_sets_differ():
    made = {name: str(method(name, settings(ReproduceConfig()), "")) for name in PROTECTIONS}
    assert len(set(made.values())) == len(made)


PAPERS = sorted((ROOT / "configs" / "reproduce").glob("mem_*.py"))


@pytest.mark.parametrize("file", PAPERS, ids=lambda file: file.stem)
def test_configurations_of_paper_scale_parse(file):
    config = parse(ReproduceConfig, from_file(f"reproduce/{file.stem}"))
    assert config.scale == "paper"
    assert config.data
    told = settings(config)
    assert [spec.rpartition(":")[2] for spec in told.victims] == ["RN50", "RN101", "ViT-B-32"]
    assert told.surrogate == told.victims[0]
    assert (told.batch_size, told.context_length) == (128, 77)
    pairs = {"mem_flickr8k": 30_000, "mem_flickr30k": 145_000, "mem_coco": 566_435}
    if file.stem == "mem_faces":
        assert told.steps == 10 * (58_797 // 128)
        assert told.learning_rate == 1e-5
    else:
        assert told.steps == pytest.approx(32 * pairs[file.stem] / 128, rel=1e-3)
    for name in PROTECTIONS:
        check(name, config)
    assert f"--config=reproduce/{file.stem} " in file.read_text()


def test_the_scale_fills_what_is_not_said_and_weights_go_before():
    said = ReproduceConfig(mem=MemConfig(photos=7, model="demo"))
    assert (settings(said).photos, settings(said).surrogate, settings(said).rounds) == (
        7,
        "demo",
        4,
    )
    given = dataclasses.replace(said, weights="mmjax-dir:x")
    assert settings(given).surrogate == "mmjax-dir:x"
    assert settings(given).victims == ("mmjax-dir:x",)
    with pytest.raises(ConfigError, match="KIND:FOLDER, got 'demo'"):
        settings(dataclasses.replace(said, weights="demo"))


@pytest.fixture(scope="module")
def tiny():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(presets.PRESETS, "tiny", MODEL)
        other = dataclasses.replace(MODEL.vision, patch_size=8)
        patch.setitem(
            presets.PRESETS, "other", dataclasses.replace(MODEL, name="other", vision=other)
        )
        yield MODEL


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Scenes as a folder with captions.tsv and splits."""
    folder = tmp_path_factory.mktemp("scenes")
    (folder / "images").mkdir()
    scenes = scene_arrays(36, 5, 32, captions=2)
    captions, splits = [], []
    for i, (pixels, texts) in enumerate(zip(scenes.images, scenes.captions, strict=True)):
        Image.fromarray(pixels).save(folder / "images" / f"{i}.png")
        captions += [f"{i}.png\t{text}\n" for text in texts]
        splits.append(f"{i}.png\t{'train' if i < 24 else 'test'}\n")
    (folder / "captions.tsv").write_text("".join(captions))
    (folder / "splits.tsv").write_text("".join(splits))
    return folder


def small(data, tiny, **mem):
    options = {
        "photos": 20,
        "test_photos": 10,
        "captions": 2,
        "vocab_size": 640,
        "context_length": 32,
    }
    options |= {"rounds": 1, "surrogate_steps": 2, "steps": 4, "batch_size": 8, "model": tiny.name}
    return ReproduceConfig(data=str(data), seeds=(0,), mem=MemConfig(**options | mem))


def pairs_of(folder):
    source = open_source(str(folder))
    (shard,) = source.shards
    view = source.open_shard(shard)
    return [view[i] for i in range(len(view))]


def pixels_of(pair):
    return np.asarray(Image.open(io.BytesIO(pair.image)))


@pytest.fixture(scope="module")
def workshop(data, tiny, tmp_path_factory):
    return Workshop(small(data, tiny), tmp_path_factory.mktemp("shop"), lambda line: None)


def test_the_first_photos_and_captions_of_each_split_are_taken(data, tiny, workshop):
    train, test = (pairs_of(workshop.pairs(part)) for part in ("train", "test"))
    lines = [line.split("\t") for line in (data / "captions.tsv").read_text().splitlines()]
    texts = [text for _, text in lines]
    assert [p.caption for p in train] == texts[:40]
    assert [p.caption for p in test] == texts[48:68]
    first = np.asarray(Image.open(data / "images" / lines[2][0]))
    np.testing.assert_array_equal(pixels_of(train[2]), first)
    one = small(data, tiny, captions=1)
    told = Workshop(one, workshop.root / "one", workshop.say).pairs("train")
    assert [p.caption for p in pairs_of(told)] == texts[:40:2]


def test_recipes_mix_spare_and_change_photos(workshop):
    clean = pairs_of(workshop.protected("clean", 0))
    told = pairs_of(workshop.protected("random_trigger", 0))
    assert [p.image for p in told] == [p.image for p in clean]
    assert all(t.caption.endswith(f" {c.caption}") for t, c in zip(told, clean, strict=True))

    def made(**options):
        recipe = Recipe("", "random_trigger", "random_trigger")._replace(**options)
        return pairs_of(workshop.training_set(recipe, 0))

    assert [p.caption for p in made(captions="clean")] == [p.caption for p in clean]
    grey = made(attacker="grey")
    for changed, plain in zip(grey, clean, strict=True):
        luma = np.asarray(Image.fromarray(pixels_of(plain)).convert("L"))
        np.testing.assert_array_equal(pixels_of(changed), np.repeat(luma[..., None], 3, axis=2))
    spared = {}
    for share in (0.25, 0.75):
        mixed, rest = made(share=share), made(share=share, part="clean")
        is_clean = [m.caption == c.caption for m, c in zip(mixed, clean, strict=True)]
        assert is_clean[::2] == is_clean[1::2], "a photo's captions go together"
        assert sum(is_clean[::2]) == round((1 - share) * 20)
        kept = [c.caption for c, there in zip(clean, is_clean, strict=True) if there]
        assert [p.caption for p in rest] == kept
        spared[share] = set(kept)
    assert spared[0.75] < spared[0.25]


def test_what_withstands_its_attackers_is_told(tmp_path):
    """Own photos first; mem-plus is compared with EM and MEM-3 under what publishing does."""
    titles = {"em_matched": "EM", "mem_3": "MEM-3", "mem_plus": "mem-plus"}
    hits = {"strip": (40.0, 98.0, 10.0), "jpeg_75": (50.0, 30.0, 90.0)}
    rows = [
        {"name": f"{name}+{attacker}", "set": titles[name], "attacker": attacker, "seed": seed,
         "own_image_to_text_hit@10": hit + seed, "image_to_text_hit@10": 3.0,
         "text_to_image_hit@10": 2.5}
        for attacker, all_of_it in hits.items()
        for name, hit in zip(titles, all_of_it, strict=True)
        for seed in (0, 1)
    ]  # fmt: skip
    chance = {"image_to_text_hit@10": 2.0, "text_to_image_hit@10": 2.0}
    chance |= {"own_image_to_text_hit@10": 1.0, "own_photos": 1_000}
    rows.append({"name": "chance", "set": "chance", "seed": None, **chance})
    write_results(tmp_path / "r.json", rows, title="t", command="c")
    write_robustness(tmp_path / "r.json", tmp_path / "r.md")
    page = (tmp_path / "r.md").read_text()
    own = page.index("own photos, image → text, Hit@10 (chance 1.0)")
    assert own < page.index("\nimage → text, Hit@10 (chance 2.0)")
    assert "| triggers cut off | 40.5 ± 0.7 | 98.5 ± 0.7 | 10.5 ± 0.7 |" in page
    assert "triggers cut off: mem-plus is learned less than EM: **holds**" in page
    assert "triggers cut off: mem-plus is learned less than MEM-3: **holds**" in page
    assert "JPEG 75: mem-plus is learned less than EM: **does not hold**" in page


@pytest.mark.slow
def test_whole_tables_resume_and_are_written(data, tiny, tmp_path, monkeypatch):
    config = small(data, tiny, sets=("clean", "mem_plus", "mem_plus_strip"))
    config = dataclasses.replace(config, seeds=(0, 1))
    said: list[str] = []
    rows = mem.table1(config, tmp_path, said.append)
    assert [(row["name"], row["seed"]) for row in rows] == [
        *((name, seed) for seed in (0, 1) for name in config.mem.sets),
        ("chance", None),
    ]
    assert any(line.endswith("0 to go: 0:00") for line in said)
    for prefix in ("", "own_", "prefixed_"):
        figure = f"{prefix}image_to_text_hit@10"
        assert all(0 <= row[figure] <= 100 for row in rows if row["seed"] is not None)
    (root,) = (tmp_path / "cells").glob("*")
    names = ("clean-0", "mem_plus-0")
    clean, protected = (pairs_of(root / "sets" / name / "shards") for name in names)
    (mixed,) = (root / "mixed").glob("*-0")
    stripped = pairs_of(mixed)
    assert [p.image for p in stripped] == [p.image for p in protected]
    assert [p.image for p in stripped] != [p.image for p in clean]
    assert [p.caption for p in stripped] == [p.caption for p in clean]
    other = dataclasses.replace(config, seeds=(0,))
    sets = ("clean", "mem_plus")
    attackers = ("none", "strip_grey", "crop", "augment", "adversarial", "loss_filter")
    chosen = {
        "robustness": {"sets": sets, "attackers": attackers},
        "partial": {"sets": sets[1:], "shares": (0.0, 0.5, 1.0)},
    }
    pages = {"table1": write_sets, "robustness": write_robustness, "partial": write_partial}
    made = {"table1": rows}
    for name, options in chosen.items():
        own = dataclasses.replace(other, mem=dataclasses.replace(other.mem, **options))
        made[name] = getattr(mem, name)(own, tmp_path, said.append)
    wanted = {
        "table1": "| mem-plus, triggers cut off | ",
        "robustness": "| triggers cut off, grey-scale | –",
        "partial": "| 50% |",
    }
    for name, write in pages.items():
        write_results(tmp_path / "r.json", made[name], title="t", command="c")
        write(tmp_path / "r.json", tmp_path / "r.md")
        page = (tmp_path / "r.md").read_text()
        assert wanted[name] in page
    assert json.loads((tmp_path / "r.json").read_text())["rows"][0]["set"] == "mem-plus"
    monkeypatch.setattr(mem_victims, "train_victim", lambda *args: pytest.fail("measured again"))
    assert mem.table1(config, tmp_path, said.append) == rows
    longer = dataclasses.replace(config, mem=dataclasses.replace(config.mem, steps=5))
    with pytest.raises(pytest.fail.Exception, match="measured again"):
        mem.table1(longer, tmp_path, said.append)


@pytest.mark.slow
def test_figures_and_table3_are_measured_and_drawn(data, tiny, tmp_path):
    config = small(data, tiny, sets=("clean", "mem_natural"))
    for run, write, wanted in (
        (mem_figures.figure5, mem_plots.write_figure5, "attribution on the first three words"),
        (mem_figures.figure6, mem_plots.write_figure6, "captions of one photo"),
        (mem.table3, write_table3, "| MEM-3, natural triggers | 0 | -"),
    ):
        rows = run(config, tmp_path, lambda line: None)
        write_results(tmp_path / "r.json", rows, title="t", command="c")
        write(tmp_path / "r.json", tmp_path / "r.md")
        assert wanted in (tmp_path / "r.md").read_text()
        if run is mem_figures.figure5:
            clean, natural = rows
            assert clean["like_clean"] == pytest.approx(1, abs=1e-5)
            assert natural["like_clean"] < 0.999
            assert all(0 <= row["first_words"] <= 1 for row in rows)
            assert all(row["completeness_gap"] < 1e-2 for row in rows)
            assert len(clean["pixels"]) == len(natural["heat"]) == mem_figures.SHOWN
        if run is mem_figures.figure6:
            for row in rows:
                assert len(row["images_at"]) == 20
                assert len(row["captions_at"]) == len(row["owners"]) == 40
    size = (tmp_path / "r.png").stat().st_size
    assert size > 10_000


def test_an_unknown_set_is_refused(data, tiny, tmp_path):
    with pytest.raises(ConfigError, match="unknown 'mem_4'; known: clean, em_paper"):
        mem.table1(small(data, tiny, sets=("mem_4",)), tmp_path, lambda line: None)


PEOPLE, EACH = 4, 7


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    """A folder a person; a fifth person has too few photos."""
    folder = tmp_path_factory.mktemp("faces")
    for person in range(PEOPLE + 1):
        own = folder / f"person {person}"
        own.mkdir()
        count = EACH if person < PEOPLE else 2
        for i, pixels in enumerate(scene_arrays(count, 10 + person, 32, captions=1).images):
            Image.fromarray(pixels).save(own / f"{i}.png")
    return folder


def of_faces(faces, tiny, **mem):
    few = {"person_photos": 3, "person_test_photos": 2, "batch_size": 4}
    return small(faces, tiny, **few | mem)


def test_new_photos_of_people_are_in_no_training_set(faces, tiny):
    config = of_faces(faces, tiny)
    train, test = (mem_faces.read_faces(config, part) for part in ("train", "test"))
    assert (len(train.images), len(test.images)) == (3 * PEOPLE, 2 * PEOPLE)
    used = {image.tobytes() for image in train.images[:]} | {i.tobytes() for i in test.images[:]}
    assert len(used) == 5 * PEOPLE, "disjoint, and no photo twice"
    asked, people = mem_faces.people_of(test)
    assert people.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    for number, own in enumerate(train.captions):
        name = asked[number // 3].removeprefix("a photo of ")
        assert len(set(own)) == 2
        assert all(name in caption for caption in own)
        files = (faces / f"person {number // 3}").iterdir()
        pixels = {np.asarray(Image.open(p)).tobytes() for p in files}
        assert train.images[number].tobytes() in pixels, "names go with people"
    with pytest.raises(InputError, match="no two people with more than 7 photos"):
        mem_faces.read_faces(of_faces(faces, tiny, person_test_photos=7), "test")


def decoded(png):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(png)))).astype(int)


def test_invented_names_are_all_different():
    told = [name.split() for name in mem_faces.names(380)]
    assert all(len(set(part)) == 380 for part in zip(*told, strict=True))
    assert mem_faces.names(5) == mem_faces.names(380)[:5]


@pytest.mark.slow
def test_faces_are_protected_and_asked_about(faces, tiny, tmp_path, monkeypatch):
    config = of_faces(faces, tiny, sets=("clean", "mem_3"), victims=("tiny", "other"))
    rows = mem_faces.table4(config, tmp_path, lambda line: None)
    names = ["clean", "mem_3", "clean@other", "mem_3@other"]
    assert [row["name"] for row in rows] == ["before@tiny", "before@other", *names, "chance"]
    assert (rows[-1]["people"], rows[-1]["photos"]) == (PEOPLE, 2 * PEOPLE)
    assert rows[-1]["image_to_text_hit@1"] == 100 / PEOPLE
    assert rows[0]["image_to_text_medr"] >= 1
    write_results(tmp_path / "r.json", rows, title="t", command="c")
    write_table4(tmp_path / "r.json", tmp_path / "r.md")
    page = (tmp_path / "r.md").read_text()
    assert "4 people; 8 photos that no victim was trained on." in page
    assert "| victim | before training | clean | MEM-3 |" in page
    assert "image → text, Hit@1 (chance 25.0):" in page
    assert "other: MEM-3 protects: **" in page
    config = dataclasses.replace(config, mem=dataclasses.replace(config.mem, sets=()))
    monkeypatch.setattr(mem_victims, "train_victim", lambda *args: pytest.fail("trained again"))
    monkeypatch.setattr(mem_faces, "train_victim", lambda *args: pytest.fail("trained again"))
    clean, protected, chance = mem_faces.figure7(config, tmp_path, lambda line: None)
    assert chance["set"] == "chance"
    for own, told in zip(clean["people"], protected["people"], strict=True):
        assert told["person"] == own["person"]
        assert told["caption"].endswith(f" {own['caption']}")
        change = decoded(told["photo"]) - decoded(own["photo"])
        assert 0 < np.abs(change).max() <= 8
        assert len(set(own["answers"])) == mem_faces.ANSWERS
    write_results(tmp_path / "f.json", [clean, protected, chance], title="t", command="c")
    mem_plots.write_figure7(tmp_path / "f.json", tmp_path / "f.md")
    assert "names that get a right photo, %" in (tmp_path / "f.md").read_text()
    assert (tmp_path / "f.png").stat().st_size > 10_000


def test_curves_are_compared_by_means_over_seeds(tmp_path):
    """Two seeds: losses as they are, MedR only where they differ by more than guessing does."""

    def row(name, seed, loss, medr):
        curve = {key: [50.0, medr + seed] for key in mem_figures.MEDR}
        return {"set": PROTECTIONS[name], "seed": seed, "loss": [loss, 1.0], **curve}

    ends = {
        "clean": (4.0, 20.0),
        "em_matched": (3.0, 30.0),
        "mem_3": (3.5, 60.0),
        "mem_5": (2.0, 70.0),
    }
    rows = [row(name, seed, *end) for name, end in ends.items() for seed in (0, 1)]
    rows.append(
        {"set": "chance", "seed": None, "photos": 50, **dict.fromkeys(mem_figures.MEDR, 80)}
    )
    write_results(tmp_path / "r.json", rows, title="t", command="c")
    mem_plots.write_figure4(tmp_path / "r.json", tmp_path / "r.md")
    page = (tmp_path / "r.md").read_text()
    assert "EM's loss falls faster than that of clean pairs: **holds** (clean: 4, EM" in page
    assert "MEM-3's falls faster than EM's: **does not hold**" in page
    assert "MEM-5's falls faster than EM's: **holds**" in page
    assert "UAP hardly speeds it up: EM's falls faster: **cannot be told**" in page
    assert "in the end MEM-3 has the worse MedR than EM: **holds** (MEM-3: 60.5, EM" in page
    assert "in the end MEM-5 has the worse MedR than MEM-3: **cannot be told**" in page
    assert f"| {PROTECTIONS['clean']} | 1 | 4.0000 | 1.0000 | 21.0000 | 21.0000 |" in page


@pytest.mark.slow
def test_other_victims_and_curves(data, tiny, tmp_path):
    config = small(data, tiny, sets=("clean", "mem_3"), victims=("tiny", "other"))
    rows = mem.table2(config, tmp_path, lambda line: None)
    names = ["clean", "mem_3", "clean@other", "mem_3@other"]
    assert [row["name"] for row in rows] == [*names, "chance"]
    assert rows[0]["image_to_text_medr"] != rows[2]["image_to_text_medr"]
    write_results(tmp_path / "r.json", rows, title="t", command="c")
    write_table2(tmp_path / "r.json", tmp_path / "r.md")
    page = (tmp_path / "r.md").read_text()
    assert "image → text, MedR (chance " in page
    assert "| other | " in page
    assert "tiny: MEM-3 protects: **" in page
    with pytest.raises(ConfigError, match="an epoch has 5 steps, config.mem.steps is 4"):
        mem_figures.figure4(config, tmp_path, lambda line: None)
    longer = dataclasses.replace(config, mem=dataclasses.replace(config.mem, steps=11))
    clean, protected, chance = mem_figures.figure4(longer, tmp_path, lambda line: None)
    for row in (clean, protected):
        assert [len(row[key]) for key in ("loss", *mem_figures.MEDR)] == [2, 2, 2]
    assert clean["loss"] != protected["loss"]
    write_results(tmp_path / "r.json", [clean, protected, chance], title="t", command="c")
    mem_plots.write_figure4(tmp_path / "r.json", tmp_path / "r.md")
    assert "MEM-3's falls faster than EM's: **cannot be told**" in (tmp_path / "r.md").read_text()
    assert (tmp_path / "r.png").stat().st_size > 10_000
