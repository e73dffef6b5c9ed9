"""The training loop: prefetch, step, check, checkpoint, resume."""

import contextlib
from collections import deque
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from mmjax.core.checkpoint import Checkpoints, open_checkpoints
from mmjax.core.errors import NonFiniteLossError, RetryError
from mmjax.learn.sharding import Rules, put_batch, put_state, shardings
from mmjax.learn.state import TrainState
from mmjax.learn.step import Metrics, Step, jitted

PyTree = Any
BatchAt = Callable[[int], PyTree]
OnMetrics = Callable[[int, dict[str, float]], None]
OnState = Callable[[int, TrainState], None]

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
    """Fetch one step's metrics; raises NonFiniteLossError if the run has diverged."""
    values = {name: float(value) for name, value in jax.device_get(metrics).items()}
    if values.pop("diverged"):
        raise NonFiniteLossError(
            f"step {step} is not finite: loss {values['loss']:.6g}, gradient norm "
            f"{values['gradient_norm']:.6g}, or its update ({values['skipped']:.0f} such steps so "
            "far); "
            "lower learning_rate, lengthen warmup or compute in float32, in another folder"
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
    rules: Rules = (),
    checkpoint_dir: Path | None = None,
    checkpoint_every: int = 0,
    data: Mapping[str, Any] | None = None,
    on_metrics: OnMetrics | None = None,
    on_state: OnState | None = None,
    state_every: int = 0,
    on_last_good: OnState | None = None,
    stop: Callable[[], bool] | None = None,
) -> TrainState:
    """Train up to step `steps`; the same call continues where an interrupted one stopped.

    Args:
        state: the state before step 0; it is copied, never donated.
        step: from `learn.step.make_step`.
        batch_at: the batch of a step, a pure function of the step's number, which so is all the
            state that the data have; NumPy arrays that share the first axis, the rows which this
            process feeds to the global batch.
        steps: total length of the run, steps of earlier calls included.
        key: the run's key; `make_step` folds it with the step.
        mesh: batches are split over its axis `data`.
        rules: how the state is split over the mesh; what no rule names is whole on every device.
        checkpoint_dir: where checkpoints go and come from; None keeps none.
        checkpoint_every: steps between checkpoints; 0 saves only on `stop` and at the end.
        data: what `batch_at` depends on (a fingerprint, a seed), as JSON; a checkpoint of other
            data is refused.
        on_metrics: called with (steps done, metrics) after every step, in order.
        on_state: called with (steps done, state) every `state_every` steps, after that step's
            `on_metrics` and before its checkpoint; the next step takes the state's buffers.
        state_every: 0 never calls it.
        on_last_good: called with (steps done, state) of the last good step of a run that has
            diverged, after that state's checkpoint.
        stop: asked after every step; when it says True the state is saved and RetryError raised.
            With several processes it must say the same in all of them (`core.distributed`).

    Returns:
        The state after step `steps`. A resumed run ends in the same bits as an uninterrupted one
        on the same devices.

    Raises:
        NonFiniteLossError: the run has diverged (`make_step`); it names the step. The state after
            the last good step has been saved.
        RetryError: `stop` asked for it.
        RunError: the newest checkpoint is of another model or of other data, or none can be read.
    """
    with contextlib.ExitStack() as stack:
        checkpoints: Checkpoints | None = None
        state = put_state(state, mesh, rules)
        places = shardings(state, mesh, rules)
        data = dict(data or {})
        if checkpoint_dir is not None:
            checkpoints = stack.enter_context(open_checkpoints(checkpoint_dir))
            kept = checkpoints.resume(state, data)
            state = state if kept is None else kept
        first = int(state.step)
        key = put_state(key, mesh)
        batches = stack.enter_context(
            contextlib.closing(_prefetched(batch_at, range(first, steps), mesh))
        )
        compiled = jitted(step, places)
        unread: tuple[int, Metrics] | None = None  # read one step late: the device never waits

        def read() -> None:
            nonlocal unread
            if unread is not None:
                done, metrics = unread
                unread = None
                values = _check(done, metrics)
                if on_metrics is not None:
                    on_metrics(done, values)

        try:
            for done, batch in enumerate(batches, start=first + 1):
                state, metrics = compiled(state, batch, key)
                read()
                unread = (done, metrics)
                stopping = done < steps and stop is not None and stop()
                if on_state is not None and state_every and done % state_every == 0:
                    read()
                    on_state(done, state)
                due = bool(checkpoint_every) and done % checkpoint_every == 0
                if stopping or due or done == steps:
                    read()
                    if checkpoints is not None:
                        checkpoints.save(done, state, data)
                if stopping:
                    raise RetryError(
                        f"stopped after step {done} of {steps}; start the same command again"
                    )
        except NonFiniteLossError:
            good = state.last_good()
            if checkpoints is not None:
                checkpoints.save(int(good.step), good, data)
            if on_last_good is not None:
                on_last_good(int(good.step), good)
            raise
        return state
