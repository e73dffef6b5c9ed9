"""Every option of a protection is told from the others by what it leaves behind."""

import json

import numpy as np
import pytest

from mmjax.protect.pipeline import protect_pairs
from tests.protect.conftest import changed
from tests.protect.test_pipeline import members, state


def loss(out, number=1):
    return json.loads((out / "journal" / f"round-{number:04d}.json").read_text())["loss"]


def words(out):
    """The first two words of every protected caption."""
    return [
        b" ".join(data.split()[:2]) for name, data in members(out).items() if name.endswith("txt")
    ]


def test_without_rounds_photos_stay_and_triggers_are_drawn(tiny, config, tmp_path):
    """The controls: nothing is compiled."""
    for name, trigger in (
        ("random", {"scope": "pair"}),
        ("one", {"scope": "universal"}),
        ("the", {"scope": "universal", "start": "the"}),
    ):
        out = tmp_path / name
        control = changed(config, rounds=0, noise={"steps": 0}, trigger=trigger)
        manifest = protect_pairs(control, out)
        assert manifest["largest_change"] == 0
        assert manifest["counts"]["captions_read_back"] == manifest["counts"]["pairs"]
    assert len(set(words(tmp_path / "random"))) > 10
    assert len(set(words(tmp_path / "one"))) == 1
    assert set(words(tmp_path / "the")) == {b"the the"}
    out = tmp_path / "only images"
    protect_pairs(changed(config, rounds=0, image_only=True), out)
    original = [json.loads(d)["caption"] for n, d in members(out).items() if n.endswith("json")]
    assert [d.decode() for n, d in members(out).items() if n.endswith("txt")] == original


@pytest.mark.slow
def test_minimising_lowers_the_loss_that_maximising_raises(tiny, config, tmp_path):
    left = {}
    for goal in ("minimise", "maximise"):
        noise = {"goal": goal, "steps": 8, "shuffle": False}
        one = changed(config, rounds=1, noise=noise, trigger={"length": 0})
        protect_pairs(one, tmp_path / goal)
        left[goal] = loss(tmp_path / goal)
    still = changed(config, rounds=1, noise={"steps": 1, "shuffle": False}, trigger={"length": 0})
    protect_pairs(still, tmp_path / "one step")
    assert left["minimise"] < loss(tmp_path / "one step") < left["maximise"]


@pytest.mark.slow
def test_pairs_users_and_all_share_what_they_are_told_to(tiny, config, tmp_path):
    own = changed(config, rounds=1, noise={"scope": "pair"})
    protect_pairs(own, tmp_path / "pair")
    noise, triggers = state(tmp_path / "pair")
    assert len(noise) == len(triggers) == 42
    assert all(np.any(each) for each in noise)
    assert len(np.unique(noise.reshape(42, -1), axis=0)) == 42
    joint = {"scope": "universal", "selection": "joint", "beam": 2}
    shared = changed(config, rounds=1, noise={"scope": "user"}, trigger=joint)
    protect_pairs(shared, tmp_path / "user")
    noise, triggers = state(tmp_path / "user")
    assert noise.shape == (1, 32, 32, 3)
    assert 0 < np.abs(noise.astype(int)).max() <= 8
    assert triggers.shape == (1, 2)
    assert len(set(words(tmp_path / "user"))) == 1


@pytest.mark.slow
def test_a_low_loss_ends_the_run_and_strength_is_the_budget(tiny, config, tmp_path):
    done = changed(config, stop_loss=100.0, strength="low", noise={"steps": 6})
    said: list[str] = []
    manifest = protect_pairs(done, tmp_path / "out", say=said.append)
    assert manifest["largest_change"] == 4
    assert [line.split(":")[0] for line in said[1:]] == ["round 1 of 2"]
    again: list[str] = []
    protect_pairs(done, tmp_path / "out", say=again.append)
    assert again == []
