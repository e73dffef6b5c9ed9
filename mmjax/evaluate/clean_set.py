"""A clean set that is embedded once; of a poisoned version only what changed is embedded.

The clean set is scanned like any other, which leaves its embeddings and a fitted F in a run folder.
A poisoned version is these embeddings with the victims' rows replaced. That equals a scan of the
shards that `mmjax attack` writes, where clean images go through the same storage (a test says so).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float16, Int64

from mmjax.attacks.changes import poisoned_pairs
from mmjax.attacks.config import AttackConfig
from mmjax.core.config import digest
from mmjax.core.errors import InputError
from mmjax.core.mesh import make_mesh
from mmjax.core.rundir import atomic_path
from mmjax.core.types import Pair
from mmjax.data.records import Row
from mmjax.data.shards import RowView, Source
from mmjax.scan.blocks import EmbeddingBlock
from mmjax.scan.config import ScanConfig
from mmjax.scan.encode import Encoder, encode_shard, make_encoder
from mmjax.scan.pipeline import FinishedScan, open_scan, run_scan
from mmjax.scan.prepare import load_model


class CleanSet(NamedTuple):
    """A clean set with its embeddings and its F, and what embeds changed pairs.

    `offsets` are the first rows of its shards; `kept` is the folder of optimised triggers and of
    what attacks have changed.
    """

    scan: FinishedScan
    source: Source
    captions: tuple[str, ...]
    offsets: tuple[int, ...]
    encoder: Encoder
    kept: Path

    @property
    def inputs(self) -> tuple[str, ...]:
        """Where the pairs are."""
        return self.scan.config.inputs


class Planted(NamedTuple):
    """A set with what was planted in it.

    `attack` is the label of the attack that poisoned a pair, empty for the others.
    """

    blocks: list[EmbeddingBlock]
    captions: list[str]
    attack: list[str]

    @property
    def poisoned(self) -> Bool[np.ndarray, " n"]:
        """Which pairs are poisoned."""
        return np.array([bool(name) for name in self.attack], bool)


def open_clean_set(config: ScanConfig, out: Path, kept: Path) -> CleanSet:
    """Scan a clean set, or open the scan that is in `out`.

    Raises:
        InputError: embeddings, which no trigger can be put on.
        WeightsError, ConfigError, RunError: as `run_scan`.
    """
    run_scan(config, out)
    scan = open_scan(out)
    source = scan.scanned.source
    if source is None:
        raise InputError(f"{config.inputs[0]} holds embeddings; attacks want images")
    model = load_model(config.weights, config.tokenizer, source)
    if model.weights is None or model.tokenizer is None:
        raise InputError(f"{config.inputs[0]} was embedded without weights")
    captions = [c or "" for s in scan.scanned.shards for c in s.pairs()["caption"].to_pylist()]
    sizes = [len(block.valid) for block in scan.scanned.blocks]
    return CleanSet(
        scan,
        source,
        tuple(captions),
        tuple(int(first) for first in np.cumsum([0, *sizes[:-1]])),
        make_encoder(model.weights, model.tokenizer, config.encode, mesh=make_mesh(config.mesh)),
        kept,
    )


def plant(clean: CleanSet, attack: AttackConfig | None) -> Planted:
    """The clean set with an attack's victims in the place of their clean pairs.

    Raises:
        ConfigError: the set does not offer what the attack wants.
    """
    captions, labels = list(clean.captions), [""] * len(clean.captions)
    blocks = clean.scan.scanned.blocks
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
    file = clean.kept / "changes" / f"{digest(attack)}.npz"
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


def replace_rows(
    blocks: Sequence[EmbeddingBlock],
    rows: Int64[np.ndarray, " m"],
    *,
    image: Float[np.ndarray, "m d"] | None = None,
    text: Float[np.ndarray, "m d"] | None = None,
) -> list[EmbeddingBlock]:
    """Blocks with other embeddings in some rows; those without such rows are not copied."""
    made, first = [], 0
    for block in blocks:
        inside = np.flatnonzero((rows >= first) & (rows < first + len(block.valid)))
        here = rows[inside] - first
        sides = []
        for stored, new in ((block.image, image), (block.text, text)):
            if new is not None and inside.size:
                stored = np.array(stored)
                stored[here] = new[inside]
            sides.append(stored)
        made.append(EmbeddingBlock(sides[0], sides[1], block.valid))
        first += len(block.valid)
    return made
