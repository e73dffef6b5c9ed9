"""Every row of the table, in this process; with `-m slow`, in processes of their own too."""

from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.e2e.conftest import World, make_world
from tests.faults import archives, images_and_captions, runs, weights_and_numbers
from tests.faults.case import FAULTS, Case

pytestmark = pytest.mark.e2e
MODULES = (images_and_captions, archives, weights_and_numbers, runs)
RESULTS = ROOT / ".cache" / "faults"
"""A file for each row that held; `python -m tests.faults.page` makes docs/reliability.md."""


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"))


def test_the_table_is_whole() -> None:
    assert set(FAULTS) == {f"F{n}" for n in range(1, 47)}
    assert {each.test.__module__ for each in FAULTS.values()} == {m.__name__ for m in MODULES}


def _rows(apart: bool) -> list:
    return [
        pytest.param(name, id=name, marks=pytest.mark.slow if apart or each.slow else ())
        for name, each in FAULTS.items()
    ]


def check(name: str, world: World, folder: Path, *, apart: bool) -> None:
    (folder / "in").mkdir()
    result = RESULTS / f"{name}-{'apart' if apart else 'here'}"
    result.unlink(missing_ok=True)
    FAULTS[name].test(Case(world, folder, apart))
    result.parent.mkdir(parents=True, exist_ok=True)
    result.touch()


@pytest.mark.parametrize("name", _rows(apart=False))
def test_fault(name: str, world: World, tmp_path: Path) -> None:
    check(name, world, tmp_path, apart=False)


@pytest.mark.parametrize("name", _rows(apart=True))
def test_fault_in_a_process_of_its_own(name: str, world: World, tmp_path: Path) -> None:
    check(name, world, tmp_path, apart=True)
