"""The lines that a person reads at the end of a scan."""

from pathlib import Path
from typing import Any

import pytest

from mmjax.scan.result import ScanResult


def result(**changes: Any) -> ScanResult:
    summary = {
        "verdict": "12 of 3,000 pairs look poisoned",
        "counts": {"benign": 2986, "poisoned": 12, "skipped": 2},
        "total": 3000,
        "statuses": {"missing_caption": 2, "ok": 2998},
        "warnings": ["the mixture had not converged"],
        "degraded": [],
        "truth": None,
        **changes,
    }
    return ScanResult(Path("run"), summary, Path("run/report/index.html"))


def test_lines_say_verdict_counts_skips_warnings_and_report() -> None:
    assert result().lines() == [
        "12 of 3,000 pairs look poisoned",
        "3,000 pairs: 2,986 benign, 12 poisoned, 2 skipped",
        "skipped 2 x missing_caption: an image without a caption, or an empty one",
        "warning: the mixture had not converged",
        "report: run/report/index.html",
    ]
    assert not result().degraded


def test_lines_say_what_degraded_the_run() -> None:
    given = result(degraded=["a: a ends inside member x"])
    assert given.degraded
    assert given.lines()[-2] == "degraded: a: a ends inside member x"


@pytest.mark.parametrize(
    ("rates", "says"),
    [
        ((1.0, 0.00104), "TPR 100.00 %, FPR 0.10 %"),
        ((None, 0.0), "TPR not defined, FPR 0.00 %"),
    ],
)
def test_lines_compare_with_the_truth(rates: tuple[float | None, float], says: str) -> None:
    truth = {
        "true_positive_rate": rates[0],
        "false_positive_rate": rates[1],
        "survivors": 0,
        "poisoned": 9,
        "clean_lost": 3,
    }
    assert result(truth=truth).lines()[3] == (
        f"against the truth: {says}; 0 of 9 poisoned pairs survive, 3 clean pairs lost"
    )
