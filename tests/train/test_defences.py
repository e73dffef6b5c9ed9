"""Whole runs with every defence: interrupted ones end in the same bytes, each has its effect."""

import json

import pytest

from mmjax.core.config import parse
from mmjax.core.errors import RetryError
from mmjax.core.mesh import make_mesh
from mmjax.train.config import TrainConfig
from mmjax.train.pipeline import train

PLAIN = {
    "data": {"scenes": 34, "heldout_scenes": 0, "scene_captions": 2},
    "model": {"preset": "tiny", "vocab_size": 640, "compute": "float32"},
    "augment": {"crop_area": 0.8},
    "optimizer": {"learning_rate": 3e-3},
    "steps": 9,
    "batch_size": 8,
    "checkpoint_every": 3,
    "log_every": 1,
}
"""Four steps an epoch."""

DEFENCES = {
    "cleanclip": {},
    "roclip": {"pool": 30},
}
"""Options of each defence that bring all of its stages into nine steps."""


def config_of(name):
    return parse(TrainConfig, PLAIN | {"defence": {"name": name, name: DEFENCES[name]}})


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def runs(tiny, tmp_path_factory):
    """The folder of an uninterrupted run by the name of its defence."""
    made = {}

    def run(name):
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name) / "out"
            train(config_of(name), made[name], mesh=make_mesh())
        return made[name]

    return run


def files_of(folder):
    """The bytes of what a run leaves, by path, but for its checkpoints and its log."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and path.relative_to(folder).parts[0] not in ("checkpoints", "log.jsonl", "run.json")
    }


@pytest.mark.parametrize("name", DEFENCES)
def test_a_defended_run_stopped_twice_leaves_the_same_bytes(runs, name, tmp_path):
    folder = tmp_path / "out"
    for length in (2, 2):
        asked = iter(range(length))
        with pytest.raises(RetryError):
            train(
                config_of(name),
                folder,
                mesh=make_mesh(),
                stop=lambda asked=asked: next(asked, None) is None,
            )
    train(config_of(name), folder, mesh=make_mesh())
    whole, stopped = files_of(runs(name)), files_of(folder)
    assert [line["step"] for line in lines(folder)] == list(range(1, PLAIN["steps"] + 1))
    assert whole.keys() == stopped.keys()
    assert [path for path in whole if whole[path] != stopped[path]] == []
    assert "model/model.safetensors" in whole


def test_cleanclip_learns_augmentations_too(runs):
    told = lines(runs("cleanclip"))
    for line in told:
        assert line["loss"] == pytest.approx(line["cross_modal"] + line["in_modal"], rel=1e-5)
    assert told[-1]["in_modal"] < told[0]["in_modal"] - 0.2


def test_roclip_fills_its_pool_in_every_second_epoch(runs):
    told = lines(runs("roclip"))
    assert [line["pooled"] for line in told] == [0, 0, 0, 0, 1, 1, 1, 1, 0]
    # while the pool stays as it was drawn, the nearest of 32 random directions is at some distance
    assert all(0.1 < line["nearest_cosine"] < 0.7 for line in told[:4])
    assert abs(told[8]["nearest_cosine"] - told[3]["nearest_cosine"]) > 0.1
