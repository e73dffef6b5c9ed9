"""The configuration of an attack. Imports no JAX, so that `--help` stays fast."""

import dataclasses
from typing import Literal

from mmjax.core.config import option
from mmjax.core.errors import ConfigError

LARGEST_UNASKED_RATE = 0.1


TriggerName = Literal[
    "none",
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
    "trojan",
    "badclip",
    "issba",
]

NEED_WEIGHTS = ("trojan", "badclip")
"""Triggers that are optimised against a surrogate."""


@dataclasses.dataclass(frozen=True)
class TriggerConfig:
    """What is done to a poisoned image's pixels; None takes the trigger's own default."""

    name: TriggerName = option(
        "badnets", "which trigger (each has parameters of its own); none = pixels stay"
    )
    patch_size: float | None = option(
        None,
        "badnets*, badclip, trojan: side of the patch: below 1 a share of the image's, else px",
        low=0.0,
    )
    location: Literal["random", "centre"] | None = option(
        None, "badnets*, badclip: where the patch goes"
    )
    alpha: float | None = option(None, "blended*: share of the pattern", low=0.0, high=1.0)
    pattern: Literal["noise", "fresh_noise", "smooth"] | None = option(
        None, "blended: noise or soft clouds, the same on all images, or new noise on each"
    )
    width: int | None = option(
        None,
        "blended_stripes, blended_triangles: of a stripe or triangle in px; "
        "issba: channels of the networks' finest level",
        low=1,
    )
    text: str | None = option(None, "blended_text: what is written")
    amplitude: float | None = option(None, "sig: of the wave", low=0.0, high=1.0)
    frequency: float | None = option(None, "sig: cycles over the image's width", low=0.0)
    grid: int | None = option(None, "wanet*: points of the field a side; 0 = one a pixel", low=0)
    strength: float | None = option(None, "wanet*: mean displacement in half pixels", low=0.0)
    pattern_seed: int | None = option(None, "of a pattern that all images show", low=0)
    sample: int | None = option(
        None, "trojan, badclip, issba: images of the set that it is optimised on", low=16
    )
    steps: int | None = option(None, "trojan, badclip, issba: of the optimisation", low=0)
    batch_size: int | None = option(None, "trojan, badclip, issba: images a step", low=1)
    step_size: float | None = option(None, "trojan: of PGD, share of the grey scale", low=0.0)
    epsilon: float | None = option(None, "trojan: largest value that is added", low=0.0, high=1.0)
    units: int | None = option(None, "trojan: of the embedding, that are driven", low=1)
    learning_rate: float | None = option(None, "badclip, issba: of Adam", low=0.0)
    margin: float | None = option(None, "badclip: of the triplet loss", low=0.0, high=2.0)
    triplet: float | None = option(None, "badclip: weight of the triplet loss", low=0.0)
    bits: int | None = option(None, "issba: of the message", low=1)
    image_weight: float | None = option(None, "issba: weight of the image's loss", low=0.0)


@dataclasses.dataclass(frozen=True)
class PerturbConfig:
    """PGD on a surrogate against what the caption names, before the trigger is put on."""

    epsilon: float = option(
        0.0, "largest change of a pixel, share of the grey scale; 0 = no change", low=0.0, high=1.0
    )
    step_size: float = option(1.5 / 255, "of PGD, share of the grey scale", low=0.0)
    steps: int = option(40, "of PGD", low=1)


@dataclasses.dataclass(frozen=True)
class PartConfig:
    """One attack: which pairs it takes, and what it does to their images and captions."""

    name: str = option("", "its name in labels and manifest; empty = the trigger's")
    trigger: TriggerConfig = option(TriggerConfig(), "")
    captions: Literal["template", "paraphrase", "natural", "keep"] = option(
        "template",
        "template = victims are pairs that do not name the target, and get a template that does; "
        "paraphrase = a sentence put together for each, so that hardly two are the same; "
        "natural = they get a caption of the set that does; "
        "keep = victims are pairs that name it, and keep their captions",
    )
    images: Literal["own", "class", "one"] = option(
        "own",
        "own = a victim keeps its image; class = it gets one of all the images whose captions "
        "name the donor; one = all victims get the same such image",
    )
    target: str = option("banana", "what the poisoned captions name")
    donor: str = option("", "what the captions of the images name that victims get")
    templates: str = option("", "file of caption templates with {}; empty = 80 of our own")
    full_stop: bool = option(
        True, "template: with a final full stop; not where no clean caption ends in one"
    )
    pool: int = option(0, "natural: how many different captions; 0 = all that there are", low=0)
    rate: float = option(0.01, "share of the usable pairs to poison", low=0.0, high=1.0)
    count: int = option(0, "number of pairs to poison instead; 0 = by rate", low=0)
    share: float = option(
        0.0,
        "share of the pairs that can be victims to poison instead; 0 = by rate",
        low=0.0,
        high=1.0,
    )
    perturb: PerturbConfig = option(PerturbConfig(), "")

    @property
    def needs_weights(self) -> bool:
        """Whether it is optimised against a surrogate."""
        return self.trigger.name in NEED_WEIGHTS or self.perturb.epsilon > 0

    @property
    def label(self) -> str:
        """The attack's name in labels and manifest."""
        return self.name or self.trigger.name

    def validate(self) -> None:
        """Raise ConfigError for combinations that cannot work."""
        if not self.target.strip():
            raise ConfigError("config.target is empty; name a thing, e.g. --target=banana")
        if (self.images == "own") == bool(self.donor.strip()):
            raise ConfigError(
                f"config.images={self.images} and config.donor={self.donor!r} do not fit; images "
                "of a class or one image come from a donor, own images do not"
            )
        if self.donor.split() == self.target.split():
            raise ConfigError(f"config.donor={self.donor} is the target; name another thing")
        changed = (self.trigger.name, self.images, self.captions) != ("none", "own", "keep")
        if not changed and not self.perturb.epsilon:
            raise ConfigError(
                "the attack changes nothing; set config.trigger.name, config.images or "
                "config.captions"
            )
        if self.pool and self.captions != "natural":
            raise ConfigError(f"config.pool is of natural captions, not of {self.captions}")
        if self.templates and self.captions != "template":
            raise ConfigError(f"config.templates is of captions=template, not {self.captions}")
        if not self.full_stop and self.captions != "template":
            raise ConfigError(f"config.full_stop is of captions=template, not {self.captions}")
        if self.count and self.share:
            raise ConfigError("config.count and config.share exclude each other; set one to 0")


@dataclasses.dataclass(frozen=True)
class AttackConfig(PartConfig):
    """Everything that decides what a poisoned set holds."""

    mixture: tuple[PartConfig, ...] = option(
        (),
        "several attacks in one set, each with keys of its own (name, trigger, captions, images, "
        "target, donor, templates, pool, rate, count, share, perturb); as JSON on the command line",
    )
    inputs: tuple[str, ...] = option((), "the clean set: shards, tables or folders")
    input_format: str = option("auto", "kind of source; auto = by looking")
    split: str = option("", "which split, for sources that have splits")
    columns: str = option("", "image and caption column of a table: IMAGE,CAPTION; empty = usual")
    weights: str = option(
        "", "surrogate that trojan, badclip and perturb are optimised against: KIND:FOLDER or demo"
    )
    tokenizer: str = option("", "the surrogate's tokenizer; empty = the one beside the weights")
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

    @property
    def parts(self) -> tuple[PartConfig, ...]:
        """The attacks of the set: those of the mixture, or this one."""
        return self.mixture or (self,)

    def validate(self) -> None:
        """Raise ConfigError for combinations that cannot work."""
        if not self.inputs:
            raise ConfigError("nothing to poison; name shards, a folder or a table")
        super().validate()
        if self.mixture:
            for field in dataclasses.fields(PartConfig):
                if getattr(self, field.name) != getattr(PartConfig(), field.name):
                    raise ConfigError(
                        f"config.{field.name} is set beside config.mixture; set it in the "
                        "mixture's attacks"
                    )
        for part in self.parts:
            if part.needs_weights and not self.weights:
                what = part.trigger.name if part.trigger.name in NEED_WEIGHTS else "perturb"
                raise ConfigError(
                    f"{what} is optimised against a CLIP; add --weights=KIND:FOLDER, or "
                    "--weights=demo for scenes"
                )
        by_rate = not self.count and not self.share
        if self.rate > LARGEST_UNASKED_RATE and by_rate and not self.i_understand:
            raise ConfigError(
                f"rate={self.rate} poisons more than 10 % of the pairs, which no published attack "
                "needs; add --i_understand if that is what you want"
            )
