"""What a training refuses before it begins."""

from pathlib import Path

import jax
from jax.sharding import Mesh

from mmjax.core.errors import ConfigError
from mmjax.core.mesh import DATA
from mmjax.train.config import TrainConfig


def check_batch(config: TrainConfig, mesh: Mesh) -> None:
    """Raise ConfigError unless the batch divides into parts of equal shares for all devices."""
    devices, processes = mesh.shape[DATA], jax.process_count()
    if config.batch_size % (devices * config.accumulate):
        raise ConfigError(
            f"batch_size {config.batch_size} does not divide by mesh.data {devices} x accumulate "
            f"{config.accumulate}; choose a multiple of {devices * config.accumulate}"
        )
    if devices % processes:
        raise ConfigError(
            f"mesh.data {devices} does not divide by the {processes} processes; "
            "lower mesh.model or change mesh.data"
        )


def refuse_inside(config: TrainConfig, out_dir: Path) -> None:
    """Raise ConfigError where a run reads from the folder that it empties first."""
    weights = config.model.weights.partition(":")[2]
    for read in (weights, config.model.tokenizer, config.data.location, config.data.heldout):
        if read and Path(read).resolve().is_relative_to(out_dir.resolve()):
            raise ConfigError(
                f"{read} lies in {out_dir}, which --overwrite empties; choose another --out"
            )
