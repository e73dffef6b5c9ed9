"""What the faults share: a table of them, and a case that runs a verb and keeps its accounts."""

import contextlib
import dataclasses
import io
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import pyarrow as pa

from mmjax.cli import main
from tests.data.faults import pair, write_tar
from tests.e2e.conftest import Ran, World, check_accounts, run_process

GOOD = 24
"""Pairs without a fault beside the faulty ones, so that the set can be scored."""


class Fault(NamedTuple):
    """A row of the table: its number, the fault, what is promised, and the test of it."""

    name: str
    fault: str
    promised: str
    test: Callable[["Case"], None]
    slow: bool


FAULTS: dict[str, Fault] = {}


def fault(name: str, what: str, promised: str, *, slow: bool = False):
    """Enter a test into the table."""

    def enter(test: Callable[["Case"], None]) -> Callable[["Case"], None]:
        assert name not in FAULTS
        FAULTS[name] = Fault(name, what, promised, test, slow)
        return test

    return enter


def good(count: int = GOOD, first: int = 100) -> list[Any]:
    """Members of pairs without a fault."""
    return [m for i in range(first, first + count) for m in pair(f"good{i}", i, b"a %d" % i)]


@dataclasses.dataclass
class Case:
    """One run of a fault's test.

    Attributes:
      world: models and sets that nothing may write into.
      folder: an empty folder of its own; `inputs` in it is the only place where inputs lie.
      apart: verbs run in processes of their own, as a user's do.
    """

    world: World
    folder: Path
    apart: bool

    @property
    def inputs(self) -> Path:
        """Where the faulty input lies."""
        return self.folder / "in"

    @property
    def out(self) -> Path:
        """Where verbs write."""
        return self.folder / "out"

    @property
    def devices(self) -> int:
        """Of the processes that run verbs: what is compared bit by bit runs on as many."""
        return 1 if self.apart else len(jax.devices())

    @property
    def canary(self) -> Path:
        """A file that exists if anything that an input contains was executed."""
        return self.inputs / "executed"

    def run(self, *arguments: str | Path) -> Ran:
        """Run a verb; it never shows a traceback, never executes what an input holds."""
        if self.apart:
            ran = run_process(*arguments, cwd=self.folder)
        else:
            out, err = io.StringIO(), io.StringIO()
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                code = main([str(a) for a in arguments])
            ran = Ran(int(code), out.getvalue(), err.getvalue())
        assert "Traceback" not in ran.err
        assert not self.canary.exists()
        assert {p.name for p in self.folder.iterdir()} <= {"in", "out"}, "written elsewhere"
        return ran

    def scan(self, source: Path, *flags: str, code: int = 0, rows: int) -> dict[str, Any]:
        """Scan, and check that every input row is in exactly one row of the results.

        Returns:
            The summary; `rows` in it are the verdict rows.
        """
        flags = (*self.world.flags, f"--out={self.out}", "--json", *flags)
        ran = self.run("scan", source, *flags)
        assert ran.code == code, ran.err + ran.out
        summary = json.loads(ran.out)
        table: pa.Table = check_accounts(self.out, summary, rows)
        assert self.run("verify", self.out).code == 0
        return summary | {"rows": table.to_pylist()}

    def scan_members(
        self, members: Iterable[Any], *flags: str, code: int = 0, rows: int
    ) -> dict[str, dict[str, Any]]:
        """Scan a tar of these members and good pairs; `rows` of them are not good ones.

        Returns:
            The verdict rows by key; the last one of a key that comes twice.
        """
        tar = write_tar(self.inputs / "00000.tar", [*members, *good()])
        allowed = "--config.max_bad_fraction=1"
        found = self.scan(tar, allowed, *flags, code=code, rows=rows + GOOD)
        by_key = {row["key"]: row for row in found["rows"]}
        assert all(by_key[f"good{i}"]["status"] == "ok" for i in range(100, 100 + GOOD))
        return by_key

    def refuse(self, *arguments: str | Path, says: str) -> None:
        """Run what cannot work: exit 2, one line that tells how to mend it, nothing on stdout."""
        ran = self.run(*arguments)
        assert ran.code == 2, ran.err + ran.out
        assert len(ran.err.splitlines()) == 1, ran.err
        assert ran.err.startswith("mmjax: error: ")
        assert says in ran.err, ran.err
        assert not ran.out
