"""All detectors on the pairs and embeddings of one scan, against the truth."""

from collections.abc import Collection
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jax.sharding import Mesh
from jaxtyping import Float32

from mmjax.core.errors import InputError
from mmjax.evaluate.cells import detector_rows
from mmjax.scan.detection import join_truth
from mmjax.scan.detectors import EncodedSet, choose
from mmjax.scan.pipeline import open_scan
from mmjax.scan.prepare import read_labels
from mmjax.scan.verdicts import read_verdicts


def compare_detectors(
    run: Path | str,
    truth: Path | str,
    *,
    names: Collection[str] = (),
    losses: Path | None = None,
    seed: int = 0,
    mesh: Mesh | None = None,
) -> list[dict[str, Any]]:
    """The rows of `detector_rows` for a finished scan; nothing is encoded.

    Args:
        run: the folder of a finished scan.
        truth: the `poison_labels.parquet` of the set that was scanned.
        names: of detectors; all without.
        losses: see `read_losses`.
        seed: of the detectors that draw.
        mesh: devices for the neighbour search.

    Raises:
        ConfigError: a name is unknown.
        RunError, InputError: the run, the labels or the losses do not serve.
    """
    choose(names)  # before anything is read
    labels = cast(pa.Table, read_labels(Path(truth)))
    with open_scan(run) as scan:
        shards = [shard.name for shard in scan.scanned.shards]
        table = join_truth(read_verdicts(Path(run), shards), labels)
        encoded = EncodedSet(
            scan.scanned.blocks,
            [caption or "" for caption in table["caption"].to_pylist()],
            scan.mapping,
            scan.config.stages,
            losses=None if losses is None else read_losses(losses, table),
            seed=seed,
            mesh=mesh,
        )
        return detector_rows(encoded, np.array(table["truth"].to_pylist(), bool), names)


def read_losses(path: Path, verdicts: pa.Table) -> Float32[np.ndarray, " n"]:
    """The mean recorded loss of every row of a verdict table, NaN for skipped rows without one.

    Args:
        path: a parquet file with the columns shard, ordinal and loss, the loss of a pair or a list
            of its losses after each of the first epochs.
        verdicts: columns shard, ordinal and status.

    Raises:
        InputError: no such file, or it lacks a column or a scored pair.
    """
    try:
        table = pq.read_table(path, columns=["shard", "ordinal", "loss"])
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise InputError(
            f"{path} holds no recorded losses ({str(error)[:200]}); a parquet file with the "
            "columns shard, ordinal and loss is wanted"
        ) from error
    rows = zip(*(table[name].to_pylist() for name in ("shard", "ordinal", "loss")), strict=True)
    told = {(shard, ordinal): _mean(loss) for shard, ordinal, loss in rows}
    wanted = list(zip(verdicts["shard"].to_pylist(), verdicts["ordinal"].to_pylist(), strict=True))
    losses = np.array([told.get(row, np.nan) for row in wanted], np.float32)
    status = np.array(verdicts["status"].to_pylist(), object)
    missing = np.flatnonzero(np.isnan(losses) & (status == "ok"))
    if missing.size:
        shard, ordinal = wanted[missing[0]]
        raise InputError(
            f"{path} lacks the losses of {missing.size} of {len(wanted)} pairs, first {shard} row "
            f"{ordinal}; record those of the set that was scanned"
        )
    return losses


def _mean(loss: float | list[float] | None) -> float:
    values = loss if isinstance(loss, list) else [loss]
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else np.nan
