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


def _shapes(tree: PyTree) -> dict[str, str]:
    """Type and shape of every leaf by its path, e.g. `params/w: float32[3, 2]`."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): f"{leaf.dtype}{list(leaf.shape)}"
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


@contextmanager
def open_checkpoints(folder: Path, keep: int = 2) -> Iterator[Checkpoints]:
    """Open (and create) a checkpoint folder; leaving the block waits until all is written.

    Args:
        folder: one sub-folder a step; a step appears under its final name only when complete.
        keep: how many of the newest steps are kept.
    """
    manager = ocp.CheckpointManager(
        folder.absolute(),
        item_handlers=ocp.StandardCheckpointHandler(),
        options=ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=True),
    )

    def save(step: int, state: PyTree) -> None:
        manager.save(step, args=ocp.args.StandardSave(state), force=True)

    def restore(step: int, like: PyTree) -> PyTree:
        # compared here, where the message can name the leaf that differs
        stored, wanted = _shapes(manager.item_metadata(step).tree), _shapes(like)
        for name in sorted(stored.keys() | wanted.keys()):
            if stored.get(name) != wanted.get(name):
                raise RunError(
                    f"the checkpoint of step {step} in {folder} does not fit this model: {name} "
                    f"is {stored.get(name, 'absent')}, wanted {wanted.get(name, 'absent')}; "
                    "use another output folder or the run's own config"
                )
        return manager.restore(step, args=ocp.args.StandardRestore(jax.tree.map(_abstract, like)))

    try:
        yield Checkpoints(manager.latest_step, save, restore)
    finally:
        manager.wait_until_finished()
        manager.close()
