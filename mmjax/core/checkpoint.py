"""Saving and restoring a training state over orbax; nothing else in mmjax imports orbax."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp

from mmjax.core.errors import RunError

PyTree = Any


class Checkpoints(NamedTuple):
    """A folder of checkpoints, numbered by step.

    Fields:
        latest: newest complete step, None when there is none.
        save: `save(step, state)`; returns once the state is copied, writing goes on behind.
        restore: `restore(step, like)` gives the state in the structure, shapes, dtypes and
            shardings of `like`. RunError when it does not fit.
    """

    latest: Callable[[], int | None]
    save: Callable[[int, PyTree], None]
    restore: Callable[[int, PyTree], PyTree]


def _abstract(leaf: jax.Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)


@contextmanager
def open_checkpoints(folder: Path, keep: int = 2) -> Iterator[Checkpoints]:
    """Open (and create) a checkpoint folder; leaving the block waits until all is written.

    Args:
        folder: one sub-folder a step; a step appears under its final name only when complete.
        keep: how many of the newest steps are kept.
    """
    manager = ocp.CheckpointManager(
        folder.absolute(),
        options=ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=True),
    )

    def save(step: int, state: PyTree) -> None:
        manager.save(step, args=ocp.args.StandardSave(state), force=True)

    def restore(step: int, like: PyTree) -> PyTree:
        wanted = ocp.args.StandardRestore(jax.tree.map(_abstract, like))
        try:
            return manager.restore(step, args=wanted)
        except (ValueError, KeyError, TypeError) as error:
            raise RunError(
                f"the checkpoint of step {step} in {folder} does not fit this model: "
                f"{str(error).splitlines()[0]}; use another output folder or the run's own config"
            ) from error

    try:
        yield Checkpoints(manager.latest_step, save, restore)
    finally:
        manager.wait_until_finished()
        manager.close()
