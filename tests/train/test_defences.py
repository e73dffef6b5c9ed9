"""Whole runs with every defence: interrupted ones end in the same bytes, each has its effect."""

import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmjax.core.config import parse
from mmjax.core.errors import ConfigError, RetryError, RunError
from mmjax.core.mesh import MeshConfig, make_mesh
from mmjax.evaluate.detection import read_losses
from mmjax.train.config import TrainConfig
from mmjax.train.defence import SafeClipConfig
from mmjax.train.pipeline import train
from mmjax.train.safe_set import safe_pairs

PLAIN = {
    "data": {"scenes": 34, "heldout_scenes": 0, "scene_captions": 2},
    "model": {"preset": "tiny", "vocab_size": 640, "compute": "float32"},
    "augment": {"crop_area": 0.8},
    "optimizer": {"learning_rate": 3e-3},
    "steps": 14,
    "batch_size": 8,
    "checkpoint_every": 3,
    "log_every": 1,
}
"""Four steps an epoch."""

DEFENCES = {
    "cleanclip": {},
    "roclip": {"pool": 30},
    "safeclip": {"unimodal_epochs": 1, "growth": 0.03, "largest": 1.0},
    "abl": {"recorded_epochs": 2, "gather": "lga", "isolate": 5.0, "unlearn_epochs": 1},
}
"""Options of each defence that bring all of its stages into 14 steps."""


def config_of(name):
    return parse(TrainConfig, PLAIN | {"defence": {"name": name, name: DEFENCES[name]}})


def run(name, folder, **options):
    train(config_of(name), folder, mesh=make_mesh(MeshConfig(data=1)), **options)


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def runs(tiny, tmp_path_factory):
    """The folder of an uninterrupted run by the name of its defence."""
    made = {}

    def folder_of(name):
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name) / "out"
            run(name, made[name])
        return made[name]

    return folder_of


def files_of(folder):
    """The bytes of what a run leaves, by path, but for its checkpoints and its log."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and path.relative_to(folder).parts[0] not in ("checkpoints", "log.jsonl", "run.json")
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", DEFENCES)
def test_a_defended_run_that_was_stopped_leaves_the_same_bytes(runs, name, tmp_path):
    folder = tmp_path / "out"
    asked = iter(range(7))
    with pytest.raises(RetryError):
        run(name, folder, stop=lambda: next(asked, None) is None)
    assert 7 < len(lines(folder)) < PLAIN["steps"] - 1
    run(name, folder)
    whole, stopped = files_of(runs(name)), files_of(folder)
    assert [line["step"] for line in lines(folder)] == list(range(1, PLAIN["steps"] + 1))
    assert whole.keys() == stopped.keys()
    assert [path for path in whole if whole[path] != stopped[path]] == []
    assert "model/model.safetensors" in whole


@pytest.mark.slow
def test_adversarial_training_is_plain_training_without_a_budget(tiny, tmp_path):
    options = {"epsilon": 0, "steps": 1, "step_size": 1}
    told = {}
    for name in ("none", "adversarial"):
        defence = {"name": name, "adversarial": options}
        config = parse(TrainConfig, PLAIN | {"steps": 2, "defence": defence})
        train(config, tmp_path / name, mesh=make_mesh(MeshConfig(data=1)))
        told[name] = [line["loss"] for line in lines(tmp_path / name)]
    assert told["adversarial"] == pytest.approx(told["none"], rel=1e-5)


@pytest.mark.slow
def test_cleanclip_minimises_both_terms(runs):
    for line in lines(runs("cleanclip")):
        assert line["loss"] == pytest.approx(line["cross_modal"] + line["in_modal"], rel=1e-5)


def test_roclip_fills_its_pool_in_every_second_epoch(runs):
    told = lines(runs("roclip"))
    assert [line["pooled"] for line in told] == [0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1]
    # while the pool stays as it was drawn, the nearest of 32 random directions is at some distance
    assert all(0.1 < line["nearest_cosine"] < 0.7 for line in told[:4])
    assert abs(told[8]["nearest_cosine"] - told[3]["nearest_cosine"]) > 0.1


@pytest.mark.slow
def test_safeclip_warms_up_splits_the_pairs_and_grows_what_is_safe(runs):
    folder = runs("safeclip")
    told = lines(folder)
    peak = PLAIN["optimizer"]["learning_rate"]
    rates = [line["learning_rate"] for line in told]
    assert rates[4:8] == pytest.approx([0.01 * peak] * 4)
    assert min(rates[:4] + rates[8:11]) > 0.02 * peak
    cosines = [np.load(folder / "judged" / f"{step:08d}.npy") for step in (8, 12)]
    options = SafeClipConfig(**DEFENCES["safeclip"])
    shares = []
    for grown in (0, 1):
        safe = safe_pairs(cosines[: grown + 1], options, grown=grown)
        assert cosines[grown][safe].min() > cosines[grown][~safe].max()
        shares.append(safe.mean())
    assert shares[1] == pytest.approx(shares[0] + 0.03, abs=1 / 68)
    seen = [line["safe"] for line in told[8:12]]
    assert np.mean(seen) == pytest.approx(shares[0], abs=0.15)
    assert all("safe" not in line for line in told[:8])


@pytest.mark.slow
def test_abl_records_isolates_and_unlearns(runs):
    folder = runs("abl")
    told = lines(folder)
    assert [("under_floor" in line, "isolated" in line) for line in told] == (
        [(False, False)] * 4 + [(True, False)] * 4 + [(False, True)] * 6
    )
    records = [np.load(folder / "judged" / f"{step:08d}.npy") for step in (4, 8)]
    rows = pa.table({"shard": ["scenes"] * 68, "ordinal": list(range(68)), "status": ["ok"] * 68})
    losses = read_losses(folder / "losses.parquet", rows)
    np.testing.assert_allclose(losses, np.mean(records, axis=0), rtol=1e-6)
    isolated = pq.read_table(folder / "isolated.parquet")["ordinal"].to_pylist()
    assert sorted(isolated) == sorted(np.argsort(losses)[:5].tolist())
    peak = PLAIN["optimizer"]["learning_rate"]
    assert [line["learning_rate"] for line in told[10:]] == pytest.approx([0.1 * peak] * 4)
    for line in told[10:]:
        assert line["loss"] >= line["kept"] - np.log(8) - 1e-5


@pytest.mark.slow
def test_a_lost_record_is_refused(runs, tmp_path):
    folder = tmp_path / "out"
    shutil.copytree(runs("safeclip"), folder)
    (folder / "judged" / "00000008.npy").unlink()
    with pytest.raises(RunError, match="00000008.npy is missing, and the run has come to step 14"):
        run("safeclip", folder)


@pytest.mark.parametrize(
    ("name", "options", "changes", "message"),
    [
        ("safeclip", {}, {"captions_per_image": 2}, "captions_per_image must be 1, got 2"),
        ("safeclip", {}, {"steps": 8}, "multimodal_epochs take 8 steps .4 an epoch., the whole"),
        ("roclip", {}, {"steps": 4}, "roclip.every - 1 take 4 steps .4 an epoch., the whole run 4"),
        ("roclip", {"every": 5}, {}, "roclip.every - 1 take 16 steps"),
        ("abl", {"isolate": 68.0}, {}, "isolate=68 isolates 68 of 68 pairs"),
        ("abl", {"isolate": 0.001}, {}, "isolate=0.001 isolates 0 of 68 pairs"),
    ],
)
def test_what_a_defence_cannot_do_is_refused(tiny, name, options, changes, message, tmp_path):
    values = PLAIN | {"defence": {"name": name, name: DEFENCES[name] | options}}
    with pytest.raises(ConfigError, match=message):
        train(parse(TrainConfig, values | changes), tmp_path / "out", mesh=make_mesh())
