"""Options of the mapping network and of the stages. Imports no JAX, so that `--help` stays fast."""

import dataclasses
from typing import Literal

from mmjax.core.config import option
from mmjax.core.errors import ConfigError

Kind = Literal["lm", "regression", "ridge"]


@dataclasses.dataclass(frozen=True)
class CaptionerConfig:
    """The captioner that the kind `lm` is read by."""

    width: int = option(512, "width of the decoder; a multiple of heads", low=8)
    layers: int = option(4, "decoder blocks", low=1)
    heads: int = option(8, "attention heads", low=1)
    max_length: int = option(40, "tokens of a caption that are learned from", low=2)
    batch_size: int = option(256, "captions a step", low=1)
    epochs: float = option(10.0, "passes over the captions", low=0.0)
    learning_rate: float = option(5e-4, "peak learning rate", low=0.0)
    noise_variance: float = option(
        0.016, "variance, per dimension, of the noise on text embeddings (CapDec)", low=0.0
    )
    label_smoothing: float = option(0.1, "of the language-modelling loss (BLIP)", low=0.0, high=0.9)


@dataclasses.dataclass(frozen=True)
class MappingConfig:
    """The mapping network and its training."""

    kind: Kind = option("lm", "how F is trained")
    width: int = option(2048, "hidden width of F", low=1)
    batch_size: int = option(
        1024, "images a step, a caption of each is drawn; less when an epoch has under 8", low=1
    )
    epochs: float = option(20.0, "passes over the images", low=0.0)
    learning_rate: float = option(1e-4, "peak learning rate", low=0.0)
    weight_decay: float = option(0.05, "decoupled weight decay", low=0.0)
    warmup: float = option(0.05, "steps of warm-up, or their share if below 1", low=0.0)
    cosine_weight: float = option(1.0, "lambda_a, weight of 1 - cosine", low=0.0)
    contrast_weight: float = option(1.0, "lambda_c, weight of InfoNCE (lm)", low=0.0)
    temperature: float = option(0.07, "of InfoNCE; where it starts for regression", low=1e-3)
    held_out: float = option(0.05, "share of the images kept for diagnostics", low=0.0, high=0.5)
    captioner: CaptionerConfig = option(CaptionerConfig(), "of the kind lm")


@dataclasses.dataclass(frozen=True)
class StageConfig:
    """How pairs are scored and judged."""

    mode: Literal["robust", "paper"] = option(
        "robust", "robust: wrong pairs that keep together; paper: likeness to the seeds"
    )
    components: int = option(5, "K, components of the mixture", low=1, high=50)
    select: Literal["coverage", "posterior"] = option(
        "coverage", "how gamma chooses the benign set: share of the lowest component, or posterior"
    )
    gamma: float = option(0.9, "see select", low=1e-6, high=1 - 1e-6)
    seeds: int = option(0, "q, seeds by consistency; 0 = max(50, 1e-4 N)", low=0)
    fine_scope: Literal["all", "suspicious"] = option(
        "all", "what the fine stage may flag; suspicious leaves the benign set alone"
    )
    gamma_z: float | Literal["auto"] = option(
        "auto", "pairs of a higher text correlation are poisoned (paper mode); auto: rule R1"
    )
    fdr: float = option(
        0.1,
        "expected share of benign pairs among those flagged, at most (robust mode)",
        low=1e-6,
        high=0.9,
    )
    drop: Literal["poisoned", "mismatched"] = option(
        "poisoned", "what leaves the clean set: poisoned pairs, or mismatched ones too"
    )
    seed: int = option(0, "of the random samples behind the null test", low=0)
    chunk_rows: int = option(8192, "most embeddings that are read at a time", low=1)

    def validate(self) -> None:
        """Raises ConfigError for values that do not go together."""
        if self.mode == "robust" and self.gamma_z != "auto":
            raise ConfigError(
                f"gamma_z={self.gamma_z} is a threshold of mode=paper; mode=robust flags by fdr, "
                "the share of benign pairs that you accept among those flagged"
            )
