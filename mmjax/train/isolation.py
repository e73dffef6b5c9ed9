"""ABL's isolation: the pairs that a model learns first, by the losses of its first epochs."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Bool, Float32

from mmjax.core.files import atomic_path
from mmjax.data.pairs import PairTable
from mmjax.train.defence import AblConfig

LOSSES, ISOLATED = "losses.parquet", "isolated.parquet"
"""In the run folder: what `mmjax detectors --losses` reads, and the pairs that were isolated."""


def isolated_count(pairs: int, config: AblConfig) -> int:
    """How many of so many pairs are isolated."""
    return round(config.isolate if config.isolate >= 1 else config.isolate * pairs)


def isolated_pairs(
    records: Sequence[Float32[np.ndarray, " m"]], config: AblConfig
) -> Bool[np.ndarray, " m"]:
    """The pairs whose mean loss over the recorded epochs is lowest, `config.isolate` of them."""
    losses = np.mean(np.stack(records), axis=0, dtype=np.float64)
    isolated = np.zeros(losses.size, bool)
    isolated[np.argsort(losses, kind="stable")[: isolated_count(losses.size, config)]] = True
    return isolated


def write_isolation(
    folder: Path,
    table: PairTable,
    records: Sequence[Float32[np.ndarray, " m"]],
    config: AblConfig,
) -> None:
    """Write `losses.parquet` (shard, ordinal, loss: one an epoch) and `isolated.parquet`.

    Pairs go by the shard and row that they were read from; generated ones by their number.
    """
    count = len(table.owners)
    origins = table.origins or tuple(("scenes", number) for number in range(count))
    shards, ordinals = zip(*origins, strict=True)
    rows = pa.table(
        {
            "shard": pa.array(shards, pa.string()),
            "ordinal": pa.array(ordinals, pa.int32()),
            "loss": pa.array(list(np.stack(records, axis=1)), pa.list_(pa.float32())),
        }
    )
    isolated = rows.filter(pa.array(isolated_pairs(records, config)))
    for name, content in ((LOSSES, rows), (ISOLATED, isolated.select(["shard", "ordinal"]))):
        with atomic_path(folder / name) as temporary:
            pq.write_table(content, temporary)
