#!/usr/bin/env python3
"""Run a verb in several processes of this machine, as on several hosts.

launch/multiprocess.py [--processes=2] [--devices=N] [--dry_run] VERB [arguments]

`scan` is divided: every process encodes its part of the shards (--part=I/N), then one decides.
`train` and `protect` (of a set) are one run: the processes join (--coordinator, --processes,
--process).
Lines of output begin with the number of their process. The first process that fails ends the
others, and its exit code is this one's; SIGTERM and SIGINT go on to all of them.

  --processes=2   how many
  --devices=N     simulate N CPU devices in each; without it a process takes what JAX finds
  --dry_run       print the commands and run nothing
  MMJAX=...       the command, if it is not that of this checkout
"""

import contextlib
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

GRACE = 60.0
"""Seconds from SIGTERM to SIGKILL: a training saves its state meanwhile."""
OWN = (sys.executable, "-c", "from mmjax.cli import entry_point; entry_point()")
MMJAX = (os.environ["MMJAX"],) if os.environ.get("MMJAX") else OWN


def commands(verb: str, arguments: Sequence[str], processes: int) -> list[list[list[str]]]:
    """Steps, one after the other; the commands of a step run at the same time."""
    call = [verb, *arguments]
    if verb == "scan":
        return [[[*call, f"--part={i}/{processes}"] for i in range(processes)], [call]]
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    joined = [*call, f"--coordinator=127.0.0.1:{port}", f"--processes={processes}"]
    return [[[*joined, f"--process={i}"] for i in range(processes)]]


def run_together(step: Sequence[Sequence[str]], environment: dict[str, str]) -> int:
    """Run the commands of a step; the exit code of the first that failed, 0 if none did."""
    started = [
        subprocess.Popen(
            [*MMJAX, *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        for arguments in step
    ]

    def send(signum: int, frame: object = None) -> None:
        for process in started:
            if process.poll() is None:
                os.kill(process.pid, signum)

    before = {s: signal.signal(s, send) for s in (signal.SIGTERM, signal.SIGINT)}
    readers = [
        threading.Thread(target=_tell, args=(number, process.stdout), daemon=True)
        for number, process in enumerate(started)
    ]
    for reader in readers:
        reader.start()
    try:
        failed = _first_failure(started)
        if failed:
            send(signal.SIGTERM)
            for process in started:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(GRACE)
        return failed
    finally:
        send(signal.SIGKILL)
        for process, reader in zip(started, readers, strict=True):
            process.wait()
            reader.join()
        for signum, handler in before.items():
            signal.signal(signum, handler)


def _first_failure(started: Sequence[subprocess.Popen[bytes]]) -> int:
    while True:
        codes = [process.poll() for process in started]
        failed = next((code for code in codes if code), 0)
        if failed or all(code == 0 for code in codes):
            return failed if failed >= 0 else 128 - failed
        time.sleep(0.1)


def _tell(number: int, lines: IO[bytes] | None) -> None:
    for line in lines or ():
        sys.stdout.buffer.write(f"[{number}] ".encode() + line)
        sys.stdout.buffer.flush()


def main(arguments: Sequence[str]) -> int:
    """What the script does; its exit code."""
    processes, devices, dry_run = 2, "", False
    rest = list(arguments)
    while rest and rest[0].startswith("--"):
        name, _, value = rest.pop(0).partition("=")
        if name == "--processes" and value.isdecimal() and int(value) > 0:
            processes = int(value)
        elif name == "--devices" and value.isdecimal() and int(value) > 0:
            devices = value
        elif name == "--dry_run" and not value:
            dry_run = True
        else:
            print(__doc__, file=sys.stderr)
            return 0 if name == "--help" else 2
    if not rest:
        print(__doc__, file=sys.stderr)
        return 2
    environment = dict(os.environ)
    environment["PYTHONPATH"] = os.pathsep.join(
        filter(None, [str(Path(__file__).resolve().parent.parent), os.environ.get("PYTHONPATH")])
    )
    if devices:
        environment |= {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": devices}
    for step in commands(rest[0], rest[1:], processes):
        if dry_run:
            print("\n".join(shlex.join(["mmjax", *call]) for call in step))
            continue
        code = run_together(step, environment)
        if code:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
