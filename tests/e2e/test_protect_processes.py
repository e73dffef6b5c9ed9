"""`mmjax protect` of a set in two processes of four devices: the shards of one of eight."""

import json
from pathlib import Path

import numpy as np
import pytest

from mmjax.data.scenes import write_scenes
from tests.e2e.conftest import World, hashes
from tests.e2e.test_train import end, start_verb, together

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
OPTIONS = (
    "--config=protect/mem_plus",
    "--rounds=2",
    "--config.batch_size=16",
    "--config.surrogate.model.compute=float32",
    "--config.surrogate.steps=2",
    "--config.noise.steps=2",
    "--config.trigger.candidates=2",
    "--config.trigger.rounds=1",
)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("set") / "shards"
    write_scenes(folder, 24, 5, size=64, captions=2, shard_size=30)
    return folder


@pytest.fixture(scope="module")
def alone(world: World, scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("alone") / "run"
    arguments = (str(scenes), *OPTIONS, f"--weights={world.weights}", f"--out={out}")
    codes, said = end(start_verb("protect", *arguments, devices=8))
    assert codes == [0], said
    return out


def losses(out: Path) -> list[float]:
    """What every round's noise left, in nats."""
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    left = [line["loss"] for line in lines if line["event"] == "round"]
    assert len(left) == 2
    return left


def test_two_processes_protect_as_one(
    world: World, scenes: Path, alone: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    arguments = (str(scenes), *OPTIONS, f"--weights={world.weights}", f"--out={out}")
    codes, said = together("protect", *arguments, devices=4)
    assert codes == [0, 0], said
    assert said.count("protected 48 pairs of 24 images") == 1, "the first one tells"
    np.testing.assert_allclose(losses(out), losses(alone), rtol=1e-5)
    assert hashes(out / "shards") == hashes(alone / "shards")
