"""Options of a training run."""

import dataclasses
from pathlib import Path
from typing import Literal

from mmjax.core.config import MeshConfig, option, split_names
from mmjax.core.errors import ConfigError
from mmjax.learn.config import ModelConfig, OptimizerConfig
from mmjax.train.defence import DefenceConfig

EpochOf = Literal["images", "pairs"]
"""What an epoch shows once: images, whose captions take turns, or pairs."""


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """What is learned from, and what is held out to judge it."""

    location: str = option("scenes", 'an image-caption set, or "scenes" to generate them')
    input_format: str = option("auto", "format of the set; auto = told from its files")
    split: str = option("", "split of the set to learn from; empty = all of it")
    columns: str = option("", "image and caption column of a table: IMAGE,CAPTION; empty = usual")
    heldout: str = option("", "set to judge the model on; empty = `location`")
    heldout_split: str = option("", "split of `heldout`; both empty = nothing is held out")
    heldout_columns: str = option("", "its IMAGE,CAPTION columns; `heldout` empty = `columns`")
    scenes: int = option(8_000, "how many scenes are generated to learn from", low=1)
    heldout_scenes: int = option(500, "how many fresh scenes are held out", low=0)
    scene_captions: int = option(4, "captions of each generated scene", low=1)
    max_image_pixels: int = option(25_000_000, "larger images are skipped", low=1)
    workers: int = option(2, "threads that decode images", low=1)
    memory_gb: float = option(
        16.0, "that decoded images may take; a larger set is decoded anew for every batch", low=0.0
    )

    def validate(self) -> None:
        """Reject a held-out set that shares pairs with the training set, as far as names tell."""
        if self.location == "scenes" or not (self.heldout or self.heldout_split):
            return
        if self.heldout and Path(self.heldout).resolve() != Path(self.location).resolve():
            return
        learned, judged = split_names(self.split), split_names(self.heldout_split)
        if not learned or not judged or learned & judged:
            raise ConfigError(
                f"data.split ({self.split or 'all of it'}) and data.heldout_split "
                f"({self.heldout_split or 'all of it'}) share pairs; name a split to learn from "
                "and others to hold out"
            )


@dataclasses.dataclass(frozen=True)
class AugmentConfig:
    """Random views of the training images, made on the device; the defaults change nothing."""

    crop_area: float = option(1.0, "smallest share of the area that a crop keeps", low=0.05, high=1)
    crop_aspect: float = option(1.0, "crops are up to this much wider or taller", low=1, high=4)
    flip: bool = option(False, "mirror half of the images (wrong where captions say left or right)")
    colour: float = option(
        0.0, "brightness, contrast and saturation change by up to this share", low=0, high=1
    )


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """A training run of CLIP, from scratch or from given weights (`model.weights`)."""

    data: DataConfig = option(DataConfig())
    model: ModelConfig = option(ModelConfig())
    augment: AugmentConfig = option(AugmentConfig())
    optimizer: OptimizerConfig = option(OptimizerConfig())
    defence: DefenceConfig = option(DefenceConfig())
    steps: int = option(1_500, "length of the run", low=1)
    batch_size: int = option(128, "images of a step, over all devices", low=2)
    accumulate: int = option(
        1, "parts that a batch is embedded in, one by one; the loss is over all of it", low=1
    )
    loss_chunk: int = option(1_024, "columns of the loss's logits held at a time", low=1)
    epoch_of: EpochOf = option(
        "images", "what an epoch shows once; captions of one image take turns, or all have theirs"
    )
    captions_per_image: int = option(1, "captions that each image of a step is paired with", low=1)
    mesh: MeshConfig = option(MeshConfig())
    fsdp: bool = option(False, "split parameters and optimizer state over mesh.data too")
    average: float = option(
        0.0, "decay of a moving average of the weights, which is exported; 0 = none", low=0, high=1
    )
    max_skipped: int = option(
        10, "so many steps in a row whose loss or gradients are not finite end the run", low=1
    )
    track: Literal["none", "tensorboard", "wandb"] = option(
        "none", "where metrics go beside metrics.jsonl (pip install mmjax[track])"
    )
    checkpoint_every: int = option(200, "steps between checkpoints; 0 = only at the end", low=0)
    log_every: int = option(20, "steps between lines of metrics.jsonl", low=1)
    evaluate_every: int = option(
        0, "steps between judgements by the held-out pairs (heldout.jsonl); 0 = at the end", low=0
    )
    export_dtype: Literal["float32", "float16", "bfloat16"] = option(
        "float32", "how the exported model stores its numbers"
    )
    seed: int = option(0, "seed of initial weights, order, captions and augmentation", low=0)

    def validate(self) -> None:
        """Reject several captions an image where pairs are shown, or judged, one by one."""
        if self.epoch_of == "pairs" and self.captions_per_image > 1:
            raise ConfigError(
                "epoch_of=pairs shows pairs one by one; captions_per_image must be 1, "
                f"got {self.captions_per_image}"
            )
        if self.defence.name in ("safeclip", "abl") and self.captions_per_image > 1:
            raise ConfigError(
                f"defence.name={self.defence.name} judges pairs one by one; "
                f"captions_per_image must be 1, got {self.captions_per_image}"
            )
