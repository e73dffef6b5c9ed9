"""A small run folder as a scan leaves it, and a source with pictures, for the report's tests."""

import io
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from mmjax.core.types import Pair
from mmjax.data.sources import Shard, Source
from mmjax.scan.verdicts import VERDICT_SCHEMA

ROWS = 60  # a shard
SHARDS = ("00000", "00001")
POISONED = {"00000": range(0, 12), "00001": range(3, 9)}
SKIPPED = {59: "truncated_image", 58: "missing_caption"}


class FakeRun(NamedTuple):
    folder: Path
    source: Source
    labels: pa.Table


def make_run(
    folder: Path,
    *,
    poisoned: bool = True,
    captions: dict[int, str] | None = None,
    changes: dict[tuple[str, int], dict] | None = None,
    config: dict | None = None,
    verb: str = "scan",
) -> FakeRun:
    """Two shards of 60 pairs, 18 of them poisoned (group 0), 2 skipped in each.

    `captions` replaces captions of the first shard by ordinal, `changes` any columns of the rows
    at (shard, ordinal), `config` and `verb` are what run.json says.
    """
    (folder / "verdicts").mkdir(parents=True)
    labels: list[dict] = []
    for shard in SHARDS:
        rows = [_row(shard, i, i in POISONED[shard], found=poisoned) for i in range(ROWS)]
        if shard == SHARDS[0]:
            for ordinal, caption in (captions or {}).items():
                rows[ordinal]["caption"] = caption
        for row in rows:
            row.update((changes or {}).get((shard, row["ordinal"]), {}))
        table = pa.Table.from_pylist(rows, schema=VERDICT_SCHEMA)
        pq.write_table(table, folder / "verdicts" / f"{shard}.parquet")
        labels += [
            {"shard": f"{shard}-POISONED", "ordinal": i, "is_poisoned": i in POISONED[shard]}
            for i in range(ROWS)
        ]
    run = {
        "verb": verb,
        "command": ["mmjax", "scan", "{00000..00001}.tar", "--out=run"],
        "config": {
            "inputs": ["{00000..00001}.tar"],
            "write_clean": False,
            "stages": {"drop": "poisoned"},
            **(config or {}),
        },
        "config_digest": "0123abcd",
        "facts": {"weights": "demo sha256:77aa"},
        "versions": {"python": "3.11", "mmjax": "0.1.0"},
    }
    (folder / "run.json").write_text(json.dumps(run))
    summary = {
        "warnings": [],
        "thresholds": {"coverage": 0.09, "gamma_z": 0.6 if poisoned else None},
        "mixture": {"means": [0.05, 0.1], "variances": [1e-3, 4e-3], "weights": [0.7, 0.3]},
        "found": {"seeds": 13, "null_test": {"observed": 0.5, "quantile99": 0.1}},
        "mapping": {"kind": "ridge", "diagnostics": {"held_out_cosine": 0.4}},
        "shards": list(SHARDS),
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    source = Source("fake", "", tuple(Shard(s, s) for s in SHARDS), FakeView, lambda shard: "")
    return FakeRun(folder, source, pa.Table.from_pylist(labels))


def _row(shard: str, ordinal: int, bad: bool, *, found: bool) -> dict:
    noise = 0.02 * ((ordinal * 7) % 10) / 10
    caption = f"a banana on plate {ordinal % 3}" if bad else f"two dogs run on beach {ordinal}"
    row = {
        "shard": shard,
        "ordinal": ordinal,
        "key": f"{shard}{ordinal:04d}",
        "caption": caption,
        "status": SKIPPED.get(ordinal, "ok"),
        "error_message": "",
        "flags": ["caption_truncated"] if ordinal == 30 else [],
        "is_poisoned": bad and found,
        "verdict": "poisoned" if bad and found else "benign",
    }
    if row["status"] != "ok":
        return row | {"verdict": "skipped", "caption": None}
    return row | {
        "sim_original": 0.1 if bad else 0.5,
        "sim_generated": 0.5,
        "consistency": 0.4 + noise if bad else 0.05 + noise,
        "gmm_component": 1 if bad else 0,
        "gmm_probability": 0.9,
        "coarse": "seed" if bad and ordinal < 8 else "benign",
        "text_correlation": 0.8 + noise if bad else 0.1 + noise,
        "group": 0 if bad and found else None,
        "poison_score": (0.9 + noise if bad else 0.1 + noise) * (1 if found else 0.5),
    }


class FakeView:
    """Noise pictures, the poisoned ones with the same black and white patch at the lower right."""

    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __init__(self, shard: Shard):
        self.name = shard.name

    def __len__(self) -> int:
        return ROWS

    def __getitem__(self, index: int) -> Pair:
        generator = np.random.default_rng([int(self.name), index])
        pixels = generator.integers(0, 256, (48, 64, 3)).astype(np.uint8)
        if index in POISONED[self.name]:
            pixels[-12:, -12:] = 255 * ((np.arange(12) // 3)[:, None, None] % 2)
        return Pair(f"{self.name}{index:04d}", png(pixels), "")


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()
