"""A few mutations of every target; `python -m tests.fuzz --seconds=3600` goes on."""

import random
from pathlib import Path

import pytest

from mmjax.core.errors import InputError
from mmjax.core.files import write_json
from tests.fuzz import engine
from tests.fuzz.__main__ import earlier_runs, feed_again
from tests.fuzz.engine import Finding, feed, mutated, run
from tests.fuzz.targets import TARGETS, Target


@pytest.mark.parametrize("name", TARGETS)
def test_nothing_but_our_own_errors(name: str, tmp_path: Path) -> None:
    fed, found = run(TARGETS[name], tmp_path / "work", seed=1_000, count=60)
    assert found is None
    assert fed == 60 + len(TARGETS[name].seeds)


def test_the_engine_finds_what_there_is_to_find(tmp_path: Path, monkeypatch) -> None:
    def crash(data: bytes, folder: Path) -> None:
        if b"\xff" in data:
            raise IndexError("out of range")

    _, found = run(Target((b"harmless",), crash), tmp_path / "work", seed=0, count=500)
    assert found is not None
    assert found.what == "IndexError: out of range"

    def refuse(data: bytes, folder: Path) -> None:
        raise InputError("it is none; give another")

    assert feed(Target((b"",), refuse), b"x", tmp_path / "work") is None
    monkeypatch.setattr(engine, "LIMIT", 1)

    def hang(data: bytes, folder: Path) -> None:
        while True:
            pass

    assert feed(Target((b"",), hang), b"x", tmp_path / "work") == Finding(
        b"x", "took more than 1 s"
    )


def test_mutations_are_a_function_of_the_seed() -> None:
    one, other = (mutated(b"some input", random.Random(3)) for _ in range(2))
    assert one == other
    assert len({mutated(b"some input", random.Random(n)) for n in range(50)}) > 40


def test_what_took_too_long_only_once_leaves_the_record(tmp_path: Path) -> None:
    findings, record = tmp_path / "findings", tmp_path / "fuzz.json"
    findings.mkdir()
    (findings / "npy-7").write_bytes(b"no array")
    kept = ["npy, seed 7: IndexError: x", "npy, seed 8: took more than 20 s"]
    once = f"npy, seed 7: took more than {engine.LIMIT} s"
    write_json(record, [{"findings": [once, *kept]}])
    assert feed_again(findings, record) == 0
    assert earlier_runs(record) == [{"findings": kept}]
