"""Fuzz all targets in turn for so many seconds of CPU time; findings go to FOLDER."""

import argparse
import itertools
import json
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

from mmjax.core.files import write_json
from tests.fuzz.engine import LIMIT, feed, run
from tests.fuzz.targets import TARGETS

COUNT = 200
"""Mutations of a target for a seed."""


def main() -> int:
    """0: nothing was found."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--only", default="", help="names of targets, with commas")
    parser.add_argument("--findings", type=Path, default=Path("fuzz-findings"))
    parser.add_argument(
        "--record", type=Path, help="a JSON file of runs: goes on after the last one's seeds"
    )
    parser.add_argument(
        "--again",
        action="store_true",
        help="feed the findings again instead; a hang that was the machine's leaves the record",
    )
    arguments = parser.parse_args()
    if arguments.again:
        return feed_again(arguments.findings, arguments.record)
    chosen = [name for name in TARGETS if name in (arguments.only or name).split(",")]
    warnings.simplefilter("error")
    earlier = earlier_runs(arguments.record)
    first = max((each["last_seed"] + 1 for each in earlier), default=0)
    inputs = dict.fromkeys(chosen, 0)
    findings: list[str] = []
    with tempfile.TemporaryDirectory() as work:
        for seed in itertools.count(first):
            for name in chosen:
                fed, finding = run(TARGETS[name], Path(work) / name, seed=seed, count=COUNT)
                inputs[name] += fed
                if finding:
                    findings.append(f"{name}, seed {seed}: {finding.what}")
                    arguments.findings.mkdir(parents=True, exist_ok=True)
                    (arguments.findings / f"{name}-{seed}").write_bytes(finding.data)
                    sys.stdout.write(findings[-1] + "\n")
            done = {
                "engine": "mutation",
                "first_seed": first,
                "last_seed": seed,
                "cpu_seconds": round(time.process_time(), 1),
                "inputs": inputs,
                "findings": findings,
            }
            if arguments.record:
                write_json(arguments.record, [*earlier, done])
            if time.process_time() > arguments.seconds:
                break
    total = sum(inputs.values())
    sys.stdout.write(
        f"{total:,} inputs, {time.process_time():.0f} CPU s, {len(findings)} findings\n"
    )
    return 1 if findings else 0


def feed_again(findings: Path, record: Path | None) -> int:
    """Feed every stored input again; 0: nothing was found. What took too long once is forgotten."""
    earlier, found = earlier_runs(record), 0
    with tempfile.TemporaryDirectory() as work:
        for file in sorted(findings.iterdir()):
            name, _, seed = file.name.rpartition("-")
            begun = time.process_time()
            finding = feed(TARGETS[name], file.read_bytes(), Path(work) / name)
            found += finding is not None
            told = finding.what if finding else "nothing"
            sys.stdout.write(f"{file.name}: {told}, {time.process_time() - begun:.3f} CPU s\n")
            if finding is None:
                hang = f"{name}, seed {seed}: took more than {LIMIT} s"
                for each in earlier:
                    each["findings"] = [what for what in each["findings"] if what != hang]
    if record:
        write_json(record, earlier)
    return 1 if found else 0


def earlier_runs(record: Path | None) -> list[dict[str, Any]]:
    """The runs that a record holds."""
    if record is None or not record.exists():
        return []
    return json.loads(record.read_text(encoding="utf-8"))


if __name__ == "__main__":
    sys.exit(main())
