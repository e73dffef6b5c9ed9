"""What a scan scores: shards of embeddings with their rows, encoded here or brought along."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from jax.sharding import Mesh
from jaxtyping import Float

from mmjax.core.errors import InputError, TokenizerError
from mmjax.core.progress import meter
from mmjax.core.rundir import RunDir, atomic_path
from mmjax.data.embeddings import EmbeddingShard, is_embeddings, open_embeddings
from mmjax.data.loader import Record
from mmjax.data.shards import Shard, Source
from mmjax.data.sources import open_source
from mmjax.data.tokenizer import Tokenizer, load_tokenizer
from mmjax.models.weights import Weights
from mmjax.scan.blocks import EmbeddingBlock
from mmjax.scan.config import EncodeConfig
from mmjax.scan.encode import encode_shard, make_encoder
from mmjax.scan.store import is_stored, pair_table, read_block, read_pairs, write_shard

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


def open_inputs(
    locations: Sequence[str], *, input_format: str, split: str, max_member_bytes: int
) -> Source | Path:
    """The source of pairs at `locations`, or the folder when it holds embeddings.

    Raises:
        InputError: nothing is there, or it is not what it should be.
    """
    if len(locations) == 1 and input_format in ("auto", "embeddings"):
        folder = Path(locations[0])
        if input_format == "embeddings" or is_embeddings(folder):
            return folder
    return open_source(
        locations[0] if len(locations) == 1 else list(locations),
        input_format=input_format,
        split=split,
        max_member_bytes=max_member_bytes,
    )


def find_tokenizer(weights: Weights | None, tokenizer: str) -> Tokenizer:
    """The named tokenizer, or the one beside the weights, checked against the model.

    Raises:
        TokenizerError: there is none, or its vocabulary does not fit the model.
    """
    path = tokenizer or (weights.tokenizer_path if weights else None)
    if not path:
        raise TokenizerError(
            "no tokenizer beside the weights; name CLIP's tokenizer.json, its folder with "
            "vocab.json and merges.txt, or bpe_simple_vocab_16e6.txt.gz with --tokenizer"
        )
    if weights is None:
        return load_tokenizer(path)
    return load_tokenizer(
        path,
        context_length=weights.preset.text.context_length,
        expected_vocab=weights.preset.text.vocab_size,
    )


def encode_source(
    run: RunDir,
    source: Source,
    weights: Weights,
    tokenizer: str,
    config: EncodeConfig,
    *,
    what: str,
    prefix: str,
    mesh: Mesh,
) -> ScannedSet:
    """Encode the shards of a source that are not stored yet, and open all of them.

    Args:
        run: where embeddings go.
        source: the pairs.
        weights: the towers.
        tokenizer: path of the tokenizer, empty for the one beside the weights.
        config: batch sizes, precision, decoder.
        what: label of the progress shown.
        prefix: folder inside the run (with its slash), for sets other than the scanned one.
        mesh: the devices.

    Raises:
        InputError: a shard cannot be read, or there is not one row.
    """
    left: list[tuple[Shard, str]] = []
    for shard in source.shards:
        fingerprint = source.fingerprint(shard)
        if not is_stored(run, shard.name, fingerprint, prefix):
            left.append((shard, fingerprint))
    if len(left) < len(source.shards):
        run.log("resume", stored=len(source.shards) - len(left), left=len(left))
    if left:
        encoder = make_encoder(weights, find_tokenizer(weights, tokenizer), config, mesh=mesh)
        sizes = [source.sizes.get(shard.name) for shard, _ in left]
        known = [size for size in sizes if size is not None]
        shown = meter(sum(known) if len(known) == len(left) else None, what, unit="pair")
        try:
            for shard, fingerprint in left:
                encoded = encode_shard(encoder, source.open_shard(shard), shown)
                write_shard(run, shard.name, encoded, fingerprint=fingerprint, prefix=prefix)
                run.log("shard", name=prefix + shard.name, rows=len(encoded.records))
        finally:
            shown.close()
    stored = stored_shards(run, [shard.name for shard in source.shards], prefix)
    if not any(len(shard.block.valid) for shard in stored):
        raise InputError(f"{source.location} holds no pairs; name shards with images and captions")
    return ScannedSet(stored, source)


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


def read_embeddings(run: RunDir, folder: Path, *, prefix: str) -> ScannedSet:
    """A folder of embeddings in clip-retrieval's layout, as a set that can be scored.

    Unit-norm arrays are used where they lie; others are normalised into the run folder.
    """
    source = open_embeddings(folder)
    shards = []
    for shard in source.shards:
        part = source.open_shard(shard)
        target = run.path / prefix / "embeddings"
        block = EmbeddingBlock(
            _unit_norm(part.image, part.valid, target / f"{shard.name}.image.npy"),
            _unit_norm(part.text, part.valid, target / f"{shard.name}.text.npy"),
            part.valid,
        )
        shards.append(ScannedShard(shard.name, block, lambda part=part: _pairs_of(part), ()))
    return ScannedSet(tuple(shards), None)


def _pairs_of(part: EmbeddingShard) -> pa.Table:
    captions = [caption or "" for caption in part.captions]
    rows = zip(part.keys, captions, part.statuses, part.messages, part.flags, strict=True)
    return pair_table([Record(*row, image_sha256="", image_slot=-1) for row in rows])


def _unit_norm(
    rows: Float[np.ndarray, "n d"], valid: np.ndarray, target: Path
) -> Float[np.ndarray, "n d"]:
    """`rows` itself when the valid ones are unit-norm, else a normalised float16 copy on disk."""
    worst = 0.0
    for start in range(0, len(rows), _NORM_ROWS):
        part = np.asarray(rows[start : start + _NORM_ROWS], np.float32)
        norms = np.linalg.norm(part, axis=1)[valid[start : start + _NORM_ROWS]]
        worst = max(worst, float(np.abs(norms - 1).max(initial=0)))
    if worst <= NORM_TOLERANCE:
        return rows
    with atomic_path(target) as temporary:
        copy = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.float16, shape=rows.shape)
        for start in range(0, len(rows), _NORM_ROWS):
            part = np.asarray(rows[start : start + _NORM_ROWS], np.float32)
            here = valid[start : start + _NORM_ROWS]
            part[~here] = 0
            part[here] /= np.linalg.norm(part[here], axis=1, keepdims=True)
            copy[start : start + len(part)] = part
        copy.flush()
        del copy
    return np.load(target, mmap_mode="r", allow_pickle=False)
