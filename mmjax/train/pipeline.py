"""Training CLIP: pairs -> tokenizer -> loop -> a model folder that a scan can load."""

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Float32

from mmjax.core import distributed
from mmjax.core.errors import MmjaxError
from mmjax.core.files import write_json
from mmjax.core.keys import stream
from mmjax.core.mesh import DATA
from mmjax.core.progress import Meter, meter, notice
from mmjax.core.rundir import RunDir
from mmjax.data.pairs import PairTable, fingerprint
from mmjax.data.tokenizer import Tokenizer
from mmjax.learn.loop import fit
from mmjax.learn.sharding import gather, without
from mmjax.learn.start import fit_text, read_start
from mmjax.learn.state import TrainState, create, make_optimizer
from mmjax.learn.step import make_step
from mmjax.models.clip import Towers, Variables, build, clamp_scale
from mmjax.models.partition import RULES
from mmjax.models.policy import Policy
from mmjax.models.weights import save_weights
from mmjax.train import record
from mmjax.train.batches import (
    check_data,
    epoch_steps,
    heldout_pairs,
    make_batches,
    training_pairs,
)
from mmjax.train.checks import check_batch, refuse_inside
from mmjax.train.config import TrainConfig
from mmjax.train.isolation import write_isolation
from mmjax.train.judging import Judge, embed_table, judge
from mmjax.train.objectives import OBJECTIVES
from mmjax.train.pool import POOL_RULES, first_state, statistics
from mmjax.train.sequence import run_stages
from mmjax.train.stages import Records, Stage, plan, staged_schedule

CHECKPOINTS = "checkpoints"
LAST_GOOD = "last_good"
"""In the folder of a run that has diverged: the model of its last good step, an `mmjax-dir`."""
HELDOUT = "heldout.jsonl"
"""What the held-out pairs say during training, a line a judgement."""
Evaluate = Callable[[Towers, Mapping[str, Any], Tokenizer, PairTable], dict[str, float]]


class TrainResult(NamedTuple):
    """What a run leaves behind.

    Fields:
        folder: the exported model, an `mmjax-dir`.
        summary: counts, last losses and the held-out figures, as in `summary.json`.
    """

    folder: Path
    summary: dict[str, Any]


def train(
    config: TrainConfig,
    out_dir: Path,
    *,
    mesh: Mesh,
    pairs: PairTable | None = None,
    evaluate: Evaluate | None = None,
    stop: Callable[[], bool] | None = None,
    overwrite: bool = False,
) -> TrainResult:
    """Train a CLIP model and export it; the same call on the same folder resumes.

    With several processes (`core.distributed`) each makes this call on one shared folder; the
    first one writes.

    Args:
        config: the run; another one is refused on a folder that holds this one.
        out_dir: run folder: `metrics.jsonl`, `heldout.jsonl`, `checkpoints/`, `tokenizer.json`,
            `model/`, `training.png`, `summary.json`; `judged/` what a defence finds of every pair;
            under ABL `losses.parquet` and `isolated.parquet`.
        mesh: batches are split over its axis `data`, parameters as `config.fsdp` says.
        pairs: what is learned from, decoded at the model's size; None reads `config.data`.
        evaluate: judges the trained towers on the held-out pairs
            (`evaluate.retrieval.evaluate_pairs`), at the end and every `config.evaluate_every`
            steps; None skips it.
        stop: asked after every step; True saves the state and raises RetryError.
        overwrite: empty the folder first, if it is a training's.

    Raises:
        ConfigError: the configuration does not fit the data or the mesh.
        InputError: the data cannot be read.
        NonFiniteLossError: training diverged; the model of the last good step is in `LAST_GOOD`.
        RetryError: `stop` asked for it; run it again to go on.
        RunError: the folder holds another run, or the data have changed.
        WeightsError: the weights to start from cannot be read.
    """
    check_batch(config, mesh)
    distributed.connect(mesh)
    start = read_start(config.model)
    if pairs is None:
        check_data(config.data)
    if overwrite:
        refuse_inside(config, out_dir)
    with _run_folder(config, out_dir, overwrite) as run:
        size = start.shape.vision.image_size
        table = pairs or training_pairs(config.data, size, seed=config.seed)
        shape, tokenizer, tokenizer_path = fit_text(start, config.model, table, out_dir)
        towers = build(shape, Policy(config.model.compute, remat=config.model.remat))
        if run is not None:
            run.log("data", images=len(table.images), skipped=table.skipped)
        data = {"images_and_captions": fingerprint(table), "weights": start.fingerprint}
        heldout: PairTable | None = None
        if evaluate and run is not None:
            heldout = heldout_pairs(config.data, size, seed=config.seed)

        def judge_heldout(done: int, variables: Mapping[str, Any]) -> None:
            if evaluate and heldout:
                figures = evaluate(towers, variables, tokenizer, heldout)
                record.append(out_dir / HELDOUT, done, figures)

        def keep_last_good(done: int, variables: Mapping[str, Any]) -> None:
            if run is not None:
                folder = out_dir / LAST_GOOD
                told = f"the model of step {done}, the last good one, is mmjax-dir:{folder}"
                try:
                    save_weights(folder, shape, variables, tokenizer_path)
                except MmjaxError as error:  # the divergence is what the user must hear of
                    told = f"the model of step {done}, the last good one, is not kept: {error}"
                run.log("diverged", last_good=done)
                notice(told)

        variables = _fit(
            config,
            out_dir,
            towers,
            start.variables,
            tokenizer,
            table,
            data,
            mesh=mesh,
            stop=stop,
            judge_heldout=judge_heldout,
            keep_last_good=keep_last_good,
        )
        summary: dict[str, Any] = {
            "steps": config.steps,
            "images": len(table.images),
            "captions": len(table.owners),
            "skipped": table.skipped,
        }
        folder = out_dir / "model"
        if run is not None:
            log = out_dir / "metrics.jsonl"
            record.plot(log, out_dir / "training.png", chance=math.log(config.batch_size))
            save_weights(folder, shape, variables, tokenizer_path, config.export_dtype)
            summary["last"] = record.read(log)[-1]
            if evaluate and heldout:
                summary["heldout"] = evaluate(towers, variables, tokenizer, heldout)
            write_json(out_dir / "summary.json", summary)
            run.log("done", **summary)
        distributed.wait_for_others("exported")
    return TrainResult(folder, summary)


@contextlib.contextmanager
def _run_folder(config: TrainConfig, out_dir: Path, overwrite: bool) -> Iterator[RunDir | None]:
    """The run folder, opened by the first process; None in the others, which come after it.

    What fails before the first step leaves the folder to the command that is right.
    """
    if not distributed.is_primary():
        distributed.wait_for_others("run folder")
        yield None
        return
    with RunDir.open(out_dir, verb="train", config=config, overwrite=overwrite) as run:
        distributed.wait_for_others("run folder")
        try:
            yield run
        except MmjaxError:
            if not (out_dir / CHECKPOINTS).exists():
                run.disown()
            raise


def _fit(
    config: TrainConfig,
    out_dir: Path,
    towers: Towers,
    initial: Variables | None,
    tokenizer: Tokenizer,
    table: PairTable,
    data: Mapping[str, Any],
    *,
    mesh: Mesh,
    stop: Callable[[], bool] | None,
    judge_heldout: Callable[[int, Mapping[str, Any]], None],
    keep_last_good: Callable[[int, Mapping[str, Any]], None],
) -> dict[str, Any]:
    """Run the loop; returns the trained variables, or their averages, whole."""
    key = jax.random.key(config.seed)
    epoch = epoch_steps(table, config.batch_size, config.epoch_of)
    stages = plan(config, captions=len(table.owners), epoch=epoch)
    schedule = staged_schedule(config, stages)
    optimizer = make_optimizer(config.optimizer, config.steps, schedule)
    rules = (*(RULES if config.fsdp else without(RULES, DATA)), *POOL_RULES)
    initial = initial or towers.init(stream(key, "weights"))
    averaged = config.average > 0
    model_state = first_state(
        config, initial["batch_stats"], towers.preset.embed_dim, key=stream(key, "pool")
    )
    first = create(initial["params"], model_state, optimizer, averaged=averaged)
    batch_at = make_batches(
        table,
        tokenizer,
        batch_size=config.batch_size,
        captions_per_image=config.captions_per_image,
        epoch_of=config.epoch_of,
        seed=config.seed,
        workers=config.data.workers,
        part=(jax.process_index(), jax.process_count()),
    )
    steps = {
        name: make_step(
            OBJECTIVES[name](towers, config, mesh),
            optimizer,
            clamp_scale,
            average_decay=config.average,
            max_skipped=config.max_skipped,
        )
        for name in {stage.objective for stage in stages}
    }

    def judge_pairs(kind: Judge, state: TrainState) -> Float32[np.ndarray, " m"]:
        variables = {"params": state.params, "batch_stats": statistics(state.model_state)}
        pairs = embed_table(
            towers, variables, table, tokenizer, batch_size=config.batch_size, mesh=mesh
        )
        return judge(kind, pairs, batch_size=config.batch_size, seed=config.seed)

    def trained(state: TrainState) -> dict[str, Any]:
        params, model_state = state.average if averaged else (state.params, state.model_state)
        return gather({"params": params, "batch_stats": statistics(model_state)}, mesh)

    with _metrics(config, out_dir, schedule) as on_metrics:

        def fit_stage(stage: Stage, records: Records) -> TrainState:
            return fit(
                first,
                steps[stage.objective],
                partial(batch_at, views=stage.views, marks=stage.marks(records)),
                steps=stage.end,
                key=stream(key, "steps"),
                mesh=mesh,
                rules=rules,
                checkpoint_dir=out_dir / CHECKPOINTS,
                checkpoint_every=config.checkpoint_every,
                data=data,
                on_metrics=on_metrics,
                on_state=lambda done, state: judge_heldout(done, trained(state)),
                state_every=config.evaluate_every,
                on_last_good=lambda done, state: keep_last_good(done, trained(state)),
                stop=stop,
            )

        state, records = run_stages(stages, fit_stage, judge_pairs, out_dir)
    if config.defence.name == "abl" and distributed.is_primary():
        write_isolation(out_dir, table, records, config.defence.abl)
    return trained(state)


@contextlib.contextmanager
def _metrics(
    config: TrainConfig, out_dir: Path, schedule: optax.Schedule
) -> Iterator[Callable[[int, dict], None] | None]:
    """What the first process does with every step's metrics; None in the others."""
    if not distributed.is_primary():
        yield None
        return
    log = out_dir / "metrics.jsonl"
    shown: Meter | None = None
    with record.TRACKERS[config.track](out_dir) as track:

        def on_metrics(done: int, metrics: dict[str, float]) -> None:
            nonlocal shown
            if shown is None:
                for file in (log, out_dir / HELDOUT):
                    record.forget(file, done)
                if done > 1:
                    notice(f"goes on after step {done - 1} of {config.steps}")
                shown = meter(config.steps, "train", unit="step", done=done - 1)
            shown.update()
            if done % config.log_every == 0 or done == config.steps:
                told = {**metrics, "learning_rate": float(np.asarray(schedule(done - 1)))}
                record.append(log, done, told)
                track(done, told)

        yield on_metrics
    if shown is not None:
        shown.close()
