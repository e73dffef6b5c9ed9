"""The surrogate between rounds: `learn`'s training, on what is protected so far."""

import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int8, Int32

from mmjax.core.keys import stream
from mmjax.learn.loop import fit
from mmjax.learn.sharding import gather, own_rows
from mmjax.learn.state import TrainState, create, make_optimizer
from mmjax.learn.step import LossFn, Step, make_step
from mmjax.models.clip import Towers, Variables, clamp_scale
from mmjax.ops.contrastive import sharded_info_nce
from mmjax.protect.config import ProtectConfig
from mmjax.protect.pairs import Pairs, training_batches

PyTree = Any
_TIMED = 4


class Trainer(NamedTuple):
    """Trains one surrogate from round to round; it is never reset.

    Fields:
        variables: its weights before the first round.
    """

    variables: Variables
    state: TrainState
    step: Step
    pairs: Pairs
    config: ProtectConfig
    folder: Path
    facts: Mapping[str, Any]
    mesh: Mesh

    def train(
        self, number: int, noise: Int8[np.ndarray, "c s s 3"], triggers: Int32[np.ndarray, "t k"]
    ) -> Variables:
        """The weights after the training of round `number`, which a checkpoint may hold already."""
        steps = self.config.surrogate.steps
        if not steps:
            return self.variables
        batch_at = training_batches(self.pairs, noise, triggers, self.config)
        state = fit(
            self.state,
            self.step,
            lambda step: own_rows(batch_at(step)),
            steps=(number + 1) * steps,
            key=stream(jax.random.key(self.config.seed), "steps"),
            mesh=self.mesh,
            checkpoint_dir=self.folder,
            data=self.facts,
        )
        return gather({"params": state.params, "batch_stats": state.model_state}, self.mesh)

    def step_seconds(
        self, noise: Int8[np.ndarray, "c s s 3"], triggers: Int32[np.ndarray, "t k"]
    ) -> float:
        """How long a training step takes after compiling; what it trains is thrown away."""
        if not self.config.surrogate.steps:
            return 0.0
        ends: list[float] = []
        batch_at = training_batches(self.pairs, noise, triggers, self.config)
        fit(
            self.state,
            self.step,
            lambda step: own_rows(batch_at(step)),
            steps=_TIMED,
            key=jax.random.key(0),
            mesh=self.mesh,
            on_metrics=lambda step, metrics: ends.append(time.perf_counter()),
        )
        return statistics.median(np.diff(ends))


def make_trainer(
    towers: Towers,
    variables: Variables,
    pairs: Pairs,
    config: ProtectConfig,
    folder: Path,
    facts: Mapping[str, Any],
    *,
    mesh: Mesh,
) -> Trainer:
    """Make the trainer.

    Args:
        towers: not frozen.
        variables: initial weights.
        pairs: what it is trained on.
        config: how.
        folder: of its checkpoints.
        facts: what the batches depend on; a checkpoint of other data is refused.
        mesh: batches are split over its axis `data`.
    """
    optimizer = make_optimizer(
        config.surrogate.optimizer, max(1, config.rounds * config.surrogate.steps)
    )
    return Trainer(
        variables,
        create(variables["params"], variables["batch_stats"], optimizer),
        make_step(_loss(towers, mesh), optimizer, clamp_scale),
        pairs,
        config,
        folder,
        facts,
        mesh,
    )


def _loss(towers: Towers, mesh: Mesh) -> LossFn:
    def loss_fn(
        params: PyTree, batch_stats: PyTree, batch: Mapping[str, jax.Array], key: jax.Array
    ) -> tuple[jax.Array, tuple[PyTree, dict[str, jax.Array]]]:
        image, text, scale, batch_stats = towers.train_forward(
            {"params": params, "batch_stats": batch_stats}, batch["images"], batch["tokens"]
        )
        return sharded_info_nce(image, text, scale, mesh=mesh), (batch_stats, {})

    return loss_fn
