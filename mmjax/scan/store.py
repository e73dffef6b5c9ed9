"""What encoding leaves on disk, one set of files a shard, and the blocks that scoring reads.

`embeddings/NAME.image.npy` and `.text.npy` ([n, d] float16, one row a pair, zeros where there is
none) and `pairs/NAME.parquet`; each is written under a temporary name, fsynced and renamed, the
journal entry last.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Bool

from mmjax.core.files import atomic_path
from mmjax.core.rundir import RunDir
from mmjax.data.columns import equals
from mmjax.data.loader import Record
from mmjax.scan.blocks import EmbeddingBlock
from mmjax.scan.encode import EncodedShard

PAIR_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("caption", pa.string()),
        ("status", pa.string()),
        ("error_message", pa.string()),
        ("flags", pa.list_(pa.string())),
        ("image_sha256", pa.string()),
    ]
)


def write_shard(
    run: RunDir, name: str, shard: EncodedShard, *, fingerprint: str, prefix: str = ""
) -> None:
    """Store an encoded shard and journal it.

    Args:
        run: the run folder.
        name: the shard's name.
        shard: its embeddings and rows.
        fingerprint: of the input shard, so that a changed input is encoded again.
        prefix: folder inside the run, for sets other than the scanned one.
    """
    folder = run.path / prefix
    outputs = {
        "image": folder / "embeddings" / f"{name}.image.npy",
        "text": folder / "embeddings" / f"{name}.text.npy",
        "pairs": folder / "pairs" / f"{name}.parquet",
    }
    for kind in ("image", "text"):
        with atomic_path(outputs[kind]) as temporary, open(temporary, "wb") as file:
            np.save(file, getattr(shard, kind), allow_pickle=False)
    table = pair_table(shard.records)
    with atomic_path(outputs["pairs"]) as temporary:
        pq.write_table(table, temporary)
    run.finish(
        prefix + name,
        outputs,
        fingerprint=fingerprint,
        rows=len(shard.records),
        warnings=list(shard.warnings),
    )


def pair_table(records: Sequence[Record]) -> pa.Table:
    """Rows as they are stored (`PAIR_SCHEMA`)."""
    return pa.table(
        {
            "key": [r.key for r in records],
            "caption": [r.caption for r in records],
            "status": [r.status for r in records],
            "error_message": [r.message for r in records],
            "flags": [list(r.flags) for r in records],
            "image_sha256": [r.image_sha256 for r in records],
        },
        schema=PAIR_SCHEMA,
    )


def is_stored(run: RunDir, name: str, fingerprint: str, prefix: str = "") -> dict[str, Any] | None:
    """The journal entry of a shard that is stored and whose input has not changed since."""
    entry = run.finished(prefix + name)
    return entry if entry is not None and entry["fingerprint"] == fingerprint else None


def read_block(folder: Path, name: str) -> EmbeddingBlock:
    """The memory-mapped embeddings of a stored shard."""
    embeddings = folder / "embeddings"
    return EmbeddingBlock(
        np.load(embeddings / f"{name}.image.npy", mmap_mode="r", allow_pickle=False),
        np.load(embeddings / f"{name}.text.npy", mmap_mode="r", allow_pickle=False),
        read_valid(folder, name),
    )


def read_valid(folder: Path, name: str) -> Bool[np.ndarray, " n"]:
    """Which rows of a stored shard can be scored."""
    status = pq.read_table(folder / "pairs" / f"{name}.parquet", columns=["status"])["status"]
    return equals(status, "ok")


def read_pairs(folder: Path, name: str) -> pa.Table:
    """The rows of a stored shard (`PAIR_SCHEMA`)."""
    return pq.read_table(folder / "pairs" / f"{name}.parquet")
