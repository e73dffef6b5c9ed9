"""Kill each verb so many times, and write what became of every trial."""

import argparse
import contextlib
import functools
import json
import os
import random
import signal
import sys
import tempfile
import threading
import warnings
from pathlib import Path
from typing import Any

# one thread: results are the same, and a forked child is alone
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from mmjax.core.files import write_json
from tests.conftest import ROOT
from tests.crash.cases import Case, cases, import_all, make_inputs
from tests.crash.engine import Child
from tests.crash.trials import SIGNALS, Trials


def main() -> int:
    """0: every trial ended at the bytes of the run that nothing happened to."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=50, help="of each verb")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--verb", default="", help="names of cases, with commas")
    parser.add_argument(
        "--record",
        type=Path,
        default=ROOT / "docs" / "results" / "crash.json",
        help="a JSON file; trials of this seed that are in it are not done again",
    )
    arguments = parser.parse_args()
    record = begun_record(arguments.record, arguments.seed)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(42))  # and so the children end
    # children are forked before JAX has made a thread; it warns of what would follow
    warnings.filterwarnings("ignore", message="os.fork")
    import_all()
    if threading.active_count() != 1:
        raise RuntimeError("there are threads: a child could wait for one for ever")
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        with contextlib.closing(Child(functools.partial(make_inputs, work), work)) as child:
            made = child.run()
        if made.code:
            raise RuntimeError(made.said)
        known = cases(work)
        for name in arguments.verb.split(",") if arguments.verb else known:
            try_verb(known[name], work / "out", name, record, arguments)
    trials = [trial for each in record["verbs"].values() for trial in each["trials"]]
    bad = sum(bool(trial["wrong"] or trial["differs"]) for trial in trials)
    sys.stdout.write(f"{len(trials)} trials, {bad} of them wrong\n")
    return 1 if bad else 0


def begun_record(file: Path, seed: int) -> dict[str, Any]:
    """The record of earlier calls with this seed."""
    if file.exists():
        earlier = json.loads(file.read_text(encoding="utf-8"))
        if earlier["seed"] == seed:
            return earlier
    return {"seed": seed, "cpu_seconds": 0.0, "verbs": {}}


def try_verb(
    case: Case, out: Path, name: str, record: dict[str, Any], arguments: argparse.Namespace
) -> None:
    """The trials of a verb that are not in the record; each is written when it is done.

    Signals take turns; every second moment is drawn among file events, the others over time; every
    twelfth trial is killed twice.
    """
    told = [argument.replace(str(out.parent), "WORK") for argument in case.arguments]
    earlier = record["verbs"].get(name, {"arguments": None})
    done = earlier["trials"] if earlier["arguments"] == told else []
    if len(done) >= arguments.trials:
        return
    spent = os.times()
    with contextlib.closing(Trials(case, out)) as trials:
        whole = trials.whole
        record["verbs"][name] = {
            "arguments": told,
            "seconds": round(whole.ended.seconds, 3),
            "files": whole.ended.events,
            "trials": done,
        }
        for number in range(len(done), arguments.trials):
            rng = random.Random(f"{arguments.seed} {name} {number}")
            kills = 2 if number % 12 == 11 else 1
            signals = [SIGNALS[(number + kill) % len(SIGNALS)] for kill in range(kills)]
            done.append(trials.try_out(signals, rng, by_event=number % 2 == 1))
            write_json(arguments.record, record)
    seconds = sum(os.times()[:4]) - sum(spent[:4])
    record["cpu_seconds"] = round(record["cpu_seconds"] + seconds, 1)
    write_json(arguments.record, record)
    bad = sum(bool(trial["wrong"] or trial["differs"]) for trial in done)
    sys.stdout.write(
        f"{name}: {len(done)} trials, {bad} wrong, {seconds:.0f} CPU s; undisturbed "
        f"{whole.ended.seconds:.1f} s\n"
    )
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
