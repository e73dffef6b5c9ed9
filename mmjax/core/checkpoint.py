"""Saving and restoring a training state over orbax; nothing else in mmjax imports orbax."""

import contextlib
import errno
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp
import tensorstore as ts

from mmjax.core.errors import RunError
from mmjax.core.files import writing_error
from mmjax.core.progress import notice

PyTree = Any
Json = dict[str, Any]


class Checkpoints(NamedTuple):
    """A folder of checkpoints, numbered by step.

    Fields:
        latest: newest complete step, None when there is none.
        save: `save(step, state, data)`; returns once the state is copied, writing goes on behind.
            `data` is what the batches depend on, as JSON. A step that is there already stays.
        restore: `restore(step, like, data)` gives the state in the structure, shapes, dtypes and
            shardings of `like`. RunError when it does not fit, or `data` is not what was saved.
        resume: `resume(like, data)` restores the newest step that can be read and drops damaged
            ones that are newer; None when there is none. RunError as `restore`, and when all are
            damaged.
    """

    latest: Callable[[], int | None]
    save: Callable[[int, PyTree, Json], None]
    restore: Callable[[int, PyTree, Json], PyTree]
    resume: Callable[[PyTree, Json], PyTree | None]


def _abstract(leaf: jax.Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)


def _shapes(tree: PyTree) -> dict[str, str]:
    """Type and shape of every leaf by its path, e.g. `params/w: float32[3, 2]`."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): f"{leaf.dtype}{list(leaf.shape)}"
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def _refuse_other(stored: Mapping[str, Any], wanted: Mapping[str, Any], what: str) -> None:
    """Raise RunError naming the first entry that differs."""
    for name in sorted(stored.keys() | wanted.keys()):
        if stored.get(name) != wanted.get(name):
            raise RunError(
                f"{what}: {name} is {stored.get(name, 'absent')}, wanted "
                f"{wanted.get(name, 'absent')}; use another output folder or the run's own config"
            )


def _read_whole(state: Path) -> None:
    """Read every stored value; ValueError when one is damaged.

    Before orbax does: hosts that restore different shards must agree on which steps are damaged,
    and a restore that fails half-way leaves reads behind that call into a closed event loop.
    """
    store = ts.KvStore.open({"driver": "ocdbt", "base": f"{state.as_uri()}/"}).result()
    for key in store.list().result():
        store.read(key).result()


def _is_news(record: logging.LogRecord) -> bool:
    """False for tracebacks that orbax logs: it raises those errors, and signals, too."""
    return not record.exc_info


def _require_room(folder: Path, state: PyTree) -> None:
    """Raise RunError where a state does not fit on the disk; a write that fails is hard to end."""
    needed = sum(leaf.nbytes for leaf in jax.tree.leaves(state)) // jax.process_count()
    if shutil.disk_usage(folder).free < needed:
        raise RunError(
            f"disk full while writing {folder}, a checkpoint takes {needed / 2**20:,.1f} MB; "
            "free some space and run it again"
        )


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Raise RunError where a checkpoint cannot be written; tensorstore has its own full disk."""
    try:
        yield
    except OSError as error:
        raise writing_error(error, folder) from error
    except ValueError as error:
        if not str(error).startswith("RESOURCE_EXHAUSTED"):
            raise
        raise writing_error(OSError(errno.ENOSPC, "disk full"), folder) from error


@contextmanager
def open_checkpoints(folder: Path, keep: int = 2) -> Iterator[Checkpoints]:
    """Open (and create) a checkpoint folder; leaving the block waits until all is written.

    Args:
        folder: one sub-folder a step; a step appears under its final name only when complete.
        keep: how many of the newest steps are kept.

    Raises:
        RunError: a checkpoint cannot be written.
    """
    logging.getLogger("absl").addFilter(_is_news)
    manager = ocp.CheckpointManager(
        folder.absolute(),
        item_handlers={
            "state": ocp.StandardCheckpointHandler(),
            "data": ocp.JsonCheckpointHandler(),
        },
        options=ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=True),
    )

    def save(step: int, state: PyTree, data: Json) -> None:
        if step in manager.all_steps():
            return
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(state), data=ocp.args.JsonSave({**data, "next_step": step})
        )
        _require_room(folder, state)
        with _writing(folder):
            manager.save(step, args=items, force=True)

    def restore(step: int, like: PyTree, data: Json) -> PyTree:
        # compared here, where the message can name what differs
        place = f"the checkpoint of step {step} in {folder}"
        stored = _shapes(manager.item_metadata(step)["state"].tree)
        _refuse_other(stored, _shapes(like), f"{place} does not fit this model")
        items = ocp.args.Composite(
            state=ocp.args.StandardRestore(jax.tree.map(_abstract, like)),
            data=ocp.args.JsonRestore(),
        )
        restored = manager.restore(step, args=items)
        wanted = {**data, "next_step": step}
        _refuse_other(restored["data"], wanted, f"{place} was trained on other data")
        return restored["state"]

    def resume(like: PyTree, data: Json) -> PyTree | None:
        damaged: list[int] = []
        for step in sorted(manager.all_steps(), reverse=True):
            try:
                _read_whole(folder.absolute() / str(step) / "state")
                state = restore(step, like, data)
            except (OSError, ValueError, KeyError, TypeError) as error:
                damaged.append(step)
                why = str(error).strip().partition("\n")[0][:200]
                notice(f"the checkpoint of step {step} in {folder} is damaged ({why})")
                continue
            for each in damaged:
                manager.delete(each)
            return state
        if damaged:
            raise RunError(
                f"no checkpoint in {folder} can be read; remove the folder to begin anew"
            )
        return None

    try:
        yield Checkpoints(manager.latest_step, save, restore, resume)
    finally:
        with contextlib.closing(manager), _writing(folder):
            manager.wait_until_finished()
