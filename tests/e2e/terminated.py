"""A training that signals itself after a step: no race with a fast machine.

python -m tests.e2e.terminated STEP[:SIGNAL] ...; SIGTERM if none is named, STEP 0 never does. It
says which step its first metrics are of.
"""

import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from mmjax.cli import main
from mmjax.train import record


def terminate_after(step: int, number: int) -> None:
    """Send this process a signal when the metrics of `step` are written."""
    append, first = record.append, True

    def append_and_terminate(log: Path, done: int, metrics: Mapping[str, float]) -> None:
        nonlocal first
        if first:
            sys.stderr.write(f"first metrics are of step {done}\n")
            first = False
        append(log, done, metrics)
        if done == step:
            os.kill(os.getpid(), number)

    record.append = append_and_terminate


if __name__ == "__main__":
    wanted, _, named = sys.argv[1].partition(":")
    terminate_after(int(wanted), int(named or signal.SIGTERM))
    sys.exit(main(sys.argv[2:]))
