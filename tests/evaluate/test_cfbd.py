"""CFBD's experiments on a few dozen scenes: every row, every page, nothing measured twice."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmjax.cli import main
from mmjax.scan.detectors import DETECTORS
from tests.e2e.conftest import World

PAIRS, POISON = 200, 10
Reproduce = Callable[..., tuple[list[dict[str, Any]], str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cfbd")


@pytest.fixture
def reproduce(world: World, folder: Path, capsys: pytest.CaptureFixture[str]) -> Reproduce:
    """Runs an experiment at small scale with the tiny model; returns its rows and its page."""

    def run(name: str, *flags: str) -> tuple[list[dict[str, Any]], str]:
        sizes = {"pairs": PAIRS, "references": 100, "rate": POISON / PAIRS}
        code = main(
            [
                "reproduce",
                name,
                "--scale=small",
                f"--weights={world.weights}",
                *(f"--config.cfbd.{key}={value}" for key, value in sizes.items()),
                "--seeds=0",
                f"--out={folder / 'out'}",
                f"--results={folder / 'results'}",
                *flags,
            ]
        )
        assert code == 0, capsys.readouterr().err
        results = folder / "results" / f"{name}.json"
        return json.loads(results.read_text())["rows"], results.with_suffix(".md").read_text()

    return run


def test_table4_measures_every_detector_once(
    reproduce: Reproduce, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, page = reproduce("cfbd-table4", "--config.attacks=badnets,blended")
    assert "badnets, rate 0.05, seed 0" in capsys.readouterr().out
    assert [r["name"] for r in rows] == 2 * list(DETECTORS)
    assert {r["attack"] for r in rows} == {"badnets", "blended"}
    measured = [r for r in rows if r["name"] != "abl"]
    assert {(r["pairs"], r["poisoned"], r["rate"]) for r in measured} == {(PAIRS, POISON, 0.05)}
    own = {r["name"] for r in measured if r["tpr"] is not None}
    assert own == {"cfbd_robust", "cfbd_fine", "cfbd_coarse"}
    assert "| CFBD, robust mode | " in page
    assert "BadCLIP is the hardest attack for the fine stage: **cannot be told**" in page
    assert reproduce("cfbd-table4", "--config.attacks=badnets,blended")[0] == rows
    assert "badnets, rate" not in capsys.readouterr().out
