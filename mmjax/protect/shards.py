"""Protected pairs as WebDataset shards: a PNG, its caption with the trigger, what both were."""

import io
import json
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from mmjax.core.config import to_dict
from mmjax.core.files import atomic_path, write_json
from mmjax.core.rundir import RunDir
from mmjax.data.pack import TarWriter
from mmjax.data.pairs import PairRow, PairTable
from mmjax.data.tokenizer import Tokenizer
from mmjax.protect.config import ProtectConfig
from mmjax.protect.pairs import Pairs, add
from mmjax.protect.vocabulary import survives, with_trigger
from mmjax.protect.wording import naturalness

MANIFEST = "protection.json"
CAPTIONS = "captions.parquet"


def write_shards(
    run: RunDir,
    config: ProtectConfig,
    table: PairTable,
    rows: Sequence[PairRow],
    pairs: Pairs,
    tokenizer: Tokenizer,
    noise_file: Path,
    triggers_file: Path,
) -> dict[str, Any]:
    """Write `shards/`, `captions.parquet` (a row for every row of the source) and the manifest.

    Returns:
        What `protection.json` holds.
    """
    noise, triggers = np.load(noise_file, mmap_mode="r"), np.load(triggers_file)
    captions = [text for each in table.captions for text in each]
    of_pair = triggers[pairs.trigger]
    written = [with_trigger(tokenizer, t, c) for t, c in zip(of_pair, captions, strict=True)]
    read_back = survives(tokenizer, captions, written, of_pair)
    usable = [row for row in rows if row.caption >= 0]
    names = []
    for start in range(0, len(usable), config.shard_size):
        name = f"{len(names):05d}.tar"
        names.append(name)
        path = run.path / "shards" / name
        if run.finished(name):
            continue
        part = usable[start : start + config.shard_size]
        with atomic_path(path) as temporary, TarWriter(temporary) as tar:
            for number, row in enumerate(part, start):
                for suffix, data in _members(row, pairs, noise, captions, written).items():
                    tar.add_member(f"{number:09d}.{suffix}", data)
        run.finish(name, {"shard": path})
    with atomic_path(run.path / CAPTIONS) as temporary:
        pq.write_table(_table(rows, captions, written), temporary)
    largest = max(int(np.abs(noise[i].astype(np.int16)).max()) for i in range(len(noise)))
    manifest = {
        "made_by": f"mmjax {version('mmjax')}",
        "config": to_dict(config),
        "epsilon": config.epsilon,
        "largest_change": largest,
        "counts": {
            "rows": len(rows),
            "pairs": len(usable),
            "images": len(table.images),
            "noises": pairs.noises,
            "triggers": pairs.triggers if config.trigger_length else 0,
            "captions_read_back": int(read_back.sum()),
            "skipped": table.skipped,
        },
        "shards": names,
    }
    if config.trigger_length:
        manifest["naturalness"] = naturalness(pairs, tokenizer, triggers, seed=config.seed)
    write_json(run.path / MANIFEST, manifest)
    return manifest


def _members(
    row: PairRow, pairs: Pairs, noise: np.ndarray, captions: Sequence[str], written: Sequence[str]
) -> dict[str, bytes]:
    pixels = add(
        pairs.images[pairs.owner[row.caption]][None], noise[pairs.noise[row.caption]][None]
    )[0]
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG", compress_level=3)
    about = {"key": row.key, "caption": captions[row.caption]}
    return {
        "png": out.getvalue(),
        "txt": written[row.caption].encode(),
        "json": json.dumps(about, ensure_ascii=False).encode(),
    }


def _table(rows: Sequence[PairRow], captions: Sequence[str], written: Sequence[str]) -> pa.Table:
    def texts(given: Sequence[str]) -> Iterator[str | None]:
        return (given[row.caption] if row.caption >= 0 else None for row in rows)

    return pa.table(
        {
            "key": [row.key for row in rows],
            "status": [row.status for row in rows],
            "message": [row.message for row in rows],
            "caption": pa.array(texts(captions), pa.string()),
            "protected": pa.array(texts(written), pa.string()),
        }
    )
