"""docs/reliability.md from what the last run of the table left.

pytest tests/faults -m "slow or not slow" && python -m tests.faults.page
"""

from mmjax.core.rundir import write_bytes
from tests.conftest import ROOT
from tests.faults.test_faults import FAULTS, RESULTS

HEAD = """# What happens when something is wrong

Made by `pytest tests/faults -m "slow or not slow" && python -m tests.faults.page`. Every row is a
test in `tests/faults/`: it makes the fault, runs the real verb, and checks that every input row is
in exactly one row of the results, that counts add up, the status and the exit code, that an error
is one line with what to do, that nothing is written outside the run's folder and nothing that an
input contains is executed. "In its own process" is the same test on `mmjax` as a user starts it.

| | fault | what mmjax does | held | in its own process |
|---|---|---|---|---|
"""


def page() -> str:
    """The page; a row whose test has not run since the last failure says so."""
    lines = []
    for name in sorted(FAULTS, key=lambda name: int(name[1:])):
        each = FAULTS[name]
        held = [
            "yes" if (RESULTS / f"{name}-{how}").exists() else "NO" for how in ("here", "apart")
        ]
        cells = [name, each.fault, each.promised, *held]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return HEAD + "\n".join(lines) + "\n"


if __name__ == "__main__":
    write_bytes(ROOT / "docs" / "reliability.md", page().encode())
