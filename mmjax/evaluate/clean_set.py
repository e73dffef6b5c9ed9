"""A clean set that is embedded once; of a poisoned version only what changed is embedded.

A poisoned version is the clean set's embeddings with the victims' rows replaced. That equals a
scan of the shards that `mmjax attack` writes, where clean images go through the same storage (a
test says so).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float16

from mmjax.attacks.changes import poisoned_pairs
from mmjax.attacks.config import AttackConfig
from mmjax.attacks.shards import encode_png
from mmjax.core import keys
from mmjax.core.code import code_hash
from mmjax.core.config import digest
from mmjax.core.errors import InputError
from mmjax.core.files import atomic_path
from mmjax.core.mesh import make_mesh
from mmjax.core.rundir import RunDir
from mmjax.core.types import Pair
from mmjax.data.records import Row
from mmjax.data.shards import RowView, Source
from mmjax.evaluate.cells import SCORING
from mmjax.evaluate.planted import Planted, replace_rows
from mmjax.scan.blocks import EmbeddingBlock
from mmjax.scan.config import ScanConfig
from mmjax.scan.detectors import EncodedSet
from mmjax.scan.encode import Encoder, encode_shard, make_encoder
from mmjax.scan.inputs import embed
from mmjax.scan.mapping import Mapping, fit_mapping, load_mapping, save_mapping
from mmjax.scan.prepare import Prepared, prepare_scan
from mmjax.scan.reference import make_reference


class CleanSet(NamedTuple):
    """A clean set with its embeddings and F, and what embeds changed pairs.

    `offsets` are the first rows of its shards; `kept` is the folder of optimised triggers and of
    what attacks have changed.
    """

    config: ScanConfig
    source: Source
    blocks: list[EmbeddingBlock]
    captions: tuple[str, ...]
    offsets: tuple[int, ...]
    mapping: Mapping
    encoder: Encoder
    kept: Path

    def encoded(self, made: Planted, seed: int) -> EncodedSet:
        """What the detectors see of this set with something planted in it."""
        return EncodedSet(
            made.blocks,
            made.captions,
            self.mapping,
            self.config.stages,
            seed=seed,
            mesh=self.encoder.mesh,
        )


def open_clean_set(config: ScanConfig, out: Path) -> CleanSet:
    """Embed a clean set and the reference, and fit F; what is in `out` is not done again.

    F is fitted anew when the code of the scan has changed.

    Raises:
        InputError: embeddings, which no trigger can be put on.
        WeightsError, ConfigError, RunError: as `run_scan`.
    """
    mesh, given = make_mesh(config.mesh), prepare_scan(config)
    weights, tokenizer = given.model.weights, given.model.tokenizer
    if not isinstance(given.opened, Source) or weights is None or tokenizer is None:
        raise InputError(f"{config.inputs[0]} holds embeddings; attacks want images")
    with RunDir.open(out, verb="clean-set", config=config, facts=given.facts) as run:
        scanned = embed(
            run, given.opened, given.model, config.encode, what="encoding", prefix="", mesh=mesh
        )
        mapping = _mapping(run, given, config, mesh=mesh)
    sizes = [len(block.valid) for block in scanned.blocks]
    return CleanSet(
        config,
        given.opened,
        scanned.blocks,
        tuple(c or "" for s in scanned.shards for c in s.pairs()["caption"].to_pylist()),
        tuple(int(first) for first in np.cumsum([0, *sizes[:-1]])),
        mapping,
        make_encoder(weights, tokenizer, config.encode, mesh=mesh),
        out / "kept",
    )


def _mapping(run: RunDir, given: Prepared, config: ScanConfig, *, mesh: Mesh) -> Mapping:
    """The named F, or one fitted on the reference by this code."""
    if given.mapping is not None or given.reference is None:
        return load_mapping(config.mapping)
    folder = run.path / "mappings" / code_hash(SCORING)[:12]
    if not (folder / "mapping.json").exists():
        reference = embed(
            run,
            given.reference,
            given.model,
            config.encode,
            what="reference",
            prefix="reference/",
            mesh=mesh,
        )
        tokenizer = given.model.tokenizer if config.fit.kind == "lm" else None
        fitted = fit_mapping(
            make_reference(reference, tokenizer),
            config.fit,
            weights_fingerprint=given.model.fingerprint,
            key=keys.stream(jax.random.key(config.seed), "mapping"),
            mesh=mesh,
        )
        save_mapping(folder, fitted)
    return load_mapping(folder)


def plant(clean: CleanSet, attack: AttackConfig | None) -> Planted:
    """The clean set with an attack's victims in the place of their clean pairs.

    Raises:
        ConfigError: the set does not offer what the attack wants.
    """
    captions, labels = list(clean.captions), [""] * len(clean.captions)
    blocks = clean.blocks
    if attack is None:
        return Planted(blocks, captions, labels)
    made = _changes(clean, attack)
    for row, caption, part in zip(made["rows"], made["captions"], made["parts"], strict=True):
        captions[row] = str(caption)
        labels[row] = attack.parts[part].label
    blocks = replace_rows(blocks, made["rows"], image=made["image"], text=made["text"])
    return Planted(blocks, captions, labels)


def _changes(clean: CleanSet, attack: AttackConfig) -> dict[str, np.ndarray]:
    """The rows that an attack changes and their embeddings, from its file if there is one."""
    file = clean.kept / "changes" / code_hash(SCORING)[:12] / f"{digest(attack)}.npz"
    if not file.exists():
        changes = poisoned_pairs(clean.source, attack, clean.kept / "triggers")
        image, text = embed_pairs(clean.encoder, [change.pair for change in changes])
        arrays = {
            "rows": [clean.offsets[c.place.shard] + c.place.ordinal for c in changes],
            "parts": [change.attack for change in changes],
            "captions": np.array([change.pair.caption or "" for change in changes], str),
        }
        with atomic_path(file) as temporary, open(temporary, "wb") as stream:
            np.savez(stream, image=image, text=text, **arrays)
    with np.load(file, allow_pickle=False) as loaded:
        made = dict(loaded)
    return made | {name: made[name].astype(np.int64) for name in ("rows", "parts")}


def embed_captions(encoder: Encoder, captions: Sequence[str]) -> Float16[np.ndarray, "m d"]:
    """Embeddings of captions alone."""
    size = encoder.image_size
    blank = encode_png(np.zeros((size, size, 3), np.uint8))  # the same for all: embedded once
    return embed_pairs(encoder, [Pair(str(i), blank, c) for i, c in enumerate(captions)])[1]


def embed_pairs(
    encoder: Encoder, pairs: Sequence[Pair]
) -> tuple[Float16[np.ndarray, "m d"], Float16[np.ndarray, "m d"]]:
    """(image, text) embeddings of pairs, as a scan of shards that hold them would store them.

    Raises:
        InputError: one of them cannot be embedded.
    """
    rows = [Row(pair.key, pair.caption, pair.image) for pair in pairs]
    limit = encoder.config.max_member_bytes
    encoded = encode_shard(encoder, RowView(len(rows), rows.__getitem__, limit))
    bad = next((record for record in encoded.records if record.status != "ok"), None)
    if bad is not None:
        raise InputError(f"a poisoned pair cannot be embedded: {bad.status} {bad.message}")
    return encoded.image, encoded.text
