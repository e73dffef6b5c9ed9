"""Protecting a set of pairs: rounds of training, search and noise, then shards."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from mmjax.core import distributed
from mmjax.core.errors import ConfigError
from mmjax.core.keys import stream
from mmjax.core.mesh import DATA, make_mesh
from mmjax.core.rundir import RunDir
from mmjax.data.pairs import fingerprint, read_table
from mmjax.data.sources import open_source
from mmjax.data.tokenizer import Tokenizer
from mmjax.learn.start import fit_text, read_start
from mmjax.models.clip import build, freeze
from mmjax.models.policy import Policy
from mmjax.protect.config import ProtectConfig
from mmjax.protect.kernels import make_kernels
from mmjax.protect.pairs import Pairs, make_pairs
from mmjax.protect.rounds import Say, Work, run_rounds
from mmjax.protect.shards import MANIFEST, write_shards
from mmjax.protect.surrogate import make_trainer
from mmjax.protect.vocabulary import allowed_tokens
from mmjax.protect.wording import WordModel, fit_words


def protect_pairs(
    config: ProtectConfig, out_dir: Path, *, say: Say = lambda line: None
) -> dict[str, Any]:
    """Protect a set and write it as shards; the same call on the same folder resumes.

    With several processes (`core.distributed`) each makes this call on one shared folder; the
    first one writes, and all read the whole set.

    Args:
        config: the run, `output="shards"`.
        out_dir: run folder: `state/`, `surrogate/`, `shards/`, `captions.parquet`,
            `protection.json`.
        say: is told what a round costs before the first one, and each round's loss.

    Returns:
        What `protection.json` holds.

    Raises:
        ConfigError: the configuration does not fit the data or the mesh.
        InputError: the data cannot be read.
        RunError: the folder holds another run, or the data have changed.
        WeightsError: the surrogate's weights cannot be read.
    """
    mesh = make_mesh(config.mesh)
    _check_batch(config, mesh)
    distributed.connect(mesh)
    start = read_start(config.surrogate.model)
    source = open_source(
        config.inputs,
        input_format=config.input_format,
        split=config.split,
        columns=config.columns,
    )
    table, rows = read_table(
        source,
        start.shape.vision.image_size,
        workers=config.workers,
        max_pixels=config.max_image_pixels,
    )
    facts = {"data": fingerprint(table), "weights": start.fingerprint}
    with _run_folder(config, out_dir, facts) as run:
        shape, tokenizer, _ = fit_text(start, config.surrogate.model, table, out_dir)
        pairs = make_pairs(table, rows, tokenizer, config)

        def make_work() -> Work:
            model = config.surrogate.model
            towers = build(shape, Policy(model.compute, remat=model.remat))
            key = stream(jax.random.key(config.seed), "weights")
            variables = start.variables or towers.init(key)
            trainer = make_trainer(
                towers, variables, pairs, config, run.path / "surrogate", facts, mesh=mesh
            )
            frozen, _ = freeze(towers, variables, model.compute)
            kernels = make_kernels(frozen, config, *_words(config, pairs, tokenizer))
            return Work(config, pairs, towers, kernels, trainer, mesh)

        state = run_rounds(pairs, config, run, tokenizer, make_work, say)
        if distributed.is_primary():
            write_shards(run, config, table, rows, pairs, tokenizer, *state)
        distributed.wait_for_others("exported")
    manifest: dict[str, Any] = json.loads((out_dir / MANIFEST).read_text(encoding="utf-8"))
    return manifest


@contextlib.contextmanager
def _run_folder(config: ProtectConfig, out_dir: Path, facts: dict[str, str]) -> Iterator[RunDir]:
    """The run folder, opened by the first process; the others come after it and follow."""
    if not distributed.is_primary():
        distributed.wait_for_others("run folder")
        yield RunDir.follow(out_dir)
        return
    with RunDir.open(out_dir, verb="protect", config=config, facts=facts) as run:
        distributed.wait_for_others("run folder")
        yield run


def _check_batch(config: ProtectConfig, mesh: Mesh) -> None:
    """Raise ConfigError unless all devices, and all processes, have equal shares of a batch."""
    devices, processes = mesh.shape[DATA], jax.process_count()
    if config.batch_size % devices or devices % processes:
        raise ConfigError(
            f"batch_size {config.batch_size} must divide by mesh.data {devices}, and that by the "
            f"{processes} processes"
        )


def _words(
    config: ProtectConfig, pairs: Pairs, tokenizer: Tokenizer
) -> tuple[jax.Array | None, WordModel | None]:
    """The tokens that are searched, and which follow which; None where it does not matter."""
    if not (config.trigger_length and config.trigger.rounds):
        return None, None
    allowed = jnp.asarray(allowed_tokens(tokenizer, config.trigger.vocabulary))
    if config.trigger.vocabulary != "natural":
        return allowed, None
    return allowed, fit_words(pairs, tokenizer, config.trigger.words, "searches")
