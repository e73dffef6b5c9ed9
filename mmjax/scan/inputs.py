"""What a scan scores: shards of embeddings with their rows, encoded here or brought along."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
from jax.sharding import Mesh

from mmjax.core.errors import InputError, TokenizerError
from mmjax.core.progress import meter
from mmjax.core.rundir import RunDir
from mmjax.data.embeddings import is_embeddings, open_embeddings
from mmjax.data.records import Shard, Source
from mmjax.data.sources import open_source
from mmjax.data.tokenizer import Tokenizer, load_tokenizer
from mmjax.models.weights import Weights
from mmjax.scan.blocks import EmbeddingBlock
from mmjax.scan.config import EncodeConfig
from mmjax.scan.encode import Encoder, encode_shard, make_encoder
from mmjax.scan.store import is_stored, pair_table, read_block, read_pairs, write_shard


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


def read_embeddings(folder: Path) -> ScannedSet:
    """A folder of embeddings in clip-retrieval's layout, as a set that can be scored."""
    source = open_embeddings(folder)
    shards = []
    for shard in source.shards:
        part = source.open_shard(shard)
        shards.append(
            ScannedShard(
                shard.name,
                EmbeddingBlock(part.image, part.text, part.valid),
                lambda part=part: pair_table(part.records()),
                part.warnings,
            )
        )
    return ScannedSet(tuple(shards), None)


def open_encoder(weights: Weights, tokenizer: str, config: EncodeConfig, *, mesh: Mesh) -> Encoder:
    """The encoder of `weights` with its tokenizer.

    Raises:
        TokenizerError: there is none, or its vocabulary does not fit the model.
    """
    return make_encoder(weights, find_tokenizer(weights, tokenizer), config, mesh=mesh)


def find_tokenizer(weights: Weights, tokenizer: str) -> Tokenizer:
    """The named tokenizer, or the one beside the weights, checked against the model."""
    path = tokenizer or weights.tokenizer_path
    if not path:
        raise TokenizerError(
            f"no tokenizer beside {weights.name}; name CLIP's tokenizer.json, vocab.json folder or "
            "bpe_simple_vocab_16e6.txt.gz with --tokenizer"
        )
    return load_tokenizer(
        path,
        context_length=weights.preset.text.context_length,
        expected_vocab=weights.preset.text.vocab_size,
    )


def encode_source(
    run: RunDir, source: Source, make: Callable[[], Encoder], *, what: str, prefix: str = ""
) -> ScannedSet:
    """Encode the shards of a source that are not stored yet, and open all of them.

    Args:
        run: where embeddings go.
        source: the pairs.
        make: makes the encoder, called only if something is left to encode.
        what: label of the progress shown.
        prefix: folder inside the run (with its slash), for sets other than the scanned one.

    Raises:
        InputError: a shard cannot be read, or there is not one row.
    """
    left: list[tuple[Shard, str]] = []
    for shard in source.shards:
        fingerprint = source.fingerprint(shard)
        if is_stored(run, shard.name, fingerprint, prefix) is None:
            left.append((shard, fingerprint))
    if len(left) < len(source.shards):
        run.log("resume", stored=len(source.shards) - len(left), left=len(left))
    if left:
        encoder = make()
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
    folder = run.path / prefix
    shards = tuple(_stored_shard(run, folder, s.name, prefix) for s in source.shards)
    if not any(len(s.block.valid) for s in shards):
        raise InputError(f"{source.location} holds no pairs; name shards with images and captions")
    return ScannedSet(shards, source)


def _stored_shard(run: RunDir, folder: Path, name: str, prefix: str) -> ScannedShard:
    entry = run.journal(prefix + name)
    return ScannedShard(
        name,
        read_block(folder, name),
        lambda: read_pairs(folder, name),
        tuple(entry["warnings"]),
    )
