"""Trainings of Tables 1 and 2: at which learning rates, and how long they take."""

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

from mmjax.core.progress import format_seconds
from mmjax.evaluate.experiment import Say

Row = dict[str, Any]
Cell = Callable[[float], Row]
"""A training at a learning rate, measured."""
SUCCEEDS = 0.8
NOT_YET = "not trained yet"
"""The `reason` of a row whose training has been left for later."""
CLOSE = 0.02
"""How far below that of clean training the accuracy of a poisoned model may lie."""


class Clock:
    """Tells of every training how many there are at most, and how long they will take."""

    def __init__(self, total: int, say: Say) -> None:
        self._total, self._say = total, say
        self.done = self._made = 0
        self._seconds = 0.0

    def run(self, what: str, make: Callable[[], Row]) -> Row:
        """Do a training and take its time."""
        left = self._total - self.done
        told = ""
        if self._made:
            told = f"; {format_seconds(left * self._seconds / self._made)} left at most"
        self._say(f"[{self.done + 1}/{self._total}] {what}{told}")
        start = time.monotonic()
        row = make()
        self._seconds += time.monotonic() - start
        self._made += 1
        return row

    def skip(self, count: int = 1) -> None:
        """So many trainings are done, or need not be done."""
        self.done += count


def first_success(rates: Sequence[float], poisoned: Cell, clean: Cell) -> Row:
    """The first learning rate at which the attack succeeds and the model is as good as a clean one.

    Without any, the first at which it succeeds; without that, the one where it does best.

    Args:
        rates: tried in turn.
        poisoned: the undefended training.
        clean: training on clean pairs; asked only where the attack succeeds.

    Returns:
        The row, with `tried`: how many were trained, and `reached`: whether the attack succeeds,
        None if that is open as long as some are not trained yet.
    """
    tried: list[Row] = []
    succeeded: list[Row] = []
    for rate in rates:
        tried.append(poisoned(rate))
        if strength(tried[-1]) <= SUCCEEDS:
            continue
        if tried[-1]["acc1"] >= clean(rate).get("acc1", math.inf) - CLOSE:
            succeeded = [tried[-1]]
            break
        succeeded.append(tried[-1])
    best = succeeded[0] if succeeded else max(tried, key=strength)
    count = _trained(tried)
    reached = True if succeeded else None if count < len(rates) else False
    return {**best, "tried": count, "reached": reached}


def best_defence(rows: Sequence[Row]) -> Row:
    """The training of a defence in which accuracy exceeds the attack's success the most.

    Args:
        rows: one a learning rate.

    Returns:
        One of them; it has a `reason` as long as some are not trained yet, or if none gave a model.
    """
    if left := [row for row in rows if row.get("reason") == NOT_YET]:
        return left[0]
    models = [row for row in rows if "reason" not in row]
    return max(models or rows, key=lambda row: row.get("acc1", 0.0) - strength(row))


def _trained(rows: Sequence[Row]) -> int:
    return sum(row.get("reason") != NOT_YET for row in rows)


def strength(row: Row) -> float:
    """How well an attack does: its rate of success, for mmPoison Hit@10; 0 without a model."""
    return row.get("asr", row.get("hit@10", 0.0))
