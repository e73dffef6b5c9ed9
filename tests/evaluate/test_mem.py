"""MEM's table: chance, what each set is made with, and a whole table on a few scenes."""

import dataclasses
import json
import math

import numpy as np
import pytest
from PIL import Image

from mmjax.core.config import parse
from mmjax.data.pairs import PairTable
from mmjax.data.scenes import scene_arrays
from mmjax.data.sources import open_source
from mmjax.evaluate import mem
from mmjax.evaluate.experiment import MemConfig, ReproduceConfig
from mmjax.evaluate.mem import MIXED, SETS, chance, method, table1, write_table1
from mmjax.evaluate.tables import write_results
from mmjax.protect.config import ProtectConfig
from tests.protect.conftest import MODEL


def captioned(images, captions):
    texts = tuple(tuple(f"{i} {k}" for k in range(captions)) for i in range(images))
    return PairTable(np.zeros((images, 1, 1, 3), np.uint8), texts, {})


def test_chance_of_flickr8k_is_what_counting_says():
    found = chance(captioned(1000, 5), 10)
    beyond = math.comb(4995, 10) / math.comb(5000, 10)
    assert found["image_to_text_hit@10"] == pytest.approx(100 * (1 - beyond), rel=1e-9)
    first = (rank for rank in range(5000) if 2 * math.comb(5000 - rank, 5) <= math.comb(5000, 5))
    assert found["image_to_text_medr"] == next(first) == 647
    assert found["text_to_image_hit@10"] == 1.0
    assert found["text_to_image_medr"] == 500


def test_chance_is_what_random_ranks_give():
    rng = np.random.default_rng(0)
    best = np.array([rng.permutation(60)[:3].min() + 1 for _ in range(20_000)])
    found = chance(captioned(20, 3), 10)
    assert found["image_to_text_hit@10"] == pytest.approx(100 * np.mean(best <= 10), abs=1)
    assert abs(found["image_to_text_medr"] - np.median(best)) <= 1


@pytest.mark.parametrize("name", [name for name in SETS if name not in MIXED])
def test_every_set_is_a_valid_protection(name):
    values = method(name, MemConfig(), "tokenizer.json")
    config = parse(ProtectConfig, {"inputs": ("x",), "output": "shards", **values})
    assert config.epsilon == 8
    assert bool(config.trigger_length) == (name in ("random_trigger", "prefix") or "mem" in name)
    assert (config.noise.goal == "maximise") == name.startswith("uap")
    assert config.noise.shuffle == name.startswith("mem")


def test_sets_differ():
    made = {name: str(method(name, MemConfig(), "")) for name in SETS if name not in MIXED}
    assert len(set(made.values())) == len(made)


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


@pytest.mark.slow
def test_a_whole_table_resumes_and_is_written(data, tmp_path, monkeypatch):
    from mmjax.models import presets

    monkeypatch.setitem(presets.PRESETS, "tiny", MODEL)
    config = ReproduceConfig(
        experiment="mem-table1",
        data=str(data),
        seeds=(0, 1),
        mem=MemConfig(
            sets=("clean", "mem_plus", "mem_plus_stripped"),
            model="tiny",
            vocab_size=640,
            rounds=1,
            surrogate_steps=2,
            steps=4,
            batch_size=8,
        ),
    )
    said: list[str] = []
    rows = table1(config, tmp_path, said.append)
    assert [(row["name"], row["seed"]) for row in rows] == [
        *((name, seed) for seed in (0, 1) for name in config.mem.sets),
        ("chance", None),
    ]
    assert all(0 <= row["image_to_text_hit@10"] <= 100 for row in rows)
    (root,) = (tmp_path / "cells").glob("*")
    pairs = {}
    for name in ("clean-0/shards", "mem_plus-0/shards", "mem_plus_stripped-0"):
        source = open_source(str(root / "sets" / name))
        view = source.open_shard(source.shards[0])
        pairs[name] = [view[i] for i in range(len(view))]
    clean, protected, stripped = pairs.values()
    assert [p.image for p in stripped] == [p.image for p in protected]
    assert [p.image for p in stripped] != [p.image for p in clean]
    assert [p.caption for p in stripped] == [p.caption for p in clean]
    assert all(
        p.caption.endswith(c.caption) and p.caption != c.caption
        for p, c in zip(protected, clean, strict=True)
    )
    monkeypatch.setattr(mem, "_measure", lambda *args: pytest.fail("measured again"))
    assert table1(config, tmp_path, said.append) == rows
    write_results(tmp_path / "r.json", rows, title="t", command="c")
    write_table1(tmp_path / "r.json", tmp_path / "r.md")
    page = (tmp_path / "r.md").read_text()
    assert page.count("±") >= 3 * 4
    assert "| chance | " in page
    assert json.loads((tmp_path / "r.json").read_text())["rows"][0]["set"] == "clean"
    other = dataclasses.replace(config, mem=dataclasses.replace(config.mem, steps=5))
    with pytest.raises(pytest.fail.Exception, match="measured again"):
        table1(other, tmp_path, said.append)
