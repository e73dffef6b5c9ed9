"""Rounds of training, search and noise, and the files that carry a run from one to the next.

The state between rounds is `state/noise-NNNN.npy` (int8), `state/triggers-NNNN.npy` (int32) and the
surrogate's checkpoint. A round begins from the files of the one before and leaves its own, so that
an interrupted run goes on with the same bytes.
"""

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int8, Int32

from mmjax.core import distributed, keys
from mmjax.core.files import atomic_path
from mmjax.core.keys import stream
from mmjax.core.progress import format_seconds, meter
from mmjax.core.rundir import RunDir
from mmjax.data.tokenizer import Tokenizer
from mmjax.learn.sharding import gather, own_rows, put_batch, put_state
from mmjax.models.clip import Towers, Variables, freeze
from mmjax.protect.config import ProtectConfig
from mmjax.protect.kernels import Kernels, OnDevice
from mmjax.protect.pairs import (
    Batch,
    Pairs,
    Pass,
    cut,
    first_noise,
    passes_of,
    text_length,
)
from mmjax.protect.surrogate import Trainer
from mmjax.protect.wording import first_triggers

Say = Callable[[str], None]


class State(NamedTuple):
    """What a round leaves behind: the files of all noises and of all triggers."""

    noise: Path
    triggers: Path


class Work(NamedTuple):
    """What all rounds share."""

    config: ProtectConfig
    pairs: Pairs
    towers: Towers
    kernels: Kernels
    trainer: Trainer
    mesh: Mesh


def run_rounds(
    pairs: Pairs,
    config: ProtectConfig,
    run: RunDir,
    tokenizer: Tokenizer,
    make_work: Callable[[], Work],
    say: Say,
) -> State:
    """Do all rounds that are not done yet.

    Args:
        pairs: what is protected.
        config: how.
        run: the run folder.
        tokenizer: the surrogate's.
        make_work: makes the surrogate; called when a round is to be done.
        say: is told what a round costs before the first one, and each round's loss.

    Returns:
        The last round's files.
    """
    done = next((n for n in range(config.rounds, -1, -1) if run.finished(_unit(n))), None)
    # no process begins before all have looked
    distributed.wait_for_others("rounds found")
    if done is None:
        state = _files(run, 0)
        if distributed.is_primary():
            _write_first(state, pairs, config, tokenizer)
        run.finish(_unit(0), state._asdict())
        distributed.wait_for_others("first noise")
        done = 0
    _remove_before(run, done)
    if done == config.rounds or _is_last(run, done, config):
        return _files(run, done)
    work = make_work()
    say(_costs(work, _files(run, done)))
    while done < config.rounds and not _is_last(run, done, config):
        before, state = _files(run, done), _files(run, done + 1)
        left = _round(work, done, before, state)
        run.finish(_unit(done + 1), state._asdict(), loss=left)
        distributed.wait_for_others(f"round {done + 1}")
        _remove_before(run, done + 1)
        done += 1
        say(f"round {done} of {config.rounds}: loss {left:.4f}")
        run.log("round", number=done, loss=left)
    return _files(run, done)


def _unit(number: int) -> str:
    return f"round-{number:04d}"


def _files(run: RunDir, number: int) -> State:
    folder = run.path / "state"
    return State(folder / f"noise-{number:04d}.npy", folder / f"triggers-{number:04d}.npy")


def _remove_before(run: RunDir, number: int) -> None:
    """Remove the files of earlier rounds; a process that was killed may have left the last ones."""
    if not distributed.is_primary():
        return
    for earlier in range(number):
        run.forget(_unit(earlier))
        for file in _files(run, earlier):
            file.unlink(missing_ok=True)


def _is_last(run: RunDir, done: int, config: ProtectConfig) -> bool:
    """Whether the loss of the last round ends the run (`stop_loss`)."""
    return done > 0 and run.journal(_unit(done))["loss"] < config.stop_loss


def _write_first(state: State, pairs: Pairs, config: ProtectConfig, tokenizer: Tokenizer) -> None:
    shape = (pairs.noises, *pairs.images.shape[1:])
    with atomic_path(state.noise) as temporary:
        noise = np.lib.format.open_memmap(temporary, "w+", np.int8, shape)
        for number in range(pairs.noises):
            noise[number] = first_noise(pairs, config, number)
        noise.flush()
    _save(state.triggers, first_triggers(pairs, tokenizer, config))


def _save(path: Path, array: np.ndarray) -> None:
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.save(file, array)


def _round(work: Work, number: int, before: State, after: State) -> float:
    """Train, search and descend; returns the mean loss that the noise left, in nats."""
    config = work.config
    triggers = np.load(before.triggers)
    stored = np.load(before.noise, mmap_mode="r")
    variables = _frozen(work, work.trainer.train(number, stored, triggers))
    key = stream(jax.random.key(config.seed), "noise", number)
    losses: list[float] = []
    with contextlib.ExitStack() as stack:
        noise = stack.enter_context(_changing(before.noise, after.noise))
        batches = list(_batches(work, number))
        told = meter(len(batches), f"round {number + 1}", unit="batches")
        stack.enter_context(contextlib.closing(told))
        for place, (each, batch) in enumerate(batches):
            step_key = jax.random.fold_in(key, place)
            left = _protect(work, variables, each, batch, noise, triggers, step_key)
            losses.extend(left)
            told.update()
    if distributed.is_primary():
        _save(after.triggers, triggers)
    return float(np.mean(losses)) if losses else 0.0


@contextlib.contextmanager
def _changing(before: Path, after: Path) -> Iterator[Int8[np.ndarray, "c s s 3"]]:
    """The noises of a round, to be changed in place; the first process writes them to `after`.

    The others keep theirs in memory: pairs that fill up the last batch were changed before it.
    """
    if not distributed.is_primary():
        yield np.load(before, mmap_mode="c")
        return
    with atomic_path(after) as temporary:
        shutil.copyfile(before, temporary)
        noise = np.lib.format.open_memmap(temporary, "r+")
        yield noise
        noise.flush()


def _frozen(work: Work, variables: Variables) -> Variables:
    """The surrogate's weights for inference, on the mesh."""
    _, frozen = freeze(work.towers, variables, work.config.surrogate.model.compute)
    return put_state(frozen, work.mesh)


def _batches(work: Work, number: int) -> Iterator[tuple[Pass, Batch]]:
    rng = keys.host(work.config.seed, "round", number)
    for each in passes_of(work.pairs, work.config, number):
        for batch in cut(work.pairs, each.rows, work.config.batch_size, rng):
            yield each, batch


def _protect(
    work: Work,
    variables: Variables,
    each: Pass,
    batch: Batch,
    noise: Int8[np.ndarray, "c s s 3"],
    triggers: Int32[np.ndarray, "t k"],
    key: jax.Array,
) -> list[float]:
    """Change one batch's noises and triggers in place; returns the loss that is left, if known."""
    pairs, config = work.pairs, work.config
    rows, changed = batch.rows, batch.rows[: batch.changing]
    length = text_length(pairs, rows)
    own_noise, own_trigger = config.noise.scope != "user", config.trigger.scope == "pair"
    count = np.arange(len(rows), dtype=np.int32)
    given = OnDevice(
        images=pairs.images[pairs.owner[rows]],
        ids=pairs.captions.ids[rows, :length],
        plain=pairs.captions.plain[rows, :length],
        noise_of=None if own_noise else pairs.noise[rows],
        trigger_of=count if own_trigger else pairs.trigger[rows],
    )
    given = put_batch(own_rows(given), work.mesh)
    if own_noise:
        values = put_batch(own_rows(noise[pairs.noise[rows]]), work.mesh)
    else:
        values = put_state(np.asarray(noise), work.mesh)

    def words() -> jax.Array:
        return put_state(triggers[pairs.trigger[rows]] if own_trigger else triggers, work.mesh)

    if each.searches:
        found = gather(work.kernels.search(variables, given, values, words()), work.mesh)
        if own_trigger:
            triggers[pairs.trigger[changed]] = found[: batch.changing]
        else:
            triggers[:] = found
    if not each.descends:
        return []
    made, left = work.kernels.descend(variables, given, values, words(), put_state(key, work.mesh))
    made, left = gather((made, left), work.mesh)
    if own_noise:
        noise[pairs.noise[changed]] = made[: batch.changing]
    else:
        noise[:] = made
    return [float(left)]


def _costs(work: Work, state: State) -> str:
    """What a round takes: measured on its first batch, after compiling; nothing is kept."""
    config = work.config
    noise, triggers = np.load(state.noise, mmap_mode="c"), np.load(state.triggers)
    variables = _frozen(work, work.trainer.variables)
    seconds = 0.0
    batches = 0
    by_kind: dict[tuple[bool, bool], list[Batch]] = {}
    for each, batch in _batches(work, 0):
        by_kind.setdefault((each.searches, each.descends), []).append(batch)
    for (searches, descends), found in by_kind.items():
        each = Pass(found[0].rows, searches, descends)
        ends = [0.0, 0.0]
        for run in range(2):  # the first one compiles
            begun = time.perf_counter()
            _protect(work, variables, each, found[0], noise, triggers.copy(), jax.random.key(0))
            ends[run] = time.perf_counter() - begun
        seconds += ends[1] * len(found)
        batches += len(found)
    training = work.trainer.step_seconds(noise, triggers) * config.surrogate.steps
    stored = (noise.nbytes + triggers.nbytes) / 2**20
    held = sum(leaf.nbytes for leaf in jax.tree.leaves(work.trainer.variables)) * 4 / 2**20
    return (
        f"a round: {config.surrogate.steps} training steps in {format_seconds(training)}, "
        f"{batches} batches of {config.batch_size} pairs in {format_seconds(seconds)} (the first "
        f"one, with the search for triggers); {config.rounds} rounds in at most "
        f"{format_seconds(config.rounds * (training + seconds))}. Noise and triggers take "
        f"{stored:.1f} MB on disk, twice while a round is written; images "
        f"{work.pairs.images.nbytes / 2**20:.1f} MB of memory, the surrogate, its optimizer and "
        f"gradients {held:.1f} MB on each device"
    )
