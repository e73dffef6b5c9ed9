"""A verb that is signalled when it has journalled so many shards: no race with a fast machine.

python -m tests.e2e.signalled SIGNAL SHARDS VERB ...

With SIGNAL 0 it waits there until another process sends one.
"""

import os
import signal
import sys
from typing import Any

from mmjax.cli import main
from mmjax.core.rundir import RunDir


def signal_after(shards: int, number: int) -> None:
    """Send this process a signal when its `shards`-th shard is in the journal."""
    finish, done = RunDir.finish, 0

    def finish_and_signal(run: RunDir, unit: str, outputs: Any, **values: Any) -> None:
        nonlocal done
        finish(run, unit, outputs, **values)
        done += unit.isdigit()  # other units of work have names
        if done == shards:
            if number:
                os.kill(os.getpid(), number)
            else:
                signal.pause()

    RunDir.finish = finish_and_signal


if __name__ == "__main__":
    # a shell's background job, and so this child of its tests, starts with SIGINT ignored
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal_after(int(sys.argv[2]), int(sys.argv[1]))
    sys.exit(main(sys.argv[3:]))
