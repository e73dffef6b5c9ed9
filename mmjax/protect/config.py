"""The configuration of a protection. Imports no JAX, so that `--help` stays fast."""

import dataclasses
from typing import Literal

from mmjax.core.config import MeshConfig, option
from mmjax.core.errors import ConfigError
from mmjax.learn.config import ModelConfig, OptimizerConfig

STRENGTHS = {"low": 4, "default": 8, "high": 16}
"""The largest change of a pixel by the name of a strength, in grey levels of 255."""


@dataclasses.dataclass(frozen=True)
class NoiseConfig:
    """Noise on images: whole grey levels, by signed steps along the surrogate's gradient."""

    scope: Literal["image", "pair", "user"] = option(
        "image",
        "what has a noise of its own: an image (its captions share it), a pair (the reference), "
        "or a user (the folder in the pairs' keys)",
    )
    start: Literal["zeros", "random"] = option("zeros", "before the first step")
    steps: int = option(8, "signed steps a round; 0 = no noise", low=0)
    step_size: int = option(1, "of a step, in grey levels", low=1, high=127)
    goal: Literal["minimise", "maximise"] = option(
        "minimise", "the surrogate's loss: minimise = nothing is left to learn; maximise = UAP"
    )
    shuffle: bool = option(
        True, "each step pairs images with other captions of the batch, under their own triggers"
    )


@dataclasses.dataclass(frozen=True)
class TriggerConfig:
    """Words that are put in front of captions."""

    length: int = option(3, "tokens of a trigger; 0 = captions stay as they are", low=0, high=16)
    scope: Literal["pair", "user", "universal"] = option(
        "pair", "what has a trigger of its own: a pair, a user (as noise.scope), or all have one"
    )
    start: Literal["random", "the"] = option(
        "random", "before the search: tokens that may be chosen, or `the` throughout"
    )
    vocabulary: Literal["safe", "all", "natural"] = option(
        "safe",
        "safe = whole words that survive being written and read again; all = every token but the "
        "special ones (the reference); natural = safe words of the captions, where captions have "
        "them (shards, triggers of pairs)",
    )
    words: int = option(1_024, "natural: the captions' most frequent words", low=2)
    fitting: int = option(
        64,
        "natural: words that fit best between their neighbours; candidates are among them",
        low=1,
    )
    rounds: int = option(5, "the first rounds search, later ones keep what was found", low=0)
    candidates: int = option(16, "tokens that are tried in each place", low=1)
    selection: Literal["joint", "per_sample"] = option(
        "per_sample",
        "joint = the m-th candidates of all captions win together (the reference); per_sample = "
        "each caption has its own best",
    )
    beam: int = option(1, "sets of triggers that are kept from place to place", low=1)
    dropout: float = option(
        0.0,
        "share of captions that training and noise see without their trigger, so that the noise "
        "does not rely on it",
        low=0.0,
        high=1.0,
    )


@dataclasses.dataclass(frozen=True)
class ViewConfig:
    """What happens to pictures on the web; each step of the noise draws one that is on."""

    crop: float = option(
        1.0, "smallest share of the area that a random crop keeps; 1 = none", low=0.1, high=1.0
    )
    jpeg: int = option(0, "lowest quality of a random JPEG (up to 95); 0 = none", low=0, high=95)
    grey: bool = option(False, "grey-scale")


@dataclasses.dataclass(frozen=True)
class SurrogateConfig:
    """The model that the protection is computed against, trained on what is protected."""

    model: ModelConfig = option(ModelConfig())
    optimizer: OptimizerConfig = option(
        OptimizerConfig(
            learning_rate=1e-4,
            warmup=0.0,
            schedule="constant",
            weight_decay=0.2,
            b2=0.999,
            eps=1e-8,
        )
    )
    steps: int = option(200, "training steps a round", low=0)
    on: Literal["protected", "clean"] = option(
        "protected", "what it is trained on: the protected pairs so far, or the clean ones (UAP)"
    )


@dataclasses.dataclass(frozen=True)
class PhotoConfig:
    """How an owner's photos are protected, one by one, against a model that stays as it is."""

    format: Literal["same", "png", "jpeg"] = option(
        "same", "same = JPEG stays JPEG, all else becomes PNG; PNG keeps the noise exactly"
    )
    quality: int = option(95, "of JPEG files", low=1, high=100)
    steps: int = option(40, "signed steps a photo", low=1)
    canvas: int = option(
        2, "the noise is optimised at so many times the model's size, then enlarged", low=1, high=16
    )
    views: int = option(4, "crops, JPEGs and grey-scales of the photo that a step looks at", low=1)
    negatives: int = option(64, "generated scenes that a photo is told apart from", low=2)
    sheet: bool = option(True, "write sheet.html: each photo before and after, with figures")


@dataclasses.dataclass(frozen=True)
class ProtectConfig:
    """Everything that decides what a protected set holds."""

    inputs: tuple[str, ...] = option((), "a folder of photos; or a set of image-caption pairs")
    output: Literal["photos", "shards"] = option(
        "photos",
        "photos = every photo at its own size, under its own name; shards = WebDataset shards of "
        "PNGs at the model's size, for research",
    )
    input_format: str = option("auto", "shards: kind of source; auto = by looking")
    split: str = option("", "shards: which split, for sources that have splits")
    columns: str = option("", "shards: image and caption column of a table: IMAGE,CAPTION")
    captions: str = option("", "photos: file of captions; empty = captions.csv or .tsv beside them")
    strength: Literal["low", "default", "high"] = option(
        "default", "largest change of a pixel: 4, 8 or 16 grey levels of 255"
    )
    image_only: bool = option(False, "captions stay as they are")
    rounds: int = option(20, "shards: of training, then search, then noise", low=0)
    batch_size: int = option(128, "shards: pairs of a batch, over all devices", low=2)
    stop_loss: float = option(
        0.0, "shards: a round whose mean loss is lower is the last; 0 = off", low=0.0
    )
    noise: NoiseConfig = option(NoiseConfig())
    trigger: TriggerConfig = option(TriggerConfig())
    views: ViewConfig = option(ViewConfig(crop=0.5, jpeg=50, grey=True))
    surrogate: SurrogateConfig = option(SurrogateConfig())
    photos: PhotoConfig = option(PhotoConfig())
    shard_size: int = option(10_000, "shards: pairs a shard", low=1)
    mesh: MeshConfig = option(MeshConfig())
    workers: int = option(2, "threads that decode", low=1)
    max_image_pixels: int = option(100_000_000, "larger images are not read", low=1)
    seed: int = option(0, "of everything that is drawn", low=0)

    @property
    def epsilon(self) -> int:
        """The largest change of a pixel, in grey levels."""
        return STRENGTHS[self.strength]

    @property
    def trigger_length(self) -> int:
        """Tokens of a trigger; 0 where captions stay."""
        return 0 if self.image_only else self.trigger.length

    def validate(self) -> None:
        """Raise ConfigError for combinations that cannot work."""
        if not self.inputs:
            raise ConfigError("nothing to protect; name a folder of photos")
        if self.noise.step_size > self.epsilon:
            raise ConfigError(
                f"config.noise.step_size={self.noise.step_size} leaves the budget of "
                f"{self.epsilon} in one step; lower it"
            )
        if self.output == "photos":
            if len(self.inputs) != 1:
                raise ConfigError(f"one folder of photos at a time, got {len(self.inputs)}")
            if self.trigger.vocabulary == "natural":
                raise ConfigError(
                    "trigger.vocabulary=natural learns from many captions: it is of output=shards"
                )
            if dataclasses.replace(self.noise, step_size=1) != NoiseConfig():
                raise ConfigError(
                    "config.noise is of output=shards but for its step_size; photos have "
                    "config.photos.steps"
                )
            return
        if self.captions:
            raise ConfigError("config.captions is of photos; shards and tables have their own")
        searched = self.trigger_length and self.rounds and self.trigger.rounds
        natural = self.trigger_length and self.trigger.vocabulary == "natural"
        if natural and (self.trigger.scope != "pair" or self.trigger.beam > 1):
            raise ConfigError(
                "trigger.vocabulary=natural fits words to each caption, one after the other; set "
                "trigger.scope=pair and trigger.beam=1"
            )
        if searched and self.trigger.selection == "per_sample" and self.trigger.scope != "pair":
            raise ConfigError(
                f"trigger.selection=per_sample is of triggers of pairs, not of trigger.scope="
                f"{self.trigger.scope}; set trigger.selection=joint"
            )
