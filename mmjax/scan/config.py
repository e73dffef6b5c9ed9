"""The configuration of a scan. Imports no JAX, so that `--help` stays fast."""

import dataclasses
from typing import Literal

from mmjax.core.config import MeshConfig, option
from mmjax.core.errors import ConfigError


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
class MappingConfig:
    """How the mapping network F (image embedding to caption embedding) is fitted."""

    kind: Literal["lm", "regression", "ridge"] = option(
        "lm", "lm = through a frozen captioner (paper); regression = MLP; ridge = closed form"
    )
    width: int = option(2048, "hidden width of the residual MLP", low=8)
    steps: int = option(2000, "training steps of the MLP", low=1)
    batch_size: int = option(1024, "pairs a training step", low=2)
    learning_rate: float = option(1e-4, "peak learning rate", low=0.0)
    held_out: float = option(
        0.1, "share of the reference kept for its diagnostics", low=0.0, high=0.5
    )
    captioner_width: int = option(512, "lm: width of the captioner", low=16)
    captioner_layers: int = option(4, "lm: its layers", low=1)
    captioner_steps: int = option(2000, "lm: its training steps (phase A)", low=1)
    captioner_tokens: int = option(40, "lm: longest caption it reads", low=4)
    noise_variance: float = option(0.016, "lm: noise on the text embeddings it reads", low=0.0)
    cosine_weight: float = option(1.0, "lm: weight of 1 - cosine to the caption", low=0.0)
    contrastive_weight: float = option(1.0, "lm: weight of InfoNCE to the captions", low=0.0)


@dataclasses.dataclass(frozen=True)
class StageConfig:
    """The coarse and the fine stage."""

    components: int = option(5, "Gaussians in the mixture over c (the paper's K)", low=1, high=64)
    gamma: float = option(
        0.9, "share of the lowest Gaussian that is taken as benign", low=0.0, high=1.0
    )
    select: Literal["coverage", "posterior"] = option(
        "coverage", "how gamma is read: as a quantile of that Gaussian, or as its posterior"
    )
    seeds: int = option(
        0, "pairs with the highest c taken as seeds (q); 0 = max(50, 1e-4 N)", low=0
    )
    gamma_z: float | Literal["auto"] = option(
        "auto", "pairs with a higher z are poisoned; auto = rule R1 with its null test"
    )
    fine_scope: Literal["all", "suspicious"] = option(
        "all", "which pairs the fine stage screens; suspicious = the paper's text"
    )


@dataclasses.dataclass(frozen=True)
class ScanConfig:
    """Everything that decides what a scan says."""

    inputs: tuple[str, ...] = option((), "what to scan: shards, tables, folders or embeddings")
    input_format: str = option("auto", "kind of source; auto = by looking")
    split: str = option("", "which split, for sources that have splits")
    weights: str = option("", "hf-dir:, open_clip-dir:, mmjax-dir:, orbax: folder, or demo")
    tokenizer: str = option("", "tokenizer folder or file; empty = the one beside the weights")
    mapping: str = option("", "folder made by fit-mapping; empty = fit on the reference")
    reference: tuple[str, ...] = option((), "clean captioned pairs, disjoint from the inputs")
    reference_format: str = option("auto", "kind of the reference source")
    reference_split: str = option("", "which split of it")
    encode: EncodeConfig = option(EncodeConfig(), "")
    fit: MappingConfig = option(MappingConfig(), "")
    stages: StageConfig = option(StageConfig(), "")
    mesh: MeshConfig = option(MeshConfig(), "")
    seed: int = option(0, "of the fit and of the null test", low=0)
    write_clean: bool = option(False, "write shards without the poisoned pairs to OUT/clean")
    accept_partial: bool = option(False, "a shard that ends too early does not degrade the run")
    max_bad_fraction: float = option(0.01, "more skipped rows than this end with exit 3", low=0.0)

    def validate(self) -> None:
        """Raise ConfigError for combinations that cannot work."""
        if not self.inputs:
            raise ConfigError("nothing to scan; name shards, a folder or a table")
        if self.mapping and self.reference:
            raise ConfigError("give mapping or reference, not both")


@dataclasses.dataclass(frozen=True)
class FitConfig:
    """Everything that decides what `fit-mapping` writes."""

    inputs: tuple[str, ...] = option((), "clean captioned pairs")
    input_format: str = option("auto", "kind of source; auto = by looking")
    split: str = option("", "which split, for sources that have splits")
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
