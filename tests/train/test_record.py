import json
import math
import sys
import types

import pytest
from PIL import Image

from mmjax.core.errors import ConfigError
from mmjax.train import record


def test_values_that_are_not_finite_are_null_and_lines_can_be_forgotten(tmp_path):
    log = tmp_path / "metrics.jsonl"
    for step, loss in ((1, 2.5), (2, math.nan), (3, math.inf)):
        record.append(log, step, {"loss": loss})
    assert record.read(log) == [
        {"step": 1, "loss": 2.5},
        {"step": 2, "loss": None},
        {"step": 3, "loss": None},
    ]
    with open(log, "a") as opened:
        opened.write('{"step": 4, "lo')  # the machine died
    record.forget(log, 2)
    assert json.loads(log.read_text()) == {"step": 1, "loss": 2.5}


def test_the_plot_is_a_picture_of_the_lines(tmp_path):
    log = tmp_path / "metrics.jsonl"

    def drawn(name, losses):
        log.unlink(missing_ok=True)
        for step, loss in enumerate(losses, start=1):
            record.append(log, step, {"loss": loss, "learning_rate": 0.1, "scale": 14.0})
        record.plot(log, tmp_path / name, chance=math.log(16))
        return (tmp_path / name).read_bytes()

    first = drawn("a.png", [2.8, math.nan, 1.0])
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.size[0] > 400
    assert drawn("b.png", [2.8, math.nan, 1.0]) == first
    assert drawn("c.png", [2.8, math.nan, 2.0]) != first


class Writer:
    """Stands for tensorboardX.SummaryWriter."""

    def __init__(self, folder):
        self.folder, self.told, self.open = folder, [], True

    def add_scalar(self, name, value, step):
        self.told.append((name, value, step))

    def close(self):
        self.open = False


def test_tensorboard_gets_every_metric_and_is_closed(tmp_path, monkeypatch):
    made = []

    def writer(folder):
        made.append(Writer(folder))
        return made[-1]

    monkeypatch.setitem(sys.modules, "tensorboardX", types.SimpleNamespace(SummaryWriter=writer))
    with record.TRACKERS["tensorboard"](tmp_path) as track:
        track(3, {"loss": 1.5, "scale": 14.0})
    assert made[0].folder == str(tmp_path / "tensorboard")
    assert made[0].told == [("train/loss", 1.5, 3), ("train/scale", 14.0, 3)]
    assert not made[0].open


def test_wandb_gets_every_metric_and_is_finished(tmp_path, monkeypatch):
    told = []
    run = types.SimpleNamespace(
        log=lambda metrics, step: told.append((step, metrics)), finish=lambda: told.append("end")
    )
    ids = []

    def init(**options):
        assert options["resume"] == "allow"
        ids.append(options["id"])
        told.append(options["name"])
        return run

    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=init))
    for name in ("run7", "run7", "run8"):
        (tmp_path / name).mkdir(exist_ok=True)
        with record.TRACKERS["wandb"](tmp_path / name) as track:
            track(3, {"loss": 1.5})
    assert told[:3] == ["run7", (3, {"loss": 1.5}), "end"]
    assert ids[0] == ids[1] != ids[2], "a run that goes on is one run there too"


@pytest.mark.parametrize(("name", "package"), [("tensorboard", "tensorboardX"), ("wandb", "wandb")])
def test_a_tracker_that_is_not_installed_says_what_to_install(name, package, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with (
        pytest.raises(ConfigError, match=rf"{package}; pip install 'mmjax\[track\]'"),
        record.TRACKERS[name](tmp_path),
    ):
        pass
