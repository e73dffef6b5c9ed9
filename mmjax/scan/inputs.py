"""What a scan scores: shards of embeddings with their rows, encoded here or brought along."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jax.sharding import Mesh
from jaxtyping import Bool, Float

from mmjax.core.errors import InputError
from mmjax.core.files import atomic_path
from mmjax.core.journal import journal_entries
from mmjax.core.progress import meter
from mmjax.core.rundir import RunDir
from mmjax.data.embeddings import EmbeddingShard, EmbeddingSource
from mmjax.data.shards import Shard, Source
from mmjax.scan.blocks import EmbeddingBlock
from mmjax.scan.config import EncodeConfig
from mmjax.scan.encode import encode_views, make_encoder
from mmjax.scan.prepare import Model, Opened
from mmjax.scan.store import (
    PAIR_SCHEMA,
    is_stored,
    read_block,
    read_pairs,
    read_valid,
    write_shard,
)

NORM_TOLERANCE = 5e-3
_NORM_ROWS = 65_536


class ScannedShard(NamedTuple):
    """One shard that can be scored: its embeddings and its rows, both read lazily."""

    name: str
    block: EmbeddingBlock
    pairs: Callable[[], pa.Table]
    warnings: tuple[str, ...]


class ScannedSet(NamedTuple):
    """A set that can be scored. `source` is where its pictures are, None for bare embeddings."""

    shards: tuple[ScannedShard, ...]
    source: Source | None

    @property
    def blocks(self) -> list[EmbeddingBlock]:
        """The embeddings, shard by shard."""
        return [shard.block for shard in self.shards]

    @property
    def warnings(self) -> list[str]:
        """What of the shards could not be read."""
        return [f"{s.name}: {warning}" for s in self.shards for warning in s.warnings]


def encode_shards(
    run: RunDir,
    source: Source,
    shards: Sequence[Shard],
    model: Model,
    config: EncodeConfig,
    *,
    what: str,
    prefix: str,
    mesh: Mesh,
) -> None:
    """Encode those of some shards of a source that are not stored yet.

    Args:
        run: where embeddings go.
        source: the pairs.
        shards: which of its shards.
        model: the weights and their tokenizer.
        config: batch sizes, precision, decoder.
        what: label of the progress shown.
        prefix: folder inside the run (with its slash), for sets other than the scanned one.
        mesh: the devices.

    Raises:
        InputError: a shard cannot be read.
    """
    if model.weights is None or model.tokenizer is None:
        raise InputError(f"{source.location} holds images; encoding them needs weights")
    left: list[tuple[Shard, str]] = []
    for shard in shards:
        fingerprint = source.fingerprint(shard)
        if not is_stored(run, shard.name, fingerprint, prefix):
            left.append((shard, fingerprint))
    if len(left) < len(shards):
        run.log("resume", stored=len(shards) - len(left), left=len(left))
    if not left:
        return
    # what an earlier call said stands only as long as what it was said of
    (run.path / "summary.json").unlink(missing_ok=True)
    encoder = make_encoder(model.weights, model.tokenizer, config, mesh=mesh)
    sizes = [source.sizes.get(shard.name) for shard, _ in left]
    known = [size for size in sizes if size is not None]
    shown = meter(sum(known) if len(known) == len(left) else None, what, unit="pair")
    try:
        opened = (source.open_shard(shard) for shard, _ in left)
        embedded = encode_views(encoder, opened, shown)
        for (shard, fingerprint), encoded in zip(left, embedded, strict=True):
            write_shard(run, shard.name, encoded, fingerprint=fingerprint, prefix=prefix)
            run.log("shard", name=prefix + shard.name, rows=len(encoded.records))
    finally:
        shown.close()


def stored_shards(run: RunDir, names: Sequence[str], prefix: str = "") -> tuple[ScannedShard, ...]:
    """The encoded shards of these names in a run folder."""
    folder = run.path / prefix
    return tuple(
        ScannedShard(
            name,
            read_block(folder, name),
            lambda name=name: read_pairs(folder, name),
            tuple(run.journal(prefix + name)["warnings"]),
        )
        for name in names
    )


def changed_shards(path: Path, source: Source | EmbeddingSource, names: Sequence[str]) -> list[str]:
    """Shards of an input that are no longer what a scan read: one line each.

    Args:
        path: the folder of the scan.
        source: its input, opened anew.
        names: the shards that it read.
    """
    read = {unit: entry.get("fingerprint") for unit, entry in journal_entries(path)}
    there = {shard.name: source.fingerprint(shard) for shard in source.shards}
    changed = [
        f"input {name}: {'has changed' if name in there else 'is gone'} since"
        for name in names
        if there.get(name) != read.get(name)
    ]
    return [*changed, *(f"input {name}: is new since" for name in there if name not in names)]


def read_embeddings(run: RunDir, source: EmbeddingSource, *, prefix: str) -> ScannedSet:
    """Embeddings in clip-retrieval's layout, as a set that can be scored.

    Unit-norm arrays are used where they lie; others are normalised into the run folder, once.
    """
    shards = []
    for shard in source.shards:
        fingerprint = source.fingerprint(shard)
        entry = is_stored(run, shard.name, fingerprint, prefix)
        if entry is None:
            _store(run, source.open_shard(shard), fingerprint=fingerprint, prefix=prefix)
            entry = run.journal(prefix + shard.name)
        if "image" in entry["outputs"]:
            block = read_block(run.path / prefix, shard.name)
        else:
            valid = read_valid(run.path / prefix, shard.name)
            block = EmbeddingBlock(*source.map_shard(shard), valid)
        pairs = functools.partial(read_pairs, run.path / prefix, shard.name)
        shards.append(ScannedShard(shard.name, block, pairs, ()))
    return ScannedSet(tuple(shards), None)


def _store(run: RunDir, part: EmbeddingShard, *, fingerprint: str, prefix: str) -> None:
    """Store the rows of a shard of embeddings, and their unit-norm copies where they want one."""
    folder = run.path / prefix
    outputs = {"pairs": folder / "pairs" / f"{part.name}.parquet"}
    with atomic_path(outputs["pairs"]) as temporary:
        pq.write_table(_pairs_of(part), temporary)
    if part.norm_error > NORM_TOLERANCE:
        for name, rows in (("image", part.image), ("text", part.text)):
            outputs[name] = folder / "embeddings" / f"{part.name}.{name}.npy"
            _write_unit_norm(rows, part.valid, outputs[name])
    rows = len(part.keys)
    run.finish(prefix + part.name, outputs, fingerprint=fingerprint, rows=rows, warnings=[])


def _pairs_of(part: EmbeddingShard) -> pa.Table:
    """Its rows as those of an encoded shard."""
    columns = {
        "key": part.keys,
        "caption": [caption or "" for caption in part.captions],
        "status": part.statuses,
        "error_message": part.messages,
        "flags": part.flags,
        "image_sha256": [""] * len(part.keys),
    }
    return pa.table(columns, schema=PAIR_SCHEMA)


def _write_unit_norm(
    rows: Float[np.ndarray, "n d"], valid: Bool[np.ndarray, " n"], target: Path
) -> None:
    """A normalised copy of the valid rows, zeros elsewhere; float16 stays float16, else float32."""
    kind = np.float16 if rows.dtype == np.float16 else np.float32
    with atomic_path(target) as temporary:
        copy = np.lib.format.open_memmap(temporary, mode="w+", dtype=kind, shape=rows.shape)
        for start in range(0, len(rows), _NORM_ROWS):
            here = valid[start : start + _NORM_ROWS]
            part = np.asarray(rows[start : start + _NORM_ROWS], np.float64)
            norms = np.linalg.norm(part, axis=1)
            unit = part / np.where(here, norms, 1.0)[:, None]
            copy[start : start + len(part)] = np.where(here[:, None], unit, 0.0)
        copy.flush()
        del copy


def embed(
    run: RunDir,
    opened: Opened,
    model: Model,
    config: EncodeConfig,
    *,
    what: str,
    prefix: str,
    mesh: Mesh,
) -> ScannedSet:
    """The embeddings of a set: read when they are brought along, else encoded.

    The arguments are those of `encode_shards`.

    Raises:
        InputError: a shard cannot be read, or there is not one pair.
    """
    if isinstance(opened, EmbeddingSource):
        return read_embeddings(run, opened, prefix=prefix)
    encode_shards(run, opened, opened.shards, model, config, what=what, prefix=prefix, mesh=mesh)
    stored = stored_shards(run, [shard.name for shard in opened.shards], prefix)
    if not any(len(shard.block.valid) for shard in stored):
        raise InputError(f"{opened.location} holds no pairs; name shards with images and captions")
    return ScannedSet(stored, opened)
