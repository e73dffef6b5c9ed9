"""A trial: a verb is killed, perhaps twice, then left in peace; what it leaves is compared."""

import random
import shutil
import signal
import sys
from pathlib import Path
from typing import Any, NamedTuple

from tests.crash.cases import Case, verb
from tests.crash.engine import Child, Ended, Moment, contents, differences

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
CODES = {signal.SIGKILL: -signal.SIGKILL, signal.SIGTERM: 42, signal.SIGINT: 130}
"""With which a killed verb ends."""


class Whole(NamedTuple):
    """The run that nothing happened to.

    Fields:
        contents: what it left.
        ended: how it went in a new process, with its programs in the compilation cache.
    """

    contents: dict[str, str]
    ended: Ended


class Trials:
    """The trials of one verb: `draw` and `try_out` for each.

    What is killed is a new child each time; what resumes it is one that nobody signals.

    Args:
        case: the verb.
        out: the run folder, the same for all, so that its name is in all files alike.
    """

    def __init__(self, case: Case, out: Path) -> None:
        self._case, self._out = case, out
        self._killed, self._resuming = Child(verb(case, out), out), Child(verb(case, out), out)
        self.whole = self._whole()

    def close(self) -> None:
        """End the children."""
        self._killed.close()
        self._resuming.close()
        shutil.rmtree(self._out, ignore_errors=True)

    def _whole(self) -> Whole:
        """Run undisturbed: in a child that compiles, in another, and in the first again.

        Raises:
            RuntimeError: it does not end well, or not always the same.
        """
        left, ends = [], []
        for child in (self._resuming, self._killed, self._resuming):
            shutil.rmtree(self._out, ignore_errors=True)
            ends.append(child.run())
            if ends[-1].code not in self._case.codes:
                raise RuntimeError(f"ends with {ends[-1].code}: {ends[-1].said}")
            left.append(self._left())
        for other in left[1:]:
            if different := differences(other, left[0]):
                raise RuntimeError(f"undisturbed runs differ: {different}")
        shutil.rmtree(self._out)
        self._killed.close()
        return Whole(left[0], ends[1])

    def _left(self) -> dict[str, str]:
        return contents(self._out, without=self._case.without, steps=self._case.steps)

    def draw(self, number: signal.Signals, rng: random.Random, *, by_event: bool) -> Moment:
        """A moment of a run: uniform over its length, or over its file events."""
        if by_event:
            return Moment(number, event=rng.randint(1, self.whole.ended.events))
        return Moment(number, seconds=rng.uniform(0, self.whole.ended.seconds))

    def try_out(
        self, numbers: list[signal.Signals], rng: random.Random, *, by_event: bool = False
    ) -> dict[str, Any]:
        """Run the verb, send it the first signal; run it again, send the second; then to its end.

        Returns:
            The trial as JSON; `wrong` lists what was not as it should be, `differs` the files.
        """
        case, wrong, kills, said = self._case, [], [], []
        for number in numbers:
            moment = self.draw(number, rng, by_event=by_event)
            ended = self._killed.run(moment)
            kills.append(_told(moment, ended))
            said.append(ended.said)
            allowed = (CODES[number], *case.codes)  # it may have been over
            if number == signal.SIGTERM:
                allowed += case.stopped
            if ended.code not in allowed:
                wrong.append(f"exit code {ended.code} of a run that got {number.name}")
            wrong += _misspoken(ended)
            if number != signal.SIGKILL and list(self._out.rglob("*.tmp-*")):
                wrong.append("what was begun is left behind")
        ended = self._resuming.run()
        said.append(ended.said)
        if ended.code not in case.codes:
            wrong.append(f"exit code {ended.code} of the run that resumed")
        wrong += _misspoken(ended)
        differs = differences(self._left(), self.whole.contents)
        if wrong or differs:
            sys.stdout.write("\n".join([f"{kills}: {wrong} {differs}", *said, ""]))
        shutil.rmtree(self._out, ignore_errors=True)
        return {"kills": kills, "resumed": ended.code, "wrong": wrong, "differs": differs}


def _told(moment: Moment, ended: Ended) -> dict[str, Any]:
    when = {"event": moment.event} if moment.event else {"seconds": round(moment.seconds, 3)}
    return {
        "signal": moment.signal.name,
        **when,
        "at": ended.stage,
        "code": ended.code,
    }


def _misspoken(ended: Ended) -> list[str]:
    """What was said that no user should read."""
    lines = ended.said.splitlines()
    return [line for line in lines if line.startswith(("Traceback", "Exception ignored"))]
