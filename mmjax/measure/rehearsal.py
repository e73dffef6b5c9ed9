"""A rehearsal of a large scan's score stage, on embeddings drawn for it; its page tells all sizes.

python -m mmjax.measure.rehearsal --pairs=3300000 --folder=FOLDER --out=docs/results

Every step is a process of its own, so that its memory is its own too. FOLDER takes 4 KB a pair and
may be deleted afterwards.
"""

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq

from mmjax.core.files import write_bytes, write_json
from mmjax.core.progress import notice
from mmjax.core.rundir import versions
from mmjax.measure.rehearsal_page import NAME, page
from mmjax.measure.rehearsal_set import write_set

REFERENCE = 20_000
"""Clean pairs that the mapping is fitted on."""
_MMJAX = (sys.executable, "-c", "from mmjax.cli import entry_point; entry_point()")


class Step(NamedTuple):
    """What a process took.

    Fields:
        name: the verb.
        seconds: of the clock.
        cpu: seconds of all its threads.
        resident: most memory that it held at a time, bytes.
        load: the machine's average over a minute, when it ended; this step is in it.
    """

    name: str
    seconds: float
    cpu: float
    resident: int
    load: float


def measured(*arguments: str) -> Step:
    """Run a verb of mmjax in a process of its own.

    Raises:
        CalledProcessError: it failed.
    """
    begun = time.perf_counter()
    process = subprocess.Popen([*_MMJAX, *arguments], stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - begun
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, process.args)
    cpu = used.ru_utime + used.ru_stime
    return Step(arguments[0], seconds, cpu, used.ru_maxrss * 1024, os.getloadavg()[0])


def rehearse(folder: Path, pairs: int, dimension: int, mode: str, kind: str) -> dict[str, Any]:
    """Draw a set and fit a mapping if they are not there, scan, and decide once more.

    Args:
        folder: takes the sets, the mapping and the runs; it has no run of this size yet.
        pairs: how many are scanned.
        dimension: of the embeddings.
        mode: of the scan.
        kind: of the mapping; `ridge` or `regression`.

    Returns:
        What `rehearsal-....json` holds.
    """
    reference, scanned = folder / f"reference-{dimension}", folder / f"{pairs}-{dimension}"
    # the system counts a parent's memory in the processes that it starts
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as apart:
        for target, rows, clean in (
            (reference, min(REFERENCE, pairs), True),
            (scanned, pairs, False),
        ):
            if not (target / "poison_labels.parquet").exists():
                apart.submit(write_set, target, rows, dimension, seed=0, clean=clean).result()
    mapping = folder / f"mapping-{dimension}-{kind}"
    if not (mapping / "mapping.json").exists():
        measured("fit-mapping", str(reference), f"--out={mapping}", f"--config.fit.kind={kind}")
    name = f"{pairs}-{dimension}-{mode}-{kind}"
    run, again = (folder / f"{what}-{name}" for what in ("run", "rescored"))
    first = measured(
        *("scan", str(scanned), f"--mapping={mapping}", f"--out={run}"),
        f"--config.stages.mode={mode}",
    )
    second = measured("rescore", str(run), f"--out={again}", "--gamma=0.8")
    return {
        "pairs": pairs,
        "dimension": dimension,
        "mode": mode,
        "kind": kind,
        "cores": len(os.sched_getaffinity(0)),
        "versions": versions(),
        "steps": [step._asdict() for step in (first, second)],
        "stored_bytes": sum(file.stat().st_size for file in scanned.rglob("*.npy")),
        "run_bytes": sum(file.stat().st_size for file in run.rglob("*") if file.is_file()),
        "found": _found(run, scanned),
        "counts": json.loads((run / "summary.json").read_text(encoding="utf-8"))["counts"],
    }


def _found(run: Path, scanned: Path) -> dict[str, int]:
    """Poisoned pairs, how many were flagged, and how many others."""
    truth = pq.read_table(scanned / "poison_labels.parquet")["is_poisoned"].to_numpy()
    flags = np.concatenate(
        [
            pq.read_table(file, columns=["is_poisoned"])["is_poisoned"].to_numpy()
            for file in sorted((run / "verdicts").glob("*.parquet"))
        ]
    )
    return {
        "poisoned": int(truth.sum()),
        "flagged": int((flags & truth).sum()),
        "wrongly": int((flags & ~truth).sum()),
    }


def write_page(folder: Path) -> Path:
    """Write the page of all rehearsals that a folder holds results of."""
    found = [json.loads(f.read_text(encoding="utf-8")) for f in folder.glob("rehearsal-*.json")]
    file = folder / NAME
    write_bytes(file, page(found).encode())
    return file


def main(arguments: Sequence[str]) -> int:
    """Rehearse and write the result and the page."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--pairs", type=int, required=True)
    parser.add_argument("--dimension", type=int, default=1024)
    parser.add_argument("--mode", default="paper", choices=("paper", "robust"))
    parser.add_argument("--kind", default="ridge", choices=("ridge", "regression"))
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args(arguments)
    found = rehearse(given.folder, given.pairs, given.dimension, given.mode, given.kind)
    name = f"rehearsal-{given.mode}-{given.kind}-{given.pairs}-{given.dimension}.json"
    write_json(given.out / name, found)
    notice(f"page: {write_page(given.out)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
