"""Protecting a set of pairs: rounds of training, search and noise, then shards."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from mmjax.core.errors import ConfigError
from mmjax.core.keys import stream
from mmjax.core.mesh import make_mesh
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
from mmjax.protect.shards import write_shards
from mmjax.protect.surrogate import make_trainer
from mmjax.protect.vocabulary import allowed_tokens
from mmjax.protect.wording import WordModel, fit_words


def protect_pairs(
    config: ProtectConfig, out_dir: Path, *, say: Say = lambda line: None
) -> dict[str, Any]:
    """Protect a set and write it as shards; the same call on the same folder resumes.

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
    if jax.process_count() > 1:
        raise ConfigError("a protection runs in one process; use its devices (mesh.data)")
    mesh = make_mesh(config.mesh)
    start = read_start(config.surrogate.model)
    source = open_source(config.inputs, input_format=config.input_format, split=config.split)
    table, rows = read_table(
        source,
        start.shape.vision.image_size,
        workers=config.workers,
        max_pixels=config.max_image_pixels,
    )
    facts = {"data": fingerprint(table), "weights": start.fingerprint}
    with RunDir.open(out_dir, verb="protect", config=config, facts=facts) as run:
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
        return write_shards(run, config, table, rows, pairs, tokenizer, *state)


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
