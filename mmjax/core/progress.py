"""Progress: a bar with an ETA on a terminal, one line every 30 seconds elsewhere."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar, runtime_checkable

T = TypeVar("T")
LINE_SECONDS = 30.0


@runtime_checkable
class Screen(Protocol):
    """Where progress is shown; stderr is one."""

    def write(self, text: str, /) -> object:
        """Show `text`."""

    def flush(self) -> object:
        """Show it now."""

    def isatty(self) -> bool:
        """Whether lines can be drawn over."""
        ...


@runtime_checkable
class Meter(Protocol):
    """Something that is told of work done."""

    def update(self, n: int = 1) -> object:
        """`n` more items are done."""

    def close(self) -> object:
        """No more will come."""


def notice(text: str) -> None:
    """Tell the user one line that is no result: something was wrong, and the work goes on."""
    sys.stderr.write(f"mmjax: {text}\n")


class LineMeter:
    """Writes `what: done/total, rate, ETA` at most every `seconds`, and once at the end."""

    def __init__(
        self,
        total: int | None,
        what: str,
        out: Screen,
        seconds: float = LINE_SECONDS,
        done: int = 0,
    ) -> None:
        self._total, self._what, self._out, self._seconds = total, what, out, seconds
        self._done = self._before = done
        self._start = self._last = time.monotonic()

    def update(self, n: int = 1) -> None:
        """`n` more items are done."""
        self._done += n
        now = time.monotonic()
        if now - self._last >= self._seconds:
            self._last = now
            self._write(now)

    def close(self) -> None:
        """Write the last line, if anything took long enough to have had one."""
        if self._last != self._start:
            self._write(time.monotonic())

    def _write(self, now: float) -> None:
        elapsed = max(now - self._start, 1e-9)
        rate = (self._done - self._before) / elapsed
        line = f"{self._what}: {self._done}" + (f"/{self._total}" if self._total else "")
        line += f", {rate:.1f}/s"
        if self._total and rate > 0 and self._done < self._total:
            line += f", {format_seconds((self._total - self._done) / rate)} left"
        self._out.write(line + "\n")
        self._out.flush()


def format_seconds(seconds: float) -> str:
    """`75` -> `1:15`, `3700` -> `1:01:40`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def meter(
    total: int | None, what: str, *, out: Screen | None = None, unit: str = "", done: int = 0
) -> Meter:
    """A meter on stderr: tqdm when that is a terminal, else lines.

    Args:
        total: items in all, where that is known.
        what: the work.
        out: where it is shown; None = stderr.
        unit: of an item.
        done: items that an earlier call has done.
    """
    stream = out or sys.stderr
    if stream.isatty():
        from tqdm import tqdm

        return tqdm(
            total=total, desc=what, unit=unit or "it", file=stream, dynamic_ncols=True, initial=done
        )
    return LineMeter(total, what, stream, done=done)


def progress(items: Iterable[T], *, total: int | None = None, what: str) -> Iterator[T]:
    """Yield `items`, showing how far it is."""
    shown = meter(total, what)
    try:
        for item in items:
            yield item
            shown.update()
    finally:
        shown.close()
