"""A training of a part of the mapping network: tells how far it is, goes on where it stopped."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from mmjax.core import keys
from mmjax.core.files import write_json
from mmjax.core.progress import Meter, meter
from mmjax.learn.config import OptimizerConfig
from mmjax.learn.loop import fit
from mmjax.learn.state import create, make_optimizer
from mmjax.learn.step import LossFn, make_step

PyTree = Any
CHECKPOINT_EVERY = 100
"""Steps, at least, between the states that are kept: twenty at most of a training."""


def train_phase(
    name: str,
    params: PyTree,
    model_state: PyTree,
    loss_fn: LossFn,
    batch_at: Callable[[int], PyTree],
    *,
    rows: int,
    steps: int,
    optimizer: OptimizerConfig,
    key: jax.Array,
    mesh: Mesh,
    folder: Path | None,
) -> tuple[PyTree, dict[str, float]]:
    """Train, batches of `rows` the same on any mesh.

    The rows that fill up the last device are cut off before the loss sees them.

    Args:
        name: of the phase.
        params: to start from.
        model_state: what the loss reads beside them.
        loss_fn: as `learn.step.make_step` takes it.
        batch_at: the batch of a step, arrays of `rows` rows.
        rows: of a batch.
        steps: length.
        optimizer: and its schedule.
        key: of what the loss draws.
        mesh: batches are split over its axis `data`.
        folder: for checkpoints, of which the same call goes on; None keeps none.

    Returns:
        The trained parameters on the host, the metrics of the last step.
    """
    missing = -rows % mesh.shape["data"]

    def filled(step: int) -> PyTree:
        return jax.tree.map(lambda array: _filled(array, missing), batch_at(step))

    def loss_of_rows(
        params: PyTree, model_state: PyTree, batch: PyTree, key: jax.Array
    ) -> tuple[jax.Array, tuple[PyTree, dict[str, jax.Array]]]:
        return loss_fn(params, model_state, jax.tree.map(lambda x: x[:rows], batch), key)

    last: dict[str, float] = {}
    told = folder / f"{name}.json" if folder else None
    shown: Meter | None = None

    def report(step: int, metrics: dict[str, float]) -> None:
        nonlocal shown
        last.update(metrics)
        if shown is None:
            shown = meter(steps, f"fitting F ({name})", unit="step", done=step - 1)
        shown.update()
        if step == steps and told:  # before the state of this step is kept
            write_json(told, last)

    rule = make_optimizer(optimizer, steps)
    state = fit(
        create(params, model_state, rule),
        make_step(loss_of_rows, rule),
        filled,
        steps=steps,
        key=keys.stream(key, "steps", name),
        mesh=mesh,
        checkpoint_dir=folder / name if folder else None,
        checkpoint_every=max(CHECKPOINT_EVERY, steps // 20),
        on_metrics=report,
    )
    if shown is not None:
        shown.close()
    elif told:  # an earlier call did the last step
        last = json.loads(told.read_text(encoding="utf-8"))
    return jax.device_get(state.params), last


def _filled(array: np.ndarray, missing: int) -> np.ndarray:
    return np.pad(array, [(0, missing)] + [(0, 0)] * (array.ndim - 1))
