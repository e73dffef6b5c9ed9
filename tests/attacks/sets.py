"""What a poisoned set holds, read back."""

import tarfile
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq


def members(out: Path) -> dict[str, bytes]:
    """All members of all shards, in order."""
    found = {}
    for path in sorted(out.glob("*.tar")):
        with tarfile.open(path) as tar:
            for entry in tar:
                file = tar.extractfile(entry)
                found[f"{path.stem}/{entry.name}"] = file.read() if file else b""
    return found


def labels(out: Path) -> list[dict[str, Any]]:
    return pq.read_table(out / "poison_labels.parquet").to_pylist()


def altered_pairs(out: Path) -> dict[str, tuple[bytes, bytes]]:
    data = members(out)
    bad = {row["key"]: f"{row['shard']}/{row['key']}" for row in labels(out) if row["is_poisoned"]}
    return {key: (data[f"{name}.png"], data[f"{name}.txt"]) for key, name in bad.items()}


def contents(out: Path) -> dict[str, bytes]:
    names = ["POISONED_DATASET.json", "poison_labels.parquet"]
    names += [path.name for path in out.glob("*.tar")]
    return {name: (out / name).read_bytes() for name in names}
