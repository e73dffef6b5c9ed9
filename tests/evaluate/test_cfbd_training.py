"""CFBD's Tables 1 and 2 in miniature: every kind of row, kept cells, both pages."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmjax.cli import main
from mmjax.data.sources import open_source
from mmjax.evaluate import cfbd_training
from mmjax.evaluate.cfbd_training_pages import TITLES, accuracy_directions, success_directions
from mmjax.evaluate.experiment import ReproduceConfig, TrainedConfig
from mmjax.evaluate.sweeps import NOT_YET, Clock, best_defence, first_success, strength
from mmjax.evaluate.trained import isolation
from mmjax.evaluate.training_set import read_set
from tests.e2e.conftest import World

Reproduce = Callable[..., tuple[int, str]]
PAIRS, POISON = 200, 5


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("trained")


@pytest.fixture
def reproduce(world: World, folder: Path, capsys: pytest.CaptureFixture[str]) -> Reproduce:
    """Runs a table with the tiny model; returns its exit code and what it said."""

    def run(name: str, *flags: str) -> tuple[int, str]:
        trained = {"weights": world.weights, "steps": 4, "batch_size": 16, "images": 100}
        trained |= {"rate": POISON / PAIRS, "learning_rates": "1e-3", "trigger_seeds": 0}
        trained |= {"defence_rates": "1e-3", "tuned_seed": 3}
        code = main(
            [
                "reproduce",
                name,
                f"--weights={world.weights}",
                *(f"--config.trained.{key}={value}" for key, value in trained.items()),
                "--config.seeds=3",
                f"--config.cfbd.pairs={PAIRS}",
                "--config.cfbd.references=100",
                "--config.cfbd.mmpoison_donor=fish",
                f"--out={folder / 'out'}",
                f"--results={folder / 'results'}",
                *flags,
            ]
        )
        said = capsys.readouterr()
        return int(code), said.out + said.err

    return run


def rows(folder: Path, name: str, tuning: str | None = None) -> list[dict[str, Any]]:
    found = json.loads((folder / "results" / f"{name}.json").read_text())["rows"]
    return [row for row in found if row.get("tuning") == tuning]


def without(row: dict[str, Any], *names: str) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key not in names}


@pytest.mark.slow
def test_both_tables_are_views_of_the_same_trainings(
    reproduce: Reproduce, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = ["--config.attacks=badnets,mmpoison", "--config.trained.methods=clean,none,robust"]
    code, said = reproduce("cfbd-table1", *flags)
    assert code == 0, said
    assert (
        "[1/6] badnets, none, learning rate 0.001, seed 3\n" in said
    )  # clean, none, robust of two
    assert " left at most" in said
    found = rows(folder, "cfbd-table1")
    assert [(row["attack"], row["method"]) for row in found] == [
        (attack, method)
        for attack in ("badnets", "mmpoison")
        for method in ("clean", "none", "robust")
    ]
    clean, none, robust = found[:3]
    assert clean["poisoned"] == 0
    assert (none["pairs"], none["poisoned"], none["survivors"]) == (PAIRS, POISON, POISON)
    assert robust["pairs"] == PAIRS - (POISON - robust["survivors"]) - robust["clean_lost"]
    assert (none["reached"], none["tried"]) == (False, 1), "four steps teach nothing"
    assert {row["learning_rate"] for row in found[:3]} == {none["learning_rate"]}
    assert all(0 <= row["asr"] <= 1 for row in found[:3])
    assert all(row["min_rank"] >= 1 for row in found[3:])
    page = (folder / "results" / "cfbd-table1.md").read_text()
    assert f"| no defence | {none['acc1']:.4f} |" in page
    assert "| **no** |" in page
    assert not list((folder / "out").glob("cells/*/models/*/checkpoints"))
    trained = [path.name for path in (folder / "out").glob("cells/*/models/*")]
    assert trained.count("all-clean-0.001-3") == 1, "it is that of all attacks"
    (poisoned,) = (folder / "out" / "poisoned").glob("badnets-*")
    assert not [c for c in read_set(open_source(str(poisoned)), 64).captions if c.endswith(".")]

    monkeypatch.setattr(cfbd_training, "train_model", None)  # nothing is trained again
    more = "--config.trained.methods=clean,none,robust,abl"
    code, said = reproduce("cfbd-table2", flags[0], more, "--config.trained.done_only=True")
    assert code == 0, said
    assert [row for row in rows(folder, "cfbd-table2") if row["method"] != "abl"] == found
    swept = rows(folder, "cfbd-table2", tuning="attack")
    assert [(row["attack"], row["learning_rate"]) for row in swept] == [
        ("badnets", 1e-3),
        ("mmpoison", 1e-3),
    ]
    abl = next(row for row in rows(folder, "cfbd-table2") if row["method"] == "abl")
    assert (abl["reason"], abl.get("learning_rate")) == (NOT_YET, None), "none is chosen yet"
    tuning = rows(folder, "cfbd-table2", tuning="defence")
    assert [(row["method"], row.get("reason")) for row in tuning] == [
        ("none", None),
        ("abl", NOT_YET),
    ]
    page = (folder / "results" / "cfbd-table2.md").read_text()
    assert "2 of 8 rows are not trained yet" in page
    assert "mean of the seeds 3, of those that are trained (all rows below):" in page
    code, said = reproduce("cfbd-table2", *flags)
    assert code == 0, said
    assert "] badnets" not in said
    assert rows(folder, "cfbd-table2") == found
    page = (folder / "results" / "cfbd-table2.md").read_text()
    assert f"| no defence | {none['asr']:.4f} |" in page
    assert "mean of the seeds 3:" in page
    assert "min_rank" in page


@pytest.mark.slow
def test_defences_and_stages(reproduce: Reproduce, folder: Path) -> None:
    # ABL takes three epochs of 25 steps; the coarse stage keeps a dozen pairs of so weak a model
    long = ("--config.trained.steps=80", "--config.trained.batch_size=8")
    code, said = reproduce("cfbd-table1", "--config.attacks=badnets", *long)
    assert code == 0, said
    found = {row["method"]: row for row in rows(folder, "cfbd-table1")}
    assert tuple(found) == cfbd_training.METHODS
    tuning = {row["method"]: row for row in rows(folder, "cfbd-table1", tuning="defence")}
    assert tuple(tuning) == ("none", *cfbd_training.DEFENCES)
    for name in cfbd_training.DEFENCES:  # the only rate is that of the tuning, on the same seed
        assert found[name] == without(tuning[name], "tuning", "chosen")
    assert [row["method"] for row in tuning.values() if row["chosen"]] == [*cfbd_training.DEFENCES]
    page = (folder / "results" / "cfbd-table1.md").read_text()
    assert "chosen on badnets, seed 3" in page
    assert "which flatters its row of badnets, seed 3, above" in page
    assert (found["cleanclip"]["pairs"], found["cleanclip"].get("poisoned")) == (100, None)
    assert found["roclip"]["pairs"] == PAIRS
    assert found["coarse"]["pairs"] < PAIRS
    assert 0 <= found["abl"]["isolation_recall"] <= 1
    assert 0 <= found["abl"]["isolation_auroc"] <= 1


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("--config.trained.methods=none,magic", "unknown method 'magic'; known: clean, none,"),
        ("--config.trained.tuned_on=magic", "unknown attack 'magic'; known: badnets,"),
        ("--config.attacks=label-consistent", "unknown attack 'label-consistent'; known: badnets,"),
        ("--scale=paper", "wants --data=FOLDER and --weights=SPEC"),
    ],
)
def test_what_there_is_not(reproduce: Reproduce, flag: str, said: str) -> None:
    code, told = reproduce("cfbd-table1", flag)
    assert code == 2
    assert said in told


def test_the_clock_counts_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([0.0, 60.0, 100.0, 220.0, 300.0, 301.0])
    monkeypatch.setattr("time.monotonic", lambda: next(now))
    said: list[str] = []
    clock = Clock(10, said.append)
    for skipped in (1, 3, 1):
        clock.run("it", dict)
        clock.skip(skipped)
    # after one of a minute nine are left, after two of 90 seconds on average six
    assert said == ["[1/10] it", "[2/10] it; 9:00 left at most", "[5/10] it; 9:00 left at most"]


@pytest.mark.parametrize(
    ("asr", "acc", "rate", "tried", "reached"),
    [
        ([0.1, 0.9, 0.99], [0.6, 0.6, 0.6], 2.0, 2, True),
        ([0.1, 0.9, 0.99], [0.6, 0.57, 0.59], 3.0, 3, True),  # the second costs accuracy
        ([0.9, 0.95, 0.7], [0.5, 0.5, 0.6], 1.0, 3, True),  # both that succeed do
        ([0.1, 0.7, 0.3], [0.6, 0.6, 0.6], 2.0, 3, False),
    ],
)
def test_an_attack_s_learning_rate(asr, acc, rate, tried, reached) -> None:
    rates = (1.0, 2.0, 3.0)
    poisoned = {
        r: {"learning_rate": r, "asr": a, "acc1": c}
        for r, a, c in zip(rates, asr, acc, strict=True)
    }
    found = first_success(rates, poisoned.__getitem__, lambda _: {"acc1": 0.6})
    assert (found["learning_rate"], found["tried"], found["reached"]) == (rate, tried, reached)


def test_an_attack_that_is_not_trained_at_all_rates_yet_is_undecided() -> None:
    rows = {1.0: {"asr": 0.1, "acc1": 0.6}, 2.0: {"reason": NOT_YET}}
    found = first_success((1.0, 2.0), rows.__getitem__, lambda _: {"acc1": 0.6})
    assert (found["asr"], found["tried"], found["reached"]) == (0.1, 1, None)
    succeeds = {1.0: {"asr": 0.9, "acc1": 0.6}, 2.0: {"asr": 0.9, "acc1": 0.1}}
    found = first_success((1.0, 2.0), succeeds.__getitem__, lambda _: {"reason": "diverged"})
    assert (found["tried"], found["reached"]) == (2, True), "nothing to compare accuracy with"


def test_defences_are_tuned_on_another_seed_and_one_attack(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = []
    accuracy = {0: {2e-4: 0.5, 5e-4: 0.6, 1e-3: 0.4}, 3: {2e-4: 0.9, 5e-4: 0.6, 1e-3: 0.6}}

    def cell(lab: Any, name: str, method: str, rate: float, at: float) -> dict[str, Any]:
        asked.append((lab._seed, name, method, rate, at))
        facts = {"attack": name, "method": method, "learning_rate": rate, "seed": lab._seed}
        if method == "safeclip":
            return {**facts, "reason": "diverged"}
        asr = 0.9 if method == "none" else 0.1
        return {**facts, "acc1": accuracy[lab._seed][rate], "asr": asr}

    monkeypatch.setattr(cfbd_training.Lab, "_cell", cell)
    methods = ("none", "roclip", "cleanclip", "safeclip")
    config = ReproduceConfig(
        seeds=(3,), attacks=("sig",), trained=TrainedConfig(methods=methods, tuned_on="blended")
    )
    found = cfbd_training.tables(config, tmp_path, lambda _: None)
    swept = [row for row in found if row.get("tuning") == "attack"]
    assert [
        (row["attack"], row["seed"], row["learning_rate"]) for row in swept if row["chosen"]
    ] == [("sig", 3, 5e-4)]
    tuning = [row for row in found if row.get("tuning") == "defence"]
    assert {(row["attack"], row["seed"]) for row in tuning} == {("blended", 0)}
    assert [row["method"] for row in tuning if row["chosen"]] == ["cleanclip", "roclip"]
    assert {row["learning_rate"] for row in tuning if row["chosen"]} == {5e-4}
    judged = {row["method"]: row for row in found if not row.get("tuning")}
    assert tuple(judged) == methods
    assert judged["roclip"]["learning_rate"] == judged["cleanclip"]["learning_rate"] == 5e-4
    assert judged["safeclip"]["reason"] == "diverged", "it gave no model on the tuning seed"
    assert [ask for ask in asked if ask[0] == 3] == [
        (3, "sig", "none", 5e-4, 5e-4),
        (3, "sig", "clean", 5e-4, 5e-4),
        (3, "sig", "roclip", 5e-4, 5e-4),
        (3, "sig", "cleanclip", 5e-4, 5e-4),
    ]


def test_a_defence_s_learning_rate() -> None:
    rows = {
        1.0: {"learning_rate": 1.0, "asr": 0.9, "acc1": 0.7},
        2.0: {"learning_rate": 2.0, "asr": 0.1, "acc1": 0.6},
        3.0: {"learning_rate": 3.0, "reason": "diverged"},
    }
    assert best_defence(list(rows.values())) is rows[2.0]
    assert best_defence([rows[1.0], rows[3.0]]) is rows[1.0], "though it fails"
    assert best_defence([rows[3.0]])["reason"] == "diverged"
    later = {"learning_rate": 4.0, "reason": NOT_YET}
    assert best_defence([rows[1.0], later]) is later, "undecided"
    assert strength({"hit@10": 0.5}) == 0.5
    assert strength({"reason": "diverged"}) == 0


def test_directions() -> None:
    def row(method: str, acc1: float, asr: float) -> dict[str, Any]:
        return {"attack": "sig", "method": TITLES[method], "acc1": acc1, "asr": asr}

    good = [row("clean", 0.6, 0.01), row("none", 0.59, 0.9), row("robust", 0.65, 0.015)]
    told = accuracy_directions(good) + success_directions(good)
    assert [each.holds for each in told] == [True] * 4
    assert success_directions([{**good[1], "attack": "mmpoison", "hit@10": 0.7}])[0].holds is False
    bad = [row("clean", 0.6, 0.01), row("none", 0.57, 0.8), row("robust", 0.585, 0.025)]
    told = accuracy_directions(bad) + success_directions(bad)
    assert [each.holds for each in told] == [False] * 4
    assert accuracy_directions(bad[:1])[0].holds is None
    assert np.all([each.holds is None for each in success_directions(bad[:1])])


@pytest.mark.parametrize(("isolated", "holds"), [(0.5, True), (0.9, False)])
def test_isolation_is_compared_with_what_the_scan_finds(isolated: float, holds: bool) -> None:
    rows = [
        {"attack": "sig", "method": TITLES["abl"], "isolation_recall": isolated},
        {"attack": "sig", "method": TITLES["robust"], "survivors": 6, "poisoned": 30},
    ]
    told = success_directions(rows)[-1]
    assert told.holds is holds
    assert told.evidence == f"{isolated:.4g}, 0.8"


def test_isolation_ranks_by_the_mean_recorded_loss(tmp_path: Path) -> None:
    losses = [[2.0, 2.0], [0.1, 0.3], [3.0, 1.0], [0.2, 4.0]]
    pq.write_table(pa.table({"loss": losses}), tmp_path / "losses.parquet")
    told = isolation(tmp_path, np.array([False, True, False, True]))
    assert told == {"isolation_auroc": 0.5, "isolation_recall": 0.5}
