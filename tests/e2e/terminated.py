"""A training that sends itself SIGTERM after a step: no race with a fast machine.

python -m tests.e2e.terminated STEP ...; STEP 0 never does
"""

import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from mmjax.cli import main
from mmjax.train import record


def terminate_after(step: int) -> None:
    """Send this process SIGTERM when the metrics of `step` are written."""
    append = record.append

    def append_and_terminate(log: Path, done: int, metrics: Mapping[str, float]) -> None:
        append(log, done, metrics)
        if done == step:
            os.kill(os.getpid(), signal.SIGTERM)

    record.append = append_and_terminate


if __name__ == "__main__":
    terminate_after(int(sys.argv[1]))
    sys.exit(main(sys.argv[2:]))
