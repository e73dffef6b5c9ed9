"""The training loop: prefetch, step, check, checkpoint, resume."""

import contextlib
import math
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from mmjax.core.checkpoint import Checkpoints, open_checkpoints
from mmjax.core.errors import NonFiniteLossError, RetryError
from mmjax.learn.sharding import put_batch, put_replicated
from mmjax.learn.state import TrainState
from mmjax.learn.step import Metrics, Step, jitted

PyTree = Any
BatchAt = Callable[[int], PyTree]
OnMetrics = Callable[[int, dict[str, float]], None]

PREFETCH = 2


def _prefetched(batch_at: BatchAt, steps: range, mesh: Mesh) -> Generator[PyTree]:
    """Batches of `steps`, already on the mesh, made in one thread that runs `PREFETCH` ahead."""

    def make(step: int) -> PyTree:
        return put_batch(batch_at(step), mesh)

    worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="batches")
    waiting: deque[Future[PyTree]] = deque()
    ahead = iter(steps)
    try:
        for step in ahead:
            waiting.append(worker.submit(make, step))
            if len(waiting) > PREFETCH:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        worker.shutdown(cancel_futures=True)


def _check(step: int, metrics: Metrics) -> dict[str, float]:
    """Fetch one step's metrics; raises NonFiniteLossError unless the loss is a number."""
    values = {name: float(value) for name, value in jax.device_get(metrics).items()}
    if not math.isfinite(values["loss"]):
        raise NonFiniteLossError(
            f"the loss of step {step} is {values['loss']}; "
            "lower learning_rate, lengthen warmup or compute in float32"
        )
    return values


def fit(
    state: TrainState,
    step: Step,
    batch_at: BatchAt,
    *,
    steps: int,
    key: jax.Array,
    mesh: Mesh,
    checkpoint_dir: Path | None = None,
    checkpoint_every: int = 0,
    on_metrics: OnMetrics | None = None,
    stop: Callable[[], bool] | None = None,
) -> TrainState:
    """Train up to step `steps`; the same call continues where an interrupted one stopped.

    Args:
        state: the state before step 0; it is copied, never donated.
        step: from `learn.step.make_step`.
        batch_at: the batch of a step, a pure function of the step's number; NumPy arrays that
            share the first axis, the rows which this process feeds to the global batch.
        steps: total length of the run, steps of earlier calls included.
        key: the run's key; `make_step` folds it with the step.
        mesh: batches are split over its axis `data`.
        checkpoint_dir: where checkpoints go and come from; None keeps none.
        checkpoint_every: steps between checkpoints; 0 saves only on `stop` and at the end.
        on_metrics: called with (steps done, metrics) after every step, in order.
        stop: asked after every step; when it says True the state is saved and RetryError raised.

    Returns:
        The state after step `steps`. A resumed run ends in the same bits as an uninterrupted one
        on the same devices.

    Raises:
        NonFiniteLossError: a step's loss is NaN or infinite; it names the step. Nothing from that
            step on has been saved.
        RetryError: `stop` asked for it.
    """
    with contextlib.ExitStack() as stack:
        checkpoints: Checkpoints | None = None
        state = put_replicated(state, mesh)
        if checkpoint_dir is not None:
            checkpoints = stack.enter_context(open_checkpoints(checkpoint_dir))
            newest = checkpoints.latest()
            if newest is not None:
                state = checkpoints.restore(newest, state)
        first = int(state.step)
        key = put_replicated(key, mesh)
        batches = stack.enter_context(
            contextlib.closing(_prefetched(batch_at, range(first, steps), mesh))
        )
        compiled = jitted(step)
        unread: tuple[int, Metrics] | None = None  # read one step late: the device never waits

        def read() -> None:
            nonlocal unread
            if unread is not None:
                done, metrics = unread
                unread = None
                values = _check(done, metrics)
                if on_metrics is not None:
                    on_metrics(done, values)

        for done, batch in enumerate(batches, start=first + 1):
            state, metrics = compiled(state, batch, key)
            read()
            unread = (done, metrics)
            stopping = done < steps and stop is not None and stop()
            due = bool(checkpoint_every) and done % checkpoint_every == 0
            if stopping or due or done == steps:
                read()
                if checkpoints is not None:
                    checkpoints.save(done, state)
            if stopping:
                raise RetryError(
                    f"stopped after step {done} of {steps}; start the same command again"
                )
        return state
