"""The verdict on every pair: one parquet file per input shard, and the manifests.

Every input row is in exactly one verdict row, and in exactly one of `keep.parquet`,
`drop.parquet` and `skipped.parquet`.
"""

import collections
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mmjax.core.files import atomic_path
from mmjax.core.types import Verdict
from mmjax.data.columns import counted, equals, is_among, members

SCHEMA_VERSION = "1"
VERDICT_SCHEMA = pa.schema(
    [
        ("shard", pa.string()),
        ("ordinal", pa.int32()),
        ("key", pa.string()),
        ("caption", pa.string()),
        ("status", pa.string()),
        ("error_message", pa.string()),
        ("flags", pa.list_(pa.string())),
        ("sim_original", pa.float32()),
        ("sim_generated", pa.float32()),
        ("consistency", pa.float32()),
        ("gmm_component", pa.int8()),
        ("gmm_probability", pa.float32()),
        ("coarse", pa.string()),
        ("text_correlation", pa.float32()),
        ("poison_score", pa.float32()),
        ("mismatch_probability", pa.float32()),
        ("group", pa.int32()),
        ("is_poisoned", pa.bool_()),
        ("verdict", pa.string()),
    ],
    metadata={
        "schema_version": SCHEMA_VERSION,
        "poison_score": "in [0, 1], high = bad; from 0.5 on the pair is called poisoned",
        "sim_original": "s_o = max(<image, caption>, 0), CFBD Eq. 3",
        "sim_generated": "s_g = max(<image, F(image)>, 0), CFBD Eq. 3",
        "consistency": "c = |s_g - s_o|, CFBD Eq. 4",
        "text_correlation": "z, mean cosine of the caption to the seeds' captions, CFBD Eq. 6",
        "mismatch_probability": "that image and caption do not belong together; null in mode=paper",
        "group": "of poisoned pairs whose captions hang together, 0 = the largest; else null",
    },
)
SCORES = (
    "sim_original",
    "sim_generated",
    "consistency",
    "gmm_component",
    "gmm_probability",
    "coarse",
    "text_correlation",
    "poison_score",
    "mismatch_probability",
    "group",
)
"""Columns that a skipped row leaves null."""

_FEW = ("shard", "status", "flags.list.element", "coarse", "gmm_component", "group", "verdict")
"""Columns of few values, written as a dictionary: of the others it costs time and room."""

Drop = Literal["poisoned", "mismatched"]


def manifests(drop: Drop) -> dict[str, frozenset[Verdict]]:
    """The verdicts that each manifest lists: poisoned pairs are dropped, or mismatched ones too."""
    dropped: frozenset[Verdict] = frozenset({"poisoned", drop})
    scored: frozenset[Verdict] = frozenset({"benign", "poisoned", "mismatched", "undetermined"})
    return {"keep": scored - dropped, "drop": dropped, "skipped": frozenset({"skipped"})}


class Counts(NamedTuple):
    """How many rows got which verdict, status and flag."""

    verdicts: dict[str, int]
    statuses: dict[str, int]
    flags: dict[str, int]

    @property
    def total(self) -> int:
        """All input rows."""
        return sum(self.verdicts.values())


def verdict_table(shard: str, pairs: pa.Table, columns: Mapping[str, np.ndarray]) -> pa.Table:
    """The verdict rows of a shard.

    Args:
        shard: its name.
        pairs: its rows (`store.PAIR_SCHEMA`), in input order.
        columns: one array a column of `SCORES`, and `verdict`, one element a row; what stands in
            rows whose status is not `ok` is not read.
    """
    n = pairs.num_rows
    skipped = ~equals(pairs.column("status"), "ok")
    verdict = np.where(skipped, "skipped", columns["verdict"])
    arrays: dict[str, pa.Array | pa.ChunkedArray] = {
        "shard": pa.array([shard] * n, pa.string()),
        "ordinal": pa.array(np.arange(n, dtype=np.int32)),
    }
    for name in ("key", "caption", "status", "error_message", "flags"):
        arrays[name] = pairs.column(name)
    for name in SCORES:
        field = VERDICT_SCHEMA.field(name)
        values = columns[name]
        absent = values < 0 if name == "group" else values != values  # NaN
        arrays[name] = pa.array(values, type=field.type, mask=skipped | absent)
    arrays["is_poisoned"] = pa.array(verdict == "poisoned", type=pa.bool_())
    arrays["verdict"] = pa.array(verdict, type=pa.string())
    return pa.table([arrays[name] for name in VERDICT_SCHEMA.names], schema=VERDICT_SCHEMA)


def write_verdicts(
    folder: Path, tables: Iterable[tuple[str, pa.Table]], *, drop: Drop = "poisoned"
) -> Counts:
    """Write `verdicts/SHARD.parquet` of every shard and the three manifests.

    Args:
        folder: the run folder.
        tables: (shard name, its verdict table), in order; read once.
        drop: see `manifests`.

    Returns:
        Counts that add up to the number of input rows.
    """
    verdicts: collections.Counter[str] = collections.Counter()
    statuses: collections.Counter[str] = collections.Counter()
    flags: collections.Counter[str] = collections.Counter()
    listed = manifests(drop)
    parts: dict[str, list[pa.Table]] = {name: [] for name in listed}
    written = []
    for name, table in tables:
        written.append(f"{name}.parquet")
        with atomic_path(folder / "verdicts" / f"{name}.parquet") as temporary:
            # the stubs know no list
            pq.write_table(table, temporary, use_dictionary=list(_FEW))  # pyright: ignore[reportArgumentType]
        given = table.column("verdict")
        verdicts.update(counted(given))
        statuses.update(counted(table.column("status")))
        flags.update(counted(members(table.column("flags"))))
        small = table.select(["shard", "ordinal", "key", "verdict"])
        for manifest, wanted in listed.items():
            parts[manifest].append(small.filter(is_among(given, wanted)))
    remove_others(folder / "verdicts", written)
    empty = VERDICT_SCHEMA.empty_table().select(["shard", "ordinal", "key", "verdict"])
    for manifest, tables_of in parts.items():
        with atomic_path(folder / f"{manifest}.parquet") as temporary:
            pq.write_table(pa.concat_tables(tables_of or [empty]), temporary)
    return Counts(dict(verdicts), dict(statuses), dict(flags))


def decided_files(folder: Path) -> list[Path]:
    """Everything that says what was decided: verdicts, manifests, summary, report."""
    listed = [folder / f"{name}.parquet" for name in manifests("poisoned")]
    told = [folder / "summary.json", folder / "report" / "index.html"]
    return [*sorted((folder / "verdicts").glob("*.parquet")), *listed, *told]


def remove_others(folder: Path, names: Collection[str]) -> None:
    """Remove the files of shards that are no longer in the input."""
    for file in folder.iterdir():
        if file.name not in names:
            file.unlink()


def read_verdicts(folder: Path, shards: Sequence[str] | None = None) -> pa.Table:
    """The verdict rows of a run, all shards in the run's order or the named ones."""
    files = (
        sorted((folder / "verdicts").glob("*.parquet"))
        if shards is None
        else [folder / "verdicts" / f"{name}.parquet" for name in shards]
    )
    return pa.concat_tables([pq.read_table(f) for f in files] or [VERDICT_SCHEMA.empty_table()])
