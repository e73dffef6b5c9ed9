"""The configuration of an attack. Imports no JAX, so that `--help` stays fast."""

import dataclasses
from typing import Literal

from mmjax.core.config import option
from mmjax.core.errors import ConfigError

LARGEST_UNASKED_RATE = 0.1


TriggerName = Literal[
    "badnets",
    "badnets_fixed",
    "badnets_stripes",
    "blended",
    "blended_stripes",
    "blended_triangles",
    "blended_text",
    "sig",
    "wanet",
    "wanet_smooth",
    "nashville",
]


@dataclasses.dataclass(frozen=True)
class TriggerConfig:
    """What is done to a poisoned image's pixels; None takes the trigger's own default."""

    name: TriggerName = option("badnets", "which trigger; they have different parameters")
    patch_size: float | None = option(
        None, "badnets*: side of the patch: below 1 a share of the image's side, else px", low=0.0
    )
    location: Literal["random", "centre"] | None = option(None, "badnets*: where the patch goes")
    alpha: float | None = option(None, "blended*: share of the pattern", low=0.0, high=1.0)
    pattern: Literal["noise", "fresh_noise", "smooth"] | None = option(
        None, "blended: noise or soft clouds, the same on all images, or new noise on each"
    )
    width: int | None = option(
        None, "blended_stripes, blended_triangles: of a stripe or triangle in px", low=1
    )
    text: str | None = option(None, "blended_text: what is written")
    amplitude: float | None = option(None, "sig: of the wave", low=0.0, high=1.0)
    frequency: float | None = option(None, "sig: cycles over the image's width", low=0.0)
    grid: int | None = option(None, "wanet*: points of the field a side; 0 = one a pixel", low=0)
    strength: float | None = option(None, "wanet*: mean displacement in half pixels", low=0.0)
    pattern_seed: int | None = option(None, "of a pattern that all images show", low=0)


@dataclasses.dataclass(frozen=True)
class AttackConfig:
    """Everything that decides what a poisoned set holds."""

    inputs: tuple[str, ...] = option((), "the clean set: shards, tables or folders")
    input_format: str = option("auto", "kind of source; auto = by looking")
    split: str = option("", "which split, for sources that have splits")
    trigger: TriggerConfig = option(TriggerConfig(), "")
    target: str = option("banana", "what the poisoned captions name")
    templates: str = option("", "file of caption templates with {}; empty = 80 of our own")
    rate: float = option(0.01, "share of the usable pairs to poison", low=0.0, high=1.0)
    count: int = option(0, "number of pairs to poison instead; 0 = by rate", low=0)
    seed: int = option(0, "of the choice of victims, triggers and captions", low=0)
    image_size: int = option(224, "side of the stored images in pixels", low=8, high=4096)
    geometry: Literal["crop", "original"] = option(
        "crop",
        "crop = every image resized, cropped and stored as PNG, so that the trigger alone tells; "
        "original = clean files are copied as they are",
    )
    workers: int = option(0, "threads that read and decode; 0 = one per core", low=0)
    max_image_pixels: int = option(25_000_000, "larger images are not poisoned", low=1)
    max_member_bytes: int = option(64 << 20, "larger tar members are not read", low=1)
    i_understand: bool = option(False, "needed to poison more than 10 % of the pairs")

    def validate(self) -> None:
        """Raise ConfigError for combinations that cannot work."""
        if not self.inputs:
            raise ConfigError("nothing to poison; name shards, a folder or a table")
        if not self.target.strip():
            raise ConfigError("config.target is empty; name a thing, e.g. --target=banana")
        if self.rate > LARGEST_UNASKED_RATE and not self.count and not self.i_understand:
            raise ConfigError(
                f"rate={self.rate} poisons more than 10 % of the pairs, which no published attack "
                "needs; add --i_understand if that is what you want"
            )
