"""Runs a verb in a forked child, signals it at a moment, and compares what it leaves.

The parent has imported everything and started no thread, so that a child begins with the verb
itself, as `mmjax` does after its imports. A child that nobody signals can run the verb again, with
its programs traced and compiled; one that was signalled ends, as a user's process does.
"""

import gc
import hashlib
import mmap
import os
import select
import signal
import struct
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

LIMIT = 300.0
"""Seconds after which a child counts as hung."""
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_STAGE_BYTES = 4096
_QUESTION, _ANSWER = struct.Struct("ii"), struct.Struct("i?")
_POLITE = (signal.SIGINT, signal.SIGTERM)


class Moment(NamedTuple):
    """When a child is signalled, and how: after so many seconds, or at its so-manieth file event.

    A file event is a file opened for writing, renamed or removed, or a folder made, below `out`.
    """

    signal: signal.Signals
    seconds: float = 0.0
    event: int = 0


class Ended(NamedTuple):
    """How a run ended.

    Fields:
        code: the exit code; minus the signal's number if that ended the child.
        seconds: how long it ran.
        events: how many file events it came to.
        stage: what of `out` the last of them touched, relative to it; empty if none did.
        said: its stderr.
    """

    code: int
    seconds: float
    events: int
    stage: str
    said: str


class Hang(Exception):
    """A child did not end."""


class Child:
    """A process that runs `start` whenever it is asked to, until it is signalled.

    Args:
        start: the verb; returns its exit code.
        out: the folder whose file events count.
    """

    def __init__(self, start: Callable[[], int], out: Path) -> None:
        self._start, self._out = start, out
        self._id = 0

    def run(self, moment: Moment | None = None) -> Ended:
        """Run it, in the process of the last time if that lives on; end it if there was a moment.

        Raises:
            Hang: it has not ended after `LIMIT` seconds; it is killed.
        """
        if not self._id:
            self._fork()
        begun = time.monotonic()
        event = (moment.event, moment.signal) if moment and moment.event else (0, 0)
        os.write(self._ask, _QUESTION.pack(*event))
        answered = False
        if moment is not None and not moment.event:
            answered = self._wait(moment.seconds)
            if not answered:
                os.kill(self._id, moment.signal)
        if not answered and not self._wait(LIMIT):
            said = self._said()
            self.close()
            raise Hang(f"it runs after {LIMIT:.0f} s\n{said}")
        seconds = time.monotonic() - begun
        answer = os.read(self._answer, _ANSWER.size)
        (events, stage), said = _read(self._seen), self._said()
        if answer:
            code, busy = _ANSWER.unpack(answer)
            if busy or moment is not None:
                self.close()
        else:
            code = os.waitstatus_to_exitcode(self.close())
        return Ended(code, seconds, events, stage, said)

    def close(self) -> int:
        """End the process, if there is one; returns its wait status."""
        if not self._id:
            return 0
        os.kill(self._id, signal.SIGKILL)
        _, status = os.waitpid(self._id, 0)
        self._id = 0
        os.close(self._ask)
        os.close(self._answer)
        self._seen.close()
        return status

    def _fork(self) -> None:
        asked, self._ask = os.pipe()
        self._answer, answers = os.pipe()
        self._seen = mmap.mmap(-1, _STAGE_BYTES)
        child = os.fork()
        if child == 0:
            _serve(self._start, self._out, self._log, self._seen, asked, answers)
        self._id = child
        os.close(asked)
        os.close(answers)

    @property
    def _log(self) -> Path:
        return self._out.with_name(f"{self._out.name}.{id(self)}.stderr")

    def _said(self) -> str:
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def _wait(self, seconds: float) -> bool:
        """Whether the child has answered or died by then."""
        ready, _, _ = select.select([self._answer], [], [], seconds)
        return bool(ready)


def _serve(
    start: Callable[[], int], out: Path, log: Path, seen: mmap.mmap, asked: int, answers: int
) -> NoReturn:
    try:
        watch = _Watch(out, seen)
        while question := os.read(asked, _QUESTION.size):
            _quiet(log)
            watch.begin(*_QUESTION.unpack(question))
            code = 70
            try:
                # a shell's background job starts with SIGINT ignored
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                signal.signal(signal.SIGINT, signal.default_int_handler)
                code = start()
                _ignore()  # it is over
            except BaseException:
                _ignore()
                traceback.print_exc()
            busy = _is_busy()
            sys.stderr.flush()
            os.write(answers, _ANSWER.pack(code, busy))
    finally:
        os._exit(70)


def _ignore() -> None:
    for number in _POLITE:
        signal.signal(number, signal.SIG_IGN)


def _is_busy() -> bool:
    """Whether threads of the run go on, after the wait for them that ends every Python process."""
    gc.collect()
    for thread in threading.enumerate():
        if thread is not threading.main_thread() and not thread.daemon:
            thread.join(10)
    return threading.active_count() != 1


def _quiet(log: Path) -> None:
    """Nothing to read or to print; stderr goes to a file."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    said = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for to, source in ((0, nowhere), (1, nowhere), (2, said)):
        os.dup2(source, to)
    os.close(nowhere)
    os.close(said)


class _Watch:
    """Counts file events below a folder, in shared memory; at a wanted one, signals itself."""

    def __init__(self, out: Path, seen: mmap.mmap) -> None:
        self._place = os.fspath(out)
        self._seen = seen
        self._events = self._wanted = self._signal = 0
        sys.addaudithook(self._hook)

    def begin(self, wanted: int, number: int) -> None:
        """A run begins; `wanted` = 0 signals at no event."""
        self._events, self._wanted, self._signal = 0, wanted, number
        self._write("")

    def _hook(self, name: str, values: tuple[Any, ...]) -> None:
        path = _written(name, values)
        if path is None or not (path + os.sep).startswith(self._place + os.sep):
            return
        self._events += 1
        self._write(path[len(self._place) + 1 :])
        if self._events == self._wanted:
            os.kill(os.getpid(), self._signal)

    def _write(self, stage: str) -> None:
        line = f"{self._events} {stage}".encode("utf-8", "replace")[: _STAGE_BYTES - 1]
        self._seen[: len(line) + 1] = line + b"\0"


def _written(name: str, values: tuple[Any, ...]) -> str | None:
    """The path that an audit event of Python changes; None if it changes none."""
    if name == "open":
        path, _, flags = values
        if not isinstance(flags, int) or not flags & _WRITES:
            return None
    elif name == "os.rename":
        path = values[1]
    elif name in ("os.remove", "os.mkdir", "os.rmdir", "os.truncate"):
        path = values[0]
    else:
        return None
    return os.fsdecode(path) if isinstance(path, str | bytes | os.PathLike) else None


def _read(seen: mmap.mmap) -> tuple[int, str]:
    events, _, stage = seen[:].split(b"\0", 1)[0].decode("utf-8", "replace").partition(" ")
    return int(events or 0), stage


def contents(folder: Path, *, without: Sequence[str], steps: Sequence[str]) -> dict[str, str]:
    """What of a run folder must be equal: the sha256 of every file by its relative name.

    Args:
        folder: the run folder.
        without: first parts of names that tell of the run itself (its log, its lock).
        steps: folders of checkpoints, in whose files times stand: the names in them count.
    """
    found = {}
    for file in sorted(folder.rglob("*")):
        name = file.relative_to(folder)
        if not file.is_file() or name.parts[0] in without:
            continue
        if name.parts[0] in steps:
            found[str(Path(*name.parts[:2]))] = "a step"
        else:
            found[str(name)] = hashlib.sha256(file.read_bytes()).hexdigest()
    return found


def differences(made: dict[str, str], wanted: dict[str, str]) -> list[str]:
    """Names of files that are missing, left over or different."""
    return sorted(n for n in made.keys() | wanted.keys() if made.get(n) != wanted.get(n))
