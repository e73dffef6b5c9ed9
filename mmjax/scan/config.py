"""The configuration of a scan. Imports no JAX, so that `--help` stays fast."""

import dataclasses
from typing import Literal

from mmjax.core.config import MeshConfig, option
from mmjax.core.errors import ConfigError
from mmjax.scan.options import MappingConfig, StageConfig


@dataclasses.dataclass(frozen=True)
class EncodeConfig:
    """How pairs become embeddings."""

    batch_size: int = option(64, "images a step, over all devices", low=1)
    text_batch_size: int = option(256, "captions a step, over all devices", low=1)
    workers: int = option(0, "threads that read and decode; 0 = one per core", low=0)
    precision: Literal["auto", "float32", "bfloat16"] = option(
        "auto", "compute type of the towers; auto = bfloat16 where the machine multiplies it fast"
    )
    decoder: Literal["auto", "pillow", "simplejpeg"] = option("auto", "JPEG decoder")
    max_image_pixels: int = option(25_000_000, "larger images are skipped", low=1)
    max_member_bytes: int = option(64 << 20, "larger tar members are skipped", low=1)


@dataclasses.dataclass(frozen=True)
class ScanConfig:
    """Everything that decides what a scan says."""

    inputs: tuple[str, ...] = option((), "what to scan: shards, tables, folders or embeddings")
    input_format: str = option("auto", "kind of source; auto = by looking")
    split: str = option("", "which split, for sources that have splits")
    columns: str = option("", "image and caption column of a table: IMAGE,CAPTION; empty = usual")
    weights: str = option("", "hf-dir:, open_clip-dir:, mmjax-dir:, orbax: folder, or demo")
    tokenizer: str = option("", "tokenizer folder or file; empty = the one beside the weights")
    mapping: str = option("", "folder made by fit-mapping; empty = fit on the reference")
    reference: tuple[str, ...] = option((), "clean captioned pairs, disjoint from the inputs")
    reference_format: str = option("auto", "kind of the reference source")
    reference_split: str = option("", "which split of it")
    reference_columns: str = option("", "its IMAGE,CAPTION columns; empty = the usual names")
    encode: EncodeConfig = option(EncodeConfig(), "")
    fit: MappingConfig = option(MappingConfig(), "")
    stages: StageConfig = option(StageConfig(), "")
    mesh: MeshConfig = option(MeshConfig(), "")
    seed: int = option(0, "of the fit", low=0)
    write_clean: bool = option(False, "write shards of the kept pairs to OUT/clean")
    accept_partial: bool = option(False, "a shard that ends too early does not degrade the run")
    max_bad_fraction: float = option(0.01, "more skipped rows than this end with exit 3", low=0.0)

    def validate(self) -> None:
        """Raise ConfigError for combinations that cannot work."""
        if not self.inputs:
            raise ConfigError("nothing to scan; name shards, a folder or a table")
        if self.mapping and self.reference:
            raise ConfigError("give --mapping or --reference, not both")


@dataclasses.dataclass(frozen=True)
class FitConfig:
    """Everything that decides what `fit-mapping` writes."""

    inputs: tuple[str, ...] = option((), "clean captioned pairs")
    input_format: str = option("auto", "kind of source; auto = by looking")
    split: str = option("", "which split, for sources that have splits")
    columns: str = option("", "image and caption column of a table: IMAGE,CAPTION; empty = usual")
    weights: str = option("", "hf-dir:, open_clip-dir:, mmjax-dir:, orbax: folder, or demo")
    tokenizer: str = option("", "tokenizer folder or file; empty = the one beside the weights")
    encode: EncodeConfig = option(EncodeConfig(), "")
    fit: MappingConfig = option(MappingConfig(), "")
    mesh: MeshConfig = option(MeshConfig(), "")
    seed: int = option(0, "of the fit", low=0)

    def validate(self) -> None:
        """Raise ConfigError for combinations that cannot work."""
        if not self.inputs:
            raise ConfigError("nothing to fit on; name a set of clean captioned pairs")
