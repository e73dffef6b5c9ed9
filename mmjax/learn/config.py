"""Options of the model and of the optimizer. Imports no JAX, so that `--help` stays fast."""

import dataclasses
from typing import Literal

from mmjax.core.config import option


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """AdamW with a warm-up; biases, norms and the logit scale are never decayed."""

    learning_rate: float = option(1e-3, "peak learning rate", low=0.0)
    warmup: float = option(
        0.05, "linear warm-up: steps if at least 1, else a fraction of the run", low=0.0
    )
    schedule: Literal["cosine", "constant"] = option(
        "cosine", "after the warm-up: cosine to zero at the last step, or constant"
    )
    weight_decay: float = option(0.1, "decoupled decay of arrays with two or more axes", low=0.0)
    b1: float = option(0.9, "decay of the first moment", low=0.0, high=1.0)
    b2: float = option(0.98, "decay of the second moment", low=0.0, high=1.0)
    eps: float = option(1e-6, "added to the root of the second moment", low=0.0)
    clip_norm: float = option(0.0, "gradients are scaled to at most this norm; 0 = off", low=0.0)


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Which CLIP model."""

    preset: str = option("demo", "shape of the model (models.presets)")
    weights: str = option("", "fine-tune these (KIND:FOLDER or demo): their shape, their tokenizer")
    tokenizer: str = option("", "tokenizer folder or file; empty = a BPE of the training captions")
    vocab_size: int = option(1_024, "size of the BPE that is trained", low=514)
    context_length: int = option(0, "tokens of a caption at most; 0 = the preset's", low=0)
    compute: Literal["float32", "bfloat16"] = option("bfloat16", "arithmetic of the products")
    remat: bool = option(False, "compute activations again in the backward pass to save memory")
