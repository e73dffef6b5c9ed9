"""Hard cases: what is planted, what is told of it, and the goals."""

import dataclasses
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from mmjax.evaluate import cfbd_set, cfbd_stress
from mmjax.evaluate.cfbd_set import open_set
from mmjax.evaluate.cfbd_stress import NOTHING, ZERO, Stress, make_case
from mmjax.evaluate.cfbd_stress_pages import fdr_goals
from mmjax.evaluate.clean_set import CleanSet, plant
from mmjax.evaluate.experiment import CfbdConfig, ReproduceConfig
from mmjax.evaluate.goals import finds
from mmjax.evaluate.reproduce import run_experiment
from mmjax.scan.blocks import gather
from tests.e2e.conftest import World

PAIRS = 200


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stress")


@pytest.fixture(scope="module")
def config(world: World, folder: Path) -> ReproduceConfig:
    sizes = CfbdConfig(pairs=PAIRS, references=100, rate=0.05)
    return ReproduceConfig(
        weights=world.weights, cfbd=sizes, seeds=(0,), results=str(folder / "results")
    )


@pytest.fixture(scope="module")
def clean(config: ReproduceConfig, folder: Path) -> CleanSet:
    return open_set(config, folder / "out", 0)


def test_targets_and_attackers_share_the_poison(config: ReproduceConfig, clean: CleanSet) -> None:
    case = Stress(attackers=("badnets", "blended"), targets=2, captions="paraphrase")
    made = make_case(case, config, clean, 0).planted
    assert Counter(made.attack) == {"": PAIRS - 10, "badnets": 5, "blended": 5}
    for caption, attack in zip(made.captions, made.attack, strict=True):
        named = {"badnets": "clock", "blended": "banana"}.get(attack, "")
        assert named in caption
    assert len({c for c, a in zip(made.captions, made.attack, strict=True) if a}) == 10


@pytest.mark.slow
def test_all_nine_attacks_can_be_planted(
    config: ReproduceConfig, clean: CleanSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = {"sample": 32, "steps": 2, "batch_size": 8}
    small = {"trojan": few, "badclip": few, "issba": {**few, "width": 4, "bits": 4}}
    monkeypatch.setattr(cfbd_set, "SETTINGS", small)
    # the tiny set has too few clocks for BadCLIP to learn from
    target = dataclasses.replace(config.cfbd, target="apple", consistent_rate=0.02)
    config = dataclasses.replace(config, cfbd=target)
    for name in cfbd_set.ATTACKS:
        changes = {"rate": 0.01, "share": 0.0}
        attack = cfbd_set.attack_config(name, config, clean, seed=0, changes=changes)
        made = plant(clean, attack)
        labels = [label for label in made.attack if label]
        assert labels == 2 * [attack.label]
        told = [c for c, label in zip(made.captions, made.attack, strict=True) if label]
        named = "bird" if name in ("mmpoison", "label_consistent") else "apple"
        assert all(named in caption for caption in told)


def test_wrong_pairs_are_apart_from_the_poison(config: ReproduceConfig, clean: CleanSet) -> None:
    made, wrong = make_case(Stress(shuffled=0.1, decoys=0.05), config, clean, 0)
    without = make_case(Stress(), config, clean, 0).planted
    assert made.poisoned.tolist() == without.poisoned.tolist()
    assert wrong.sum() == 30
    assert not (wrong & made.poisoned).any()
    changed = np.array([a != b for a, b in zip(made.captions, without.captions, strict=True)])
    assert not changed[~wrong].any()
    assert changed[wrong].sum() >= 28  # two scenes may have the same caption


@pytest.mark.parametrize("case", ZERO.values(), ids=list(ZERO))
def test_boilerplate_is_not_poison(config: ReproduceConfig, clean: CleanSet, case: Stress) -> None:
    made, wrong = make_case(dataclasses.replace(case, copies=20), config, clean, 0)
    assert not made.poisoned.any()
    assert not wrong.any()
    image, text = gather(made.blocks, np.arange(PAIRS))
    copies = Counter(c.partition(", number ")[0] for c in made.captions)
    assert sorted(n for n in copies.values() if n >= 20) == [20] * case.boilerplate
    assert len(np.unique(text, axis=0)) == len(set(made.captions))
    shown = np.unique(image, axis=0, return_counts=True)[1]
    assert (shown.max() == 20) == bool(case.reused)


def test_nothing_is_the_clean_set(config: ReproduceConfig, clean: CleanSet) -> None:
    made = make_case(NOTHING, config, clean, 0).planted
    assert made == plant(clean, None)


def test_the_grid_and_the_sets_without_poison(
    config: ReproduceConfig, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = {"shuffled": Stress(shuffled=0.1), "nothing": NOTHING}
    monkeypatch.setattr(cfbd_stress, "STRESS", small)
    config = dataclasses.replace(config, experiment="cfbd-stress")
    said: list[str] = []
    file, page = run_experiment(config, folder / "out", command="x", say=said.append)
    rows = cfbd_stress.stress(config, folder / "out", said.append)
    assert said == ["case shuffled, seed 0", "case nothing, seed 0"]
    robust = [r for r in rows if r["name"] == "cfbd_robust"]
    assert [(r["case"], r["poisoned"], r["wrong"]) for r in robust] == [
        ("shuffled", 10, 20),
        ("nothing", 0, 0),
    ]
    for row in robust:
        assert row["wrong_as_poisoned"] + row["wrong_as_mismatched"] <= row["wrong"]
        judged = sum(n for key, n in row.items() if key.startswith("judged_"))
        assert judged == PAIRS
    assert "- nothing: nothing is flagged as poisoned: **" in page.read_text()
    assert file.name == "cfbd-stress.json"


@pytest.mark.slow
def test_realised_rates_are_counted(
    config: ReproduceConfig, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cfbd_stress, "ON_SCENES", ("badnets",))
    config = dataclasses.replace(config, experiment="cfbd-fdr")
    _, page = run_experiment(config, folder / "out", command="x", say=lambda line: None)
    rows = cfbd_stress.false_discoveries(config, folder / "out", pytest.fail)
    assert [r["fdr_asked"] for r in rows] == list(cfbd_stress.ASKED)
    for row in rows:
        assert row["fdr_realised"] == row["clean_lost"] / max(row["flagged"], 1)
    assert "- scenes: badnets, asked for 0.01: **" in page.read_text()


def test_goals_look_at_the_worst_seed_and_at_the_mean() -> None:
    def robust(case: str, tpr: float | None, fpr: float, lost: int = 0) -> dict:
        known = {"name": "cfbd_robust", "case": case, "tpr": tpr, "fpr": fpr}
        return {**known, "poisoned": 0 if tpr is None else 60, "clean_lost": lost}

    rows = [robust("a", 1.0, 0.01), robust("a", 0.96, 0.0), robust("b", 1.0, 0.0)]
    rows += [robust("b", 0.9, 0.0), robust("none", None, 0.0), robust("none", None, 0.0, 3)]
    goals = finds(rows, "case", least_tpr=0.95, most_fpr=0.01)
    assert [goal.holds for goal in goals] == [True, False, False]
    assert goals[2].evidence == "in 1 of 2 seeds, at most 3 pairs"

    def fdr(values: list[float]) -> list[dict]:
        return [{"case": "a", "fdr_asked": 0.1, "fdr_realised": value} for value in values]

    assert fdr_goals(fdr([0.1, 0.14]))[0].holds  # .12 ± .02
    assert not fdr_goals(fdr([0.15, 0.17]))[0].holds
    assert not fdr_goals(fdr([0.2]))[0].holds
