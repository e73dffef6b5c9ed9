"""Benches: every case runs, its figures are arithmetic on the clock, and earlier ones compare."""

import json
import time
from pathlib import Path

import pytest

from mmjax.core.errors import ConfigError
from mmjax.measure import bench
from mmjax.measure.bench_config import BenchConfig
from tests.e2e.conftest import Run, run  # noqa: F401 - a fixture

SLOW = ("encode", "hotflip", "pgd", "text")


def told(lines: list[str]):
    return lines.append


def test_parts_take_turns() -> None:
    order: list[str] = []
    parts = [bench.Part(name, lambda n=name: order.append(n), 1, "turn") for name in "ab"]
    lines: list[str] = []
    timings = bench.time_in_turn(parts, 3, told(lines))
    assert "".join(order) == "ab" + 3 * "ab"
    assert len(timings) == 2
    assert lines == ["warming up: a", "warming up: b", *(f"turn {i} of 3" for i in (1, 2, 3))]


def test_medians_and_quartiles_are_of_the_turns_and_not_of_the_first_run() -> None:
    pauses = iter([0.3, 0.02, 0.04, 0.06])
    part = bench.Part("sleep", lambda: time.sleep(next(pauses)), 10, "nap")
    (timing,) = bench.time_in_turn([part], 3, lambda _: None)
    assert timing.first >= 0.3
    assert 0.04 <= timing.median < 0.06
    assert 0.03 <= timing.low < timing.median < timing.high
    assert timing.cpu < 0.02, "sleeping takes no CPU time"


def test_rows_say_their_share_of_what_bounds_them() -> None:
    timing = bench.Timing(1.0, 0.4, 0.5, 0.6, 0.5)
    peaks = {"float32 product": 100.0, "bfloat16 product": 400.0, "copy": 10.0}
    wide = bench.Part("x, float32", lambda: None, 20, "image", flops=25.0)
    assert bench.as_row(wide, timing, peaks)["share_of_peak"] == 0.5
    low = wide._replace(name="x, bfloat16")
    assert bench.as_row(low, timing, peaks)["share_of_peak"] == 0.125
    read = bench.Part("y", lambda: None, 20, "row", traffic=2.5)
    row = bench.as_row(read, timing, peaks)
    assert row["share_of_peak"] == 0.5
    assert row["items_per_second"] == 40
    slow = bench.as_row(wide._replace(peer=True, name="peer"), timing, peaks)
    lines = list(bench.lines({"rows": [bench.as_row(wide, timing, peaks), slow]}))
    assert lines[0].startswith("x, float32  40 images/s  500.0 ms (400.0-600.0)  50% of the")
    assert lines[-1] == "x, float32: 1.00 x peer"


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, marks=[pytest.mark.slow] if case in SLOW else [])
        for case in sorted(set(bench.CASES) - {"scan"})
    ],
)
def test_every_case_runs(case: str, tmp_path: Path) -> None:
    found = bench.bench(BenchConfig(case=case, size="tiny", repeats=1), tmp_path, lambda _: None)
    assert json.loads((tmp_path / f"bench-{case}.json").read_text()) == found
    assert set(found["peaks"]) == set(bench.PEAKS)
    assert found["rows"]
    assert all(row["items_per_second"] > 0 for row in found["rows"])
    names = [row["name"] for row in found["rows"]]
    assert len(set(names)) == len(names)
    assert (set(names) & set(bench.PEAKS) == set(bench.PEAKS)) == (case == "machine")


@pytest.mark.slow
def test_a_whole_scan_is_timed(tmp_path: Path) -> None:
    config = BenchConfig(case="scan", size="tiny", repeats=1)
    found = bench.bench(config, tmp_path, lambda _: None)
    assert len(found["rows"]) == 3


def test_unknown_cases_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no case 'nothing'; there are: machine, encode"):
        bench.bench(BenchConfig(case="nothing"), tmp_path, lambda _: None)


def test_the_verb_compares_with_an_earlier_run(tmp_path: Path, run: Run) -> None:  # noqa: F811
    common = ("bench", "machine", "--size=tiny", "--repeats=1")
    assert run(*common, f"--out={tmp_path / 'a'}").code == 0
    earlier = tmp_path / "a" / "bench-machine.json"
    ran = run(*common, f"--out={tmp_path / 'b'}", f"--compare={earlier}")
    assert ran.code == 0
    assert ran.out.count("x the earlier rate") == 3
    page = (tmp_path / "b" / "performance.md").read_text()
    assert "## machine" in page
    assert page.count("| float32 product |") == 1
    ran = run("bench", "loss", "--size=tiny", f"--compare={earlier}", f"--out={tmp_path}")
    assert ran.code == 2
    assert "is of case machine, size tiny, not of loss, tiny" in ran.last
    ran = run(*common, f"--compare={tmp_path}", f"--out={tmp_path}")
    assert ran.code == 2
    assert "is no result of `mmjax bench`" in ran.last
