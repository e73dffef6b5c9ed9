"""Training CLIP from scratch: pairs -> tokenizer -> loop -> a model folder that a scan can load."""

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from mmjax.core.keys import stream
from mmjax.core.progress import Meter, meter
from mmjax.core.rundir import RunDir, write_json
from mmjax.data.tokenizer import Tokenizer, load_tokenizer, train_bpe
from mmjax.learn.loop import fit
from mmjax.learn.state import create, make_optimizer
from mmjax.learn.step import make_step
from mmjax.models.clip import Towers, build
from mmjax.models.policy import Policy
from mmjax.models.presets import Preset, preset
from mmjax.models.weights import save_weights
from mmjax.train.batches import PairTable, heldout_pairs, make_batches, training_pairs
from mmjax.train.config import ModelConfig, TrainConfig
from mmjax.train.objectives import OBJECTIVES, clamp_scale

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
    evaluate: Evaluate | None = None,
    stop: Callable[[], bool] | None = None,
) -> TrainResult:
    """Train a CLIP model and export it; the same call on the same folder resumes.

    Args:
        config: the run; another one is refused on a folder that holds this one.
        out_dir: run folder: `metrics.jsonl`, `checkpoints/`, `tokenizer.json`, `model/`,
            `summary.json`.
        mesh: batches are split over its axis `data`.
        evaluate: judges the trained towers on the held-out pairs
            (`evaluate.retrieval.evaluate_pairs`); None skips it.
        stop: asked after every step; True saves the state and raises RetryError.

    Raises:
        ConfigError: the configuration does not fit the data or the mesh.
        InputError: the data cannot be read.
        NonFiniteLossError: training diverged.
        RetryError: `stop` asked for it; run it again to go on.
    """
    with RunDir.open(out_dir, verb="train", config=config) as run:
        shape = preset(config.model.preset)
        size = shape.vision.image_size
        table = training_pairs(config.data, size, seed=config.seed)
        tokenizer_path = _tokenizer_path(config.model, table, out_dir)
        shape, tokenizer = _fit_text(shape, config.model, tokenizer_path)
        towers = build(shape, Policy(config.model.compute))
        run.log("data", images=len(table.images), skipped=table.skipped)
        variables = _fit(config, out_dir, towers, tokenizer, table, mesh=mesh, stop=stop)
        folder = out_dir / "model"
        save_weights(folder, shape, variables, tokenizer_path, config.export_dtype)
        summary: dict[str, Any] = {
            "steps": config.steps,
            "images": len(table.images),
            "captions": len(table.owners),
            "skipped": table.skipped,
            "last": json.loads((out_dir / "metrics.jsonl").read_text().splitlines()[-1]),
        }
        heldout = None if evaluate is None else heldout_pairs(config.data, size, seed=config.seed)
        if evaluate is not None and heldout is not None:
            summary["heldout"] = evaluate(towers, variables, tokenizer, heldout)
        write_json(out_dir / "summary.json", summary)
        run.log("done", **summary)
    return TrainResult(folder, summary)


def _tokenizer_path(config: ModelConfig, table: PairTable, out_dir: Path) -> Path:
    """The tokenizer's file or folder; a BPE of the training captions unless one is named."""
    if config.tokenizer:
        return Path(config.tokenizer)
    path = out_dir / "tokenizer.json"
    train_bpe([text for each in table.captions for text in each], config.vocab_size, path)
    return path


def _fit_text(shape: Preset, config: ModelConfig, path: Path) -> tuple[Preset, Tokenizer]:
    """The preset with the tokenizer's vocabulary and the wanted context; the tokenizer with it."""
    context = config.context_length or shape.text.context_length
    tokenizer = load_tokenizer(path, context_length=context)
    text = dataclasses.replace(shape.text, vocab_size=tokenizer.vocab_size, context_length=context)
    return dataclasses.replace(shape, text=text), tokenizer


def _fit(
    config: TrainConfig,
    out_dir: Path,
    towers: Towers,
    tokenizer: Tokenizer,
    table: PairTable,
    *,
    mesh: Mesh,
    stop: Callable[[], bool] | None,
) -> dict[str, Any]:
    """Run the loop; returns the trained variables."""
    key = jax.random.key(config.seed)
    optimizer = make_optimizer(config.optimizer, config.steps)
    loss_fn = OBJECTIVES[config.objective](towers, config, mesh)
    initial = towers.init(stream(key, "weights"))
    state = create(initial["params"], initial["batch_stats"], optimizer)
    batch_at = make_batches(
        table,
        tokenizer,
        batch_size=config.batch_size,
        captions_per_image=config.captions_per_image,
        seed=config.seed,
    )
    log = out_dir / "metrics.jsonl"
    shown: Meter | None = None

    def on_metrics(done: int, metrics: dict[str, float]) -> None:
        nonlocal shown
        if shown is None:
            _forget(log, done)
            shown = meter(config.steps - done + 1, "train", unit="step")
        shown.update()
        if done % config.log_every == 0 or done == config.steps:
            with open(log, "a", encoding="utf-8") as lines:
                lines.write(json.dumps({"step": done, **metrics}) + "\n")

    state = fit(
        state,
        make_step(loss_fn, optimizer, clamp_scale),
        batch_at,
        steps=config.steps,
        key=stream(key, "steps"),
        mesh=mesh,
        checkpoint_dir=out_dir / "checkpoints",
        checkpoint_every=config.checkpoint_every,
        on_metrics=on_metrics,
        stop=stop,
    )
    if shown is not None:
        shown.close()
    return {"params": state.params, "batch_stats": state.model_state}


def _forget(log: Path, step: int) -> None:
    """Drop the lines from `step` on: an interrupted run wrote them, this one does them again."""
    if log.exists():
        lines = log.read_text(encoding="utf-8").splitlines(keepends=True)
        log.write_text("".join(line for line in lines if json.loads(line)["step"] < step))
