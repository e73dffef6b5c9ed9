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
from mmjax.evaluate.tables import row
from mmjax.scan.detection import join_truth, measure
from mmjax.scan.detectors import DETECTORS, EncodedSet, choose
from mmjax.scan.pipeline import open_scan
from mmjax.scan.prepare import read_labels
from mmjax.scan.stages import COARSE, VERDICTS
from mmjax.scan.verdicts import read_verdicts

OWN = ("cfbd_robust", "cfbd_fine", "cfbd_coarse")
"""The detectors that depend on the mapping network."""


def compare_detectors(
    run: Path | str,
    truth: Path | str,
    *,
    names: Collection[str] = (),
    losses: Path | None = None,
    seed: int = 0,
    mesh: Mesh | None = None,
) -> list[dict[str, Any]]:
    """One row a detector, in the order of the table; nothing is encoded.

    The robust mode decides by its own threshold and the coarse stage by "not benign"; the others
    have none and are ranked only. A detector that cannot run has a row that says why.

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
    chosen = choose(names)
    labels = cast(pa.Table, read_labels(Path(truth)))
    scan = open_scan(run)
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
    poisoned = np.array(table["truth"].to_pylist(), bool)
    coarse = measure(DETECTORS["cfbd_coarse"].score(encoded), poisoned)
    rows = []
    for name, detector in chosen.items():
        lacking = detector.lacking(encoded)
        if lacking:
            rows.append({"name": name, "detector": detector.title, "reason": lacking})
            continue
        found = measure(detector.score(encoded), poisoned, **_decisions(name, encoded))
        own = coarse if name in OWN else None
        rows.append({"name": name, **row(detector.title, found, coarse=own)})
    return rows


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
    except (OSError, pa.ArrowException) as error:
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


def _decisions(name: str, encoded: EncodedSet) -> dict[str, Any]:
    """What a stage of the scan decided by itself, and the seeds that it started from."""
    if name not in OWN:
        return {}
    scores = (encoded.paper if name == "cfbd_fine" else encoded.robust).scores
    seeds, suspicious = (scores.coarse == COARSE.index(s) for s in ("seed", "suspicious"))
    if name == "cfbd_robust":
        return {"flags": scores.verdict == VERDICTS.index("poisoned"), "seeds": seeds}
    return {"flags": seeds | suspicious if name == "cfbd_coarse" else None, "seeds": seeds}
