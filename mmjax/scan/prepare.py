"""What a scan needs, opened and checked before a folder is claimed or anything is computed."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from mmjax.core.config import split_names
from mmjax.core.errors import ConfigError, InputError, WeightsError
from mmjax.core.files import file_sha256
from mmjax.data.embeddings import EmbeddingSource, is_embeddings, open_embeddings
from mmjax.data.shards import Source
from mmjax.data.sources import open_source
from mmjax.data.tokenizer import Tokenizer, load_tokenizer
from mmjax.learn.pretrained import load_pretrained
from mmjax.models.weights import Weights
from mmjax.scan.config import FitConfig, ScanConfig
from mmjax.scan.mapping import NUMBERS, Mapping, load_mapping
from mmjax.scan.options import MappingConfig

Opened = Source | EmbeddingSource
"""Images with captions that are still to be encoded, or their embeddings."""

EMBEDDINGS = "embeddings"
"""Stands for the fingerprint of weights that nobody named: those of embeddings brought along."""


_LABELS_WANTED = "--truth wants the poison_labels.parquet that `mmjax attack` writes"


class Model(NamedTuple):
    """The weights that encode and their tokenizer; without weights, embeddings are brought along.

    `tokenizer` is None where nothing needs one.
    """

    weights: Weights | None
    tokenizer: Tokenizer | None

    @property
    def fingerprint(self) -> str:
        """Of the weights, `EMBEDDINGS` when there are none."""
        return self.weights.fingerprint if self.weights else EMBEDDINGS


class Prepared(NamedTuple):
    """The inputs of a scan. Exactly one of `mapping` and `reference` is there."""

    opened: Opened
    model: Model
    mapping: Mapping | None
    reference: Opened | None
    facts: dict[str, str]


def prepare_scan(config: ScanConfig) -> Prepared:
    """Open and check everything that a scan reads.

    Raises:
        ConfigError, InputError, TokenizerError, WeightsError: the user must act.
    """
    if not config.mapping and not config.reference:
        raise ConfigError(
            "the scan needs a mapping network: name a folder made by `mmjax fit-mapping` with "
            "--mapping, or a clean captioned set to fit one on with --reference"
        )
    opened = open_config(config)
    if config.write_clean and isinstance(opened, EmbeddingSource):
        raise ConfigError(
            "--write_clean copies images and captions, but the input holds embeddings; "
            "leave it out and take the pairs of keep.parquet"
        )
    model = load_model(config.weights, config.tokenizer, opened)
    mapping = reference = None
    if config.mapping:
        mapping = load_mapping(config.mapping)
        _check_mapping(config.mapping, mapping, model, opened)
    else:
        reference = _open_reference(config)
        _check_reference(reference, opened)
        check_fit(config.fit, model)
        _refuse_shared(config)
    facts = _facts(model)
    facts["mapping"] = mapping_fingerprint(config.mapping) if config.mapping else ""
    return Prepared(opened, model, mapping, reference, facts)


def prepare_fit(config: FitConfig) -> Prepared:
    """Open and check everything that fitting a mapping network reads, as its `opened`.

    Raises:
        ConfigError, InputError, TokenizerError, WeightsError: the user must act.
    """
    opened = open_config(config)
    model = load_model(config.weights, config.tokenizer, opened)
    check_fit(config.fit, model)
    return Prepared(opened, model, None, None, _facts(model))


def open_config(config: ScanConfig | FitConfig) -> Opened:
    """What the configuration's `inputs` name.

    Raises:
        InputError: nothing is there, or it is not what it should be.
    """
    return open_inputs(
        config.inputs,
        input_format=config.input_format,
        split=config.split,
        columns=config.columns,
        max_member_bytes=config.encode.max_member_bytes,
    )


def open_inputs(
    locations: Sequence[str],
    *,
    input_format: str,
    split: str,
    columns: str,
    max_member_bytes: int,
) -> Opened:
    """The pairs at `locations`, or the embeddings when it is one folder that holds some.

    Raises:
        InputError: nothing is there, or it is not what it should be.
    """
    if len(locations) == 1 and input_format in ("auto", EMBEDDINGS):
        folder = Path(locations[0])
        if input_format == EMBEDDINGS or is_embeddings(folder):
            if split:
                raise InputError("embeddings have no splits; leave --split out")
            if columns:
                raise InputError("embeddings have no columns; leave --columns out")
            return open_embeddings(folder)
    return open_source(
        locations[0] if len(locations) == 1 else list(locations),
        input_format=input_format,
        split=split,
        columns=columns,
        max_member_bytes=max_member_bytes,
    )


def load_model(spec: str, tokenizer: str, opened: Opened) -> Model:
    """The weights and the tokenizer that fit each other, as far as the input needs them.

    Raises:
        ConfigError: images without weights.
        WeightsError, TokenizerError: they are not there, damaged, or do not fit.
    """
    if isinstance(opened, EmbeddingSource):
        return Model(None, load_tokenizer(tokenizer) if tokenizer else None)
    if not spec:
        raise ConfigError(
            "these are images, and encoding them needs a clean CLIP: --weights=hf-dir:FOLDER, "
            "open_clip-dir:FOLDER or mmjax-dir:FOLDER (embeddings as input need none)"
        )
    return Model(*load_pretrained(spec, tokenizer))


def check_fit(config: MappingConfig, model: Model) -> None:
    """Raise ConfigError when the kind of mapping network needs a tokenizer and there is none."""
    if config.kind == "lm" and model.tokenizer is None:
        raise ConfigError(
            "fit.kind=lm reads captions and needs a tokenizer: add --tokenizer=FOLDER, or "
            "choose --config.fit.kind=regression or ridge"
        )


def mapping_fingerprint(folder: Path | str) -> str:
    """A hash of a mapping's numbers, those of its calibration included."""
    files = (Path(folder) / name for name in NUMBERS)
    hashes = [file_sha256(file) for file in files if file.is_file()]
    return hashlib.sha256("".join(hashes).encode()).hexdigest()


def read_labels(path: Path | None) -> pa.Table | None:
    """The table of a `poison_labels.parquet`, None without a path.

    Raises:
        InputError: it cannot be read or is not such a table.
    """
    if path is None:
        return None
    wanted = ("shard", "ordinal", "is_poisoned")
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise InputError(f"{path} is no Parquet file; {_LABELS_WANTED}") from error
    if missing := [name for name in wanted if name not in table.column_names]:
        raise InputError(f"{path} has no column {', '.join(missing)}; {_LABELS_WANTED}")
    return table


def _facts(model: Model) -> dict[str, str]:
    return {
        "weights": model.fingerprint,
        "tokenizer": model.tokenizer.fingerprint if model.tokenizer else "",
    }


def _check_mapping(path: str, mapping: Mapping, model: Model, opened: Opened) -> None:
    """Raises WeightsError unless the mapping was fitted on embeddings of the model that encodes."""
    if mapping.weights_fingerprint != model.fingerprint:
        names = [
            "embeddings" if name == EMBEDDINGS else name[:12]
            for name in (mapping.weights_fingerprint, model.fingerprint)
        ]
        raise WeightsError(
            f"the mapping {path} was fitted on other weights ({names[0]}) than those that scan "
            f"({names[1]}); fit one for these with `mmjax fit-mapping`"
        )
    if isinstance(opened, EmbeddingSource) and mapping.dim != opened.dimension:
        raise WeightsError(
            f"the mapping {path} was fitted on embeddings of width {mapping.dim}, these have "
            f"{opened.dimension}; fit one for these with `mmjax fit-mapping`"
        )


def _open_reference(config: ScanConfig) -> Opened:
    try:
        return open_inputs(
            config.reference,
            input_format=config.reference_format,
            split=config.reference_split,
            columns=config.reference_columns,
            max_member_bytes=config.encode.max_member_bytes,
        )
    except InputError as error:
        raise InputError(
            f"the reference: {error} (its options are --config.reference_format, "
            "--config.reference_split and --config.reference_columns)"
        ) from error


def _refuse_shared(config: ScanConfig) -> None:
    """Raises ConfigError if what is scanned is its own reference, as far as names tell."""
    splits = [split_names(text) for text in (config.split, config.reference_split)]
    if all(splits) and not splits[0] & splits[1]:
        return
    scanned = {Path(location).resolve() for location in config.inputs}
    for location in config.reference:
        if Path(location).resolve() in scanned:
            raise ConfigError(
                f"{location} is scanned and is the reference too; name other clean pairs with "
                "--reference, or another split of it with --split and "
                "--config.reference_split"
            )


def _check_reference(reference: Opened, opened: Opened) -> None:
    """Raises InputError unless the reference is embedded by what embeds the input."""
    if isinstance(reference, EmbeddingSource) != isinstance(opened, EmbeddingSource):
        holds = "embeddings" if isinstance(reference, EmbeddingSource) else "images"
        wanted = "images" if isinstance(reference, EmbeddingSource) else "embeddings"
        raise InputError(
            f"the reference {reference.location} holds {holds}, but what is scanned are {wanted}; "
            f"give the reference as {wanted} too, of the same model"
        )
    if (
        isinstance(reference, EmbeddingSource)
        and isinstance(opened, EmbeddingSource)
        and reference.dimension != opened.dimension
    ):
        raise InputError(
            f"the reference {reference.location} has embeddings of width {reference.dimension}, "
            f"what is scanned of width {opened.dimension}; both must come from one model"
        )
