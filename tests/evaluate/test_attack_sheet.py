"""The page of all triggers: its picture, its table, and that the committed ones are whole."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmjax.attacks.triggers import KNOWN
from mmjax.core.errors import ConfigError, InputError
from mmjax.evaluate.attack_sheet import PERTURBED, PICTURE, write_page, write_picture
from mmjax.evaluate.reproduce import ReproduceConfig, run_experiment
from tests.conftest import ROOT

RESULTS = ROOT / "docs" / "results"
SIDE = 16


def test_the_picture_shows_clean_poisoned_and_difference(tmp_path: Path) -> None:
    clean = np.full((1, SIDE, SIDE, 3), 100, np.uint8)
    bright, dark = clean.copy(), clean.copy()
    bright[0, :4, :4] = 104
    dark[0, 8:] = 0
    write_picture(tmp_path / "sheet.png", clean, {"bright": bright, "dark": dark})
    sheet = np.asarray(Image.open(tmp_path / "sheet.png").convert("RGB")).astype(int)
    left = sheet.shape[1] - 3 * (SIDE + 2)
    tile = {
        (line, column): sheet[line * (SIDE + 2) :, left + column * (SIDE + 2) :][:SIDE, :SIDE]
        for line in range(2)
        for column in range(3)
    }
    for line, images in enumerate((bright, dark)):
        np.testing.assert_array_equal(tile[line, 0], clean[0])
        np.testing.assert_array_equal(tile[line, 1], images[0])
    assert tile[0, 2][0, 0].tolist() == [191] * 3  # 127 + 16 · 4: sixteen times at most
    assert tile[1, 2][-1, -1].tolist() == [0] * 3  # 127 − 127
    assert tile[0, 2][-1, -1].tolist() == tile[1, 2][0, 0].tolist() == [127] * 3


def test_the_page_is_made_of_the_json(tmp_path: Path) -> None:
    rows = [
        {"trigger": "blended", "psnr": 17.25, "ssim": 0.5, "changed": 1.0},
        {
            "trigger": "issba",
            "psnr": 35.0,
            "ssim": 0.99,
            "changed": 0.75,
            "steps": 7,
            "bit_accuracy": 0.97,
        },
    ]
    content = {"title": "T", "command": "mmjax x", "rows": rows, "notes": ["A note."]}
    (tmp_path / "r.json").write_text(json.dumps(content))
    write_page(tmp_path / "r.json", tmp_path / "r.md")
    page = (tmp_path / "r.md").read_text()
    assert "| blended | 17.250 | 0.500 | 1.000 | – | – | – | – | – | – |\n" in page
    assert "| issba | 35.000 | 0.990 | 0.750 | 7 | – | – | – | – | 0.970 |\n" in page
    assert "    mmjax x\n" in page
    assert page.endswith("\nA note.\n")
    (tmp_path / "r.json").write_text("[]")
    with pytest.raises(InputError, match="not a results file"):
        write_page(tmp_path / "r.json", tmp_path / "r.md")


def test_an_experiment_says_what_it_lacks(tmp_path: Path) -> None:
    for name, says in (
        ("attack-sheet", "attack-sheet wants --weights=SPEC$"),
        ("flickr8k-scan", "flickr8k-scan wants --data=FOLDER and --weights=SPEC$"),
        ("nothing", "unknown experiment 'nothing'; known: flickr8k-scan"),
    ):
        with pytest.raises(ConfigError, match=says):
            run_experiment(
                ReproduceConfig(experiment=name), tmp_path, command="x", say=lambda line: None
            )


def test_the_committed_page_is_whole(tmp_path: Path) -> None:
    """Every trigger is there, and those that are optimised achieve what they are for."""
    rows = {
        row["trigger"]: row for row in json.loads((RESULTS / "attacks.json").read_text())["rows"]
    }
    assert set(rows) == {*KNOWN, PERTURBED}
    assert rows["issba"]["bit_accuracy"] >= 0.95
    assert rows["issba"]["psnr"] > 30
    for name in ("trojan", "badclip"):
        assert rows[name]["loss_after"] < 0.8 * rows[name]["loss_before"]
        assert rows[name]["reading_after"] > rows[name]["reading_before"]
    assert rows[PERTURBED]["reading_after"] < rows[PERTURBED]["reading_before"]
    write_page(RESULTS / "attacks.json", tmp_path / "attacks.md")
    assert (tmp_path / "attacks.md").read_text() == (RESULTS / "attacks.md").read_text()
    assert (RESULTS / PICTURE).stat().st_size < 400_000
