"""docs/reliability.md from what the last run of the table, the crash tests and the fuzzing left.

pytest tests/faults -m "slow or not slow" && python -m tests.faults.page
"""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from mmjax.core.files import write_bytes
from tests.conftest import ROOT
from tests.faults.test_faults import FAULTS, RESULTS

RECORDS = ROOT / "docs" / "results"
HEAD = """# What happens when something is wrong

Made by `pytest tests/faults -m "slow or not slow" && python -m tests.faults.page`. Every row is a
test in `tests/faults/`: it makes the fault, runs the real verb, and checks that every input row is
in exactly one row of the results, that counts add up, the status and the exit code, that an error
is one line with what to do, that nothing is written outside the run's folder and nothing that an
input contains is executed. "In its own process" is the same test on `mmjax` as a user starts it.

| | fault | what mmjax does | held | in its own process |
|---|---|---|---|---|
"""
CRASHES = """
## Killed and started again

Made by `{command}`, from [crash.json](results/crash.json): every trial with its signal, its moment,
the file that was last touched and the exit codes. A verb is run on a small set, killed at a moment
drawn over the length of an undisturbed run or among its file events (every twelfth trial: twice),
and the same command is run again. Trials that say so met a process that had run the verb before,
in which most of the time goes into files. Every file must then be equal,
byte for byte, to the one of the undisturbed run: verdicts, embeddings, reports, shards, weights,
metrics; only logs, the lock and the times in checkpoints may differ. After SIGTERM and SIGINT
nothing half-written may be left, and nobody may see a traceback.

| verb | trials | SIGKILL | SIGTERM | SIGINT | over before | after its first file | differences |
|---|---|---|---|---|---|---|---|
"""
FUZZING = """
## Fuzzing

Made by `python -m tests.fuzz --seconds=3600 --record=docs/results/fuzz.json`, from
[fuzz.json](results/fuzz.json): seeded mutations of small files (bits, bytes, cuts, repeats, words),
fed to what reads them. A finding is anything but one of mmjax's own errors within {limit} s. Every
one is a test by now.

| reader | inputs |
|---|---|
"""


def page() -> str:
    """The page; a row whose test has not run since the last failure says so."""
    return HEAD + table() + crashes(_record("crash.json")) + fuzzing(_record("fuzz.json"))


def table() -> str:
    """A row for each fault."""
    lines = []
    for name in sorted(FAULTS, key=lambda name: int(name[1:])):
        each = FAULTS[name]
        held = [
            "yes" if (RESULTS / f"{name}-{how}").exists() else "NO" for how in ("here", "apart")
        ]
        lines.append(_row(name, each.fault, each.promised, *held))
    return "".join(lines)


def crashes(record: dict[str, Any] | None) -> str:
    """What became of the trials of each verb; nothing without a record."""
    if record is None:
        return ""
    lines = [CRASHES.format(command=f"python -m tests.crash --seed={record['seed']}")]
    totals: Counter[str] = Counter()
    columns = ("trials", "SIGKILL", "SIGTERM", "SIGINT", "over", "writing", "differences")
    for name, each in record["verbs"].items():
        counted: Counter[str] = Counter()
        for trial in each["trials"]:
            counted["trials"] += 1
            counted["differences"] += bool(trial["wrong"] or trial["differs"])
            for kill in trial["kills"]:
                counted[kill["signal"]] += 1
                counted["over"] += kill["code"] == 0
                counted["writing"] += bool(kill["at"])
        lines.append(_row(name, *(f"{counted[column]}" for column in columns)))
        totals.update(counted)
    lines.append(_row("all", *(f"{totals[column]}" for column in columns)))
    return "".join(lines)


def fuzzing(record: list[dict[str, Any]] | None) -> str:
    """Inputs of every reader, findings and processor time; nothing without a record."""
    if record is None:
        return ""
    from tests.fuzz.engine import LIMIT

    inputs: Counter[str] = Counter()
    for run in record:
        inputs.update(run["inputs"])
    findings = sorted({finding for run in record for finding in run["findings"]})
    rows = "".join(_row(name, f"{count:,}") for name, count in sorted(inputs.items()))
    minutes = sum(run["cpu_seconds"] for run in record) / 60
    told = "".join(f"- {finding}\n" for finding in findings)
    return (
        FUZZING.format(limit=LIMIT)
        + rows
        + f"\n{inputs.total():,} inputs in {minutes:.0f} CPU minutes, {len(findings)} findings"
        + (f":\n\n{told}" if told else ".\n")
    )


def _record(name: str) -> Any:
    file = Path(RECORDS, name)
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else None


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


if __name__ == "__main__":
    write_bytes(ROOT / "docs" / "reliability.md", page().encode())
