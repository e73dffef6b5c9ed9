"""Benches: every case runs, its figures are arithmetic on the clock, and earlier ones compare."""

import json
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from mmjax.core.errors import ConfigError
from mmjax.data.tokenizer import load_tokenizer
from mmjax.measure import bench
from mmjax.measure.bench_config import BenchConfig
from mmjax.measure.bench_goals import GOALS, judge, table
from mmjax.measure.bench_inputs import FLICKR8K, real_lengths
from tests.e2e.conftest import Run, run  # noqa: F401 - a fixture

SLOW = ("encode", "hotflip", "pair", "pgd", "text")


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


@pytest.fixture
def no_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the parity extra is not installed."""
    monkeypatch.setattr(bench, "torch_is_here", lambda: False)


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, marks=[pytest.mark.slow] if case in SLOW else [])
        for case in sorted(set(bench.CASES) - {"scan"})
    ],
)
@pytest.mark.usefixtures("no_torch")
def test_every_case_runs(case: str, tmp_path: Path) -> None:
    said: list[str] = []
    found = bench.bench(BenchConfig(case=case, size="tiny", repeats=1), tmp_path, said.append)
    assert (bench.ABSENT in said) == (case in bench.PEERS) == (found["absent"] != "")
    assert (list(bench.lines(found))[-1] == bench.ABSENT) == (case in bench.PEERS)
    assert json.loads((tmp_path / f"bench-{case}.json").read_text()) == found
    assert set(found["peaks"]) == set(bench.PEAKS)
    assert found["rows"]
    assert all(row["items_per_second"] > 0 for row in found["rows"])
    names = [row["name"] for row in found["rows"]]
    assert len(set(names)) == len(names)
    assert not any("torch" in name for name in names)
    assert (set(names) & set(bench.PEAKS) == set(bench.PEAKS)) == (case == "machine")


@pytest.mark.slow
def test_a_whole_scan_is_timed(tmp_path: Path) -> None:
    config = BenchConfig(case="scan", size="tiny", repeats=1)
    found = bench.bench(config, tmp_path, lambda _: None)
    assert len(found["rows"]) == 3


def row_of(name: str, rate: float, cpu: float = 2.0, held: float = 0.0) -> dict:
    """A row of `rate` items a second, ten of them in all, that took `cpu` seconds of CPU."""
    row = {"name": name, "items_per_second": rate, "seconds": 10 / rate, "cpu_seconds": cpu}
    return row | ({"temporary_bytes": held} if held else {})


def test_goals_are_judged_by_rates_cores_and_memory() -> None:
    (rate,) = (goal for goal in GOALS if goal.case == "pgd")
    speed, memory = (goal for goal in GOALS if goal.case == "loss")
    (cores,) = (goal for goal in GOALS if goal.of == "rate a core")
    results: dict[str, dict] = {
        "pgd": {"size": "full", "rows": [row_of(rate.own, 12, 1.0), row_of(rate.peer, 10, 3.0)]},
        "loss": {
            "size": "full",
            "rows": [row_of(speed.own, 9, held=5.0), row_of(speed.peer, 10, held=60.0)],
        },
        "loader": {
            "size": "small",
            "cores": 4,
            "rows": [row_of(cores.own.format(cores=4), 30), row_of(cores.peer, 10)],
        },
        "hotflip": {"size": "full", "rows": [row_of("another name", 1)]},
    }
    verdicts = {verdict.goal: verdict for verdict in judge(results)}
    assert set(verdicts) == set(GOALS)
    assert verdicts[rate][2:] == pytest.approx((1.2, 3.0))
    assert verdicts[rate].word == "holds"
    assert (verdicts[speed].wall, verdicts[speed].word) == (0.9, "missed")
    assert (verdicts[memory].wall, verdicts[memory].word) == (12, "holds")
    assert (verdicts[cores].wall, verdicts[cores].word) == (0.75, "not judged at size small")
    others = {goal for goal, verdict in verdicts.items() if verdict.word == "not measured"}
    assert others == set(GOALS) - {rate, speed, memory, cores}
    lines = list(table(list(verdicts.values())))
    assert len(lines) == 2 + len(GOALS)
    assert f"| pgd | {rate.own} | {rate.peer} | 1.2 x | 1.5 x | 1.2 x | 3 x | holds |" in lines


def test_flickr8ks_lengths_are_drawn_in_their_proportions() -> None:
    lengths = real_lengths(40_455, 77)
    assert Counter(lengths.tolist()) == FLICKR8K
    assert real_lengths(1000, 20).max() == 20
    assert np.median(real_lengths(1001, 77)) == np.median(lengths)


@pytest.mark.real
def test_flickr8ks_lengths_are_its_own(data_root: Path) -> None:
    rows = (data_root / "flickr8k" / "captions.tsv").read_text().splitlines()[1:]
    tokenizer = load_tokenizer(data_root / "tokenizer_and_prompts" / "bpe_simple_vocab_16e6.txt.gz")
    tokens = tokenizer.encode([row.split("\t", 1)[1] for row in rows])
    assert Counter(tokens.lengths.tolist()) == FLICKR8K


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
    assert page.count("| not measured |") == len(GOALS)
    assert page.count("| float32 product |") == 1
    ran = run("bench", "loss", "--size=tiny", f"--compare={earlier}", f"--out={tmp_path}")
    assert ran.code == 2
    assert "is of case machine, size tiny, not of loss, tiny" in ran.last
    ran = run(*common, f"--compare={tmp_path}", f"--out={tmp_path}")
    assert ran.code == 2
    assert "is no result of `mmjax bench`" in ran.last
