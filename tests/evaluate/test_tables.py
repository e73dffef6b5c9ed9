"""The results JSON and the Markdown page made of it."""

from pathlib import Path

import numpy as np
import pytest

from mmjax.core.errors import InputError
from mmjax.evaluate.tables import pivot, row, write_results, write_table
from mmjax.scan.detection import measure


def test_results_become_a_page(tmp_path: Path) -> None:
    truth = np.array([True] * 2 + [False] * 20_000)
    scores = np.concatenate([[3.0, 0.5], np.full(20_000, 0.0)])
    scores[2] = 0.7
    flagged = measure(scores, truth, threshold=0.6, seeds=scores > 0.6)
    nothing = measure(scores, np.zeros_like(truth))
    write_results(
        tmp_path / "r.json",
        [
            row("z | mean", flagged, coarse=flagged) | {"seed": 3, "mapping": "lm"},
            row("none", nothing),
        ],
        title="A scan",
        command="mmjax scan x --out=y",
        notes=["A note."],
    )
    write_table(tmp_path / "r.json", tmp_path / "r.md")
    page = (tmp_path / "r.md").read_text()
    assert "    mmjax scan x --out=y\n" in page
    assert "| detector | seed | mapping network | pairs | poisoned | coarse AUROC |" in page
    # AUROC .999975 is not printed as 1, an FPR of 1/20000 not as 0
    rates = "0.999975 | 0.5000 | 0.999975 | 0.8333 | 0.5000 | 5e-05 | 1.0000 | 1.0000 | 0.5000 |"
    assert f"| z \\| mean | 3 | lm | 20002 | 2 | {rates}" in page
    assert "| 5e-05 | 1 | 1 |\n" in page
    assert "| none | – | – | 20002 | 0 | – |" in page
    assert "Not defined: no poisoned pair has a score." in page
    assert page.endswith("A note.\n")


def test_a_file_that_is_no_results_file_is_refused(tmp_path: Path) -> None:
    for content in ("{}", "[1]", "no json"):
        (tmp_path / "r.json").write_text(content)
        with pytest.raises(InputError, match="not a results file"):
            write_table(tmp_path / "r.json", tmp_path / "r.md")


def test_a_pivot_shows_means_and_gaps() -> None:
    rows = [
        {"detector": "a", "attack": "x", "auroc": 1.0},
        {"detector": "a", "attack": "x", "auroc": 0.5},
        {"detector": "a", "attack": "y", "auroc": None},
        {"detector": "b", "attack": "y"},
    ]
    assert pivot(rows, "detector", "attack", "auroc") == [
        "| detector | x | y |",
        "|---|---:|---:|",
        "| a | 0.7500 | – |",
        "| b | – | – |",
    ]
