"""The cleaned set: shards of the same names that hold the kept pairs, byte for byte."""

import hashlib

import numpy as np

from mmjax.core.files import write_json
from mmjax.core.progress import progress
from mmjax.core.rundir import RunDir
from mmjax.data.pack import copy_members
from mmjax.data.shards import Source
from mmjax.scan.verdicts import Drop, manifests, read_verdicts, remove_others

FOLDER = "clean"


def write_clean(run: RunDir, source: Source, *, drop: Drop) -> None:
    """Copy the pairs that `manifests(drop)` keeps to OUT/clean; a shard that is there stays.

    Skipped rows are left out too. `sizes.json` beside the shards holds the pairs of each, which
    open_clip and mmjax read.
    """
    sizes, wanted = {}, manifests(drop)["keep"]
    for shard in progress(source.shards, total=len(source.shards), what="clean shards"):
        verdicts = read_verdicts(run.path, [shard.name]).column("verdict").to_pylist()
        kept = [row for row, verdict in enumerate(verdicts) if verdict in wanted]
        target = run.path / FOLDER / f"{shard.name}.tar"
        unit = f"{FOLDER}/{shard.name}"
        rows = hashlib.sha256(np.array(kept, np.int64).tobytes()).hexdigest()
        made_from = {"rows": rows, "fingerprint": source.fingerprint(shard)}
        entry = run.finished(unit)
        if entry is None or {name: entry[name] for name in made_from} != made_from:
            view = source.open_shard(shard)
            copied = copy_members(view, kept, target, first=shard.start)
            run.finish(unit, {"shard": target}, copied=copied, **made_from)
        sizes[target.name] = run.journal(unit)["copied"]
    remove_others(run.path / FOLDER, sizes)
    write_json(run.path / FOLDER / "sizes.json", sizes)
