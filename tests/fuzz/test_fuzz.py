"""A few mutations of every target; `python -m tests.fuzz --seconds=3600` goes on."""

import random
from pathlib import Path

import pytest

from mmjax.core.errors import InputError
from tests.fuzz import engine
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
