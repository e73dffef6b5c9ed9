"""The same targets, mutated by libFuzzer towards code that no input has reached yet.

Wants atheris (Linux, Python 3.11 to 3.13): `pip install atheris` into an environment of its own.

python -m tests.fuzz.guided --seconds=600 --record=docs/results/fuzz.json
"""

import argparse
import contextlib
import mmap
import os
import resource
import sys
import tempfile
import warnings
from pathlib import Path
from typing import NoReturn

import atheris  # pyright: ignore[reportMissingImports]

with atheris.instrument_imports(include=["mmjax"], enable_loader_override=False):
    from mmjax.core.errors import MmjaxError
    from mmjax.core.files import write_json
    from tests.fuzz.__main__ import earlier_runs
    from tests.fuzz.engine import LIMIT
    from tests.fuzz.targets import TARGETS, Target


def main() -> int:
    """0: nothing was found."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=60, help="in all")
    parser.add_argument("--only", default="", help="names of targets, with commas")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--findings", type=Path, default=Path("fuzz-findings"))
    parser.add_argument("--record", type=Path, help="a JSON file of runs; this one is added")
    arguments = parser.parse_args()
    chosen = [name for name in TARGETS if name in (arguments.only or name).split(",")]
    arguments.findings.mkdir(parents=True, exist_ok=True)
    inputs, findings = {}, []
    for name in chosen:
        fed = mmap.mmap(-1, 8)
        with tempfile.TemporaryDirectory() as work:
            child = os.fork()
            if child == 0:
                _fuzz(TARGETS[name], name, fed, Path(work), arguments, len(chosen))
            _, status = os.waitpid(child, 0)
        inputs[name] = int.from_bytes(fed[:], "little")
        if status:
            findings.append(f"{name}, guided, seed {arguments.seed}: see {arguments.findings}")
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = {
        "engine": "atheris",
        "first_seed": arguments.seed,
        "last_seed": -1,
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 1),
        "inputs": inputs,
        "findings": findings,
    }
    if arguments.record:
        write_json(arguments.record, [*earlier_runs(arguments.record), done])
    sys.stdout.write(f"{sum(inputs.values()):,} inputs, {done['cpu_seconds']:.0f} CPU s\n")
    sys.stdout.write("".join(f"{finding}\n" for finding in findings))
    return 1 if findings else 0


def _fuzz(
    target: Target,
    name: str,
    fed: mmap.mmap,
    work: Path,
    arguments: argparse.Namespace,
    targets: int,
) -> NoReturn:
    """Feed one target; libFuzzer ends the process."""
    corpus = work / "corpus"
    corpus.mkdir()
    for number, data in enumerate(target.seeds):
        (corpus / str(number)).write_bytes(data)
    folder = work / "work" / name
    warnings.simplefilter("error")

    def feed(data: bytes) -> None:
        fed[:] = (int.from_bytes(fed[:], "little") + 1).to_bytes(8, "little")
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(MmjaxError):
            target.eat(data, folder)

    options = {
        "max_total_time": int(arguments.seconds / targets),
        "timeout": LIMIT,
        "seed": arguments.seed,
        "artifact_prefix": f"{arguments.findings}/{name}-",
        "max_len": 32_768,
        "verbosity": 0,
    }
    given = [f"-{option}={value}" for option, value in options.items()]
    atheris.Setup([sys.argv[0], *given, str(corpus)], feed)
    atheris.Fuzz()
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
