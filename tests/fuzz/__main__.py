"""Fuzz all targets in turn for so many seconds of CPU time; findings go to FOLDER."""

import argparse
import itertools
import sys
import tempfile
import time
import warnings
from pathlib import Path

from tests.fuzz.engine import run
from tests.fuzz.targets import TARGETS


def main() -> int:
    """0: nothing was found."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--only", default="", help="names of targets, with commas")
    parser.add_argument("--findings", type=Path, default=Path("fuzz-findings"))
    arguments = parser.parse_args()
    chosen = [name for name in TARGETS if name in (arguments.only or name).split(",")]
    warnings.simplefilter("error")
    fed, found = 0, 0
    with tempfile.TemporaryDirectory() as work:
        for seed in itertools.count():
            for name in chosen:
                finding = run(TARGETS[name], Path(work) / name, seed=seed, count=200)
                fed += 200
                if finding:
                    found += 1
                    arguments.findings.mkdir(parents=True, exist_ok=True)
                    (arguments.findings / f"{name}-{seed}").write_bytes(finding.data)
                    sys.stdout.write(f"{name}, seed {seed}: {finding.what}\n")
            if time.process_time() > arguments.seconds:
                break
    sys.stdout.write(f"{fed:,} inputs, {time.process_time():.0f} CPU s, {found} findings\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
