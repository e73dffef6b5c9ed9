"""The configuration of `mmjax evaluate`. Imports no JAX, so that `--help` stays fast."""

import dataclasses
from typing import Literal

from mmjax.core.config import MeshConfig, option
from mmjax.core.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class EvaluateConfig:
    """What is measured of which model, on what."""

    task: Literal["zeroshot", "probe", "retrieval", "attack"] = option(
        "zeroshot",
        "zeroshot = classification by prompts; probe = logistic regression on image embeddings; "
        "retrieval = between images and captions; attack = success of a poisoned set's trigger",
    )
    inputs: tuple[str, ...] = option((), "the set: of labelled images, or of captioned ones")
    input_format: str = option("auto", "kind of a captioned set; auto = by looking")
    split: str = option("", "which split, for captioned sets that have splits")
    columns: str = option("", "image and caption column of a table: IMAGE,CAPTION; empty = usual")
    weights: str = option("", "hf-dir:, open_clip-dir:, mmjax-dir:, orbax: folder, or demo")
    tokenizer: str = option("", "tokenizer folder or file; empty = the one beside the weights")
    classes: str = option("", "file of class names, or imagenet1k; empty = those of the set")
    templates: str = option("", "file of prompts with {}, or imagenet1k; empty = 80 of our own")
    train: str = option("", "probe: the labelled set that is fitted on")
    attack: str = option("", "attack: POISONED_DATASET.json, or its folder")
    attack_seeds: tuple[int, ...] = option(
        (0, 1, 2), "attack: of the places and the noise on the test images, a pass each", low=0
    )
    seed: int = option(0, "probe: of the part that C is chosen on", low=0)
    batch_size: int = option(256, "images a step, over all devices", low=1)
    precision: Literal["auto", "float32", "bfloat16"] = option(
        "float32", "compute type of the towers; auto = bfloat16 where the machine is fast at it"
    )
    workers: int = option(2, "threads that read and decode", low=1)
    max_image_pixels: int = option(25_000_000, "larger images are skipped", low=1)
    mesh: MeshConfig = option(MeshConfig())

    def validate(self) -> None:
        """Raise ConfigError for what the task lacks, or does not take."""
        if len(self.inputs) != 1:
            raise ConfigError(f"name one set to evaluate on, got {len(self.inputs)}")
        if not self.weights:
            raise ConfigError("which model? add --weights=KIND:FOLDER, or --weights=demo")
        wanted = {"train": "probe", "attack": "attack"}
        for key, task in wanted.items():
            if bool(getattr(self, key)) != (self.task == task):
                asked = "wants" if self.task == task else "takes no"
                raise ConfigError(f"task={self.task} {asked} --{key}")
        if not self.attack_seeds:
            raise ConfigError("config.attack_seeds is empty; give at least one")
