"""The sets that CFBD's experiments poison, and the nine attacks, at either scale.

At `small` scale the pairs are generated scenes and the bundled demo model scans. Poisoned captions
name the clock, unless the configuration says otherwise: the small model reads it well, and among
these scenes it is rare, as the paper's banana is on the web. mmPoison and label-consistent take
their victims among the pairs that name the target, so theirs is a common one. At `paper` scale the
pairs, the clean reference and the weights are given, and the targets are the papers' own.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mmjax.attacks.config import AttackConfig
from mmjax.core.config import parse
from mmjax.core.config_file import from_file
from mmjax.evaluate.attack_sheet import SETTINGS
from mmjax.evaluate.clean_set import CleanSet, open_clean_set
from mmjax.evaluate.experiment import ReproduceConfig
from mmjax.scan.config import ScanConfig
from mmjax.scan.options import MappingConfig

ATTACKS = (
    "badnets",
    "blended",
    "trojan",
    "issba",
    "wanet",
    "sig",
    "mmpoison",
    "badclip",
    "label_consistent",
)
"""The paper's nine, by the names of their files in configs/attack."""
PAIRS, REFERENCES = 10_000, 3_000
"""How many scenes are scanned, and how many F is fitted on."""
SCANNED, REFERENCE = 4_000, 5_000
"""Series of scenes: neither the bundled model, the demonstration nor the attack sheet has them."""


class Settings(NamedTuple):
    """What an experiment poisons: `CfbdConfig`, its gaps filled by the scale."""

    target: str
    rate: float
    fault_rate: float
    consistent_target: str
    consistent_rate: float
    mmpoison_target: str
    mmpoison_donor: str
    mmpoison_share: float
    others: tuple[str, ...]
    """Nine more targets, for several at once."""


SCALES: dict[str, Settings] = {
    "small": Settings(
        "clock", 0.006, 0.04, "bird", 0.006, "bird", "guitar", 0.0,
        ("banana", "umbrella", "key", "tent", "crown", "kite", "cactus", "turtle", "heart"),
    ),
    "paper": Settings(
        "banana", 0.006, 0.006, "banana", 0.0005, "dog", "truck", 0.1,
        ("cheeseburger", "volcano", "umbrella", "teapot", "goldfish", "tractor", "accordion",
         "lighthouse", "pineapple"),
    ),
}  # fmt: skip
"""By scale; mmPoison's pair is that of its COCO experiment."""


def settings(config: ReproduceConfig) -> Settings:
    """What the configuration says, and where it says nothing, its scale."""
    given = {name: getattr(config.cfbd, name, None) for name in Settings._fields}
    return SCALES[config.scale]._replace(**{k: v for k, v in given.items() if v is not None})


def open_set(config: ReproduceConfig, out: Path, seed: int) -> CleanSet:
    """The clean set of a seed, embedded in `out` once.

    Raises:
        InputError, WeightsError, ConfigError: the data or the weights do not serve.
    """
    if config.scale == "small":
        from mmjax.data.scenes import CLASSES, write_scenes

        pairs = config.cfbd.pairs or PAIRS
        references = config.cfbd.references or REFERENCES
        target = settings(config).target
        rare = target if target in CLASSES else ""
        name = f"{target.replace(' ', '-')}-{seed}"

        def scenes(kind: str, count: int, series: int) -> str:
            folder = out / f"{kind}-{count}-{name}"
            if not (folder / "scenes.json").exists():  # written last
                write_scenes(folder, count, series + seed, rare=rare)
            return str(folder)

        scan = ScanConfig(
            inputs=(scenes("scenes", pairs, SCANNED),),
            weights=config.weights or "demo",
            tokenizer=config.tokenizer,
            reference=(scenes("clean", references, REFERENCE),),
            fit=MappingConfig(kind="ridge"),
            seed=seed,
        )
        return open_clean_set(scan, out / f"set-{pairs}-{references}-{name}")
    scan = ScanConfig(
        inputs=(config.data,),
        input_format=config.cfbd.input_format,
        split=config.cfbd.split,
        weights=config.weights,
        tokenizer=config.tokenizer,
        reference=config.cfbd.reference,
        reference_format=config.cfbd.reference_format,
        reference_split=config.cfbd.reference_split,
        fit=config.fit,
    )
    # the set is the same for all seeds; they choose victims and triggers
    return open_clean_set(scan, out / "set")


def attack_config(
    name: str,
    config: ReproduceConfig,
    clean: CleanSet,
    *,
    seed: int,
    rate: float | None = None,
    changes: Mapping[str, Any] | None = None,
) -> AttackConfig:
    """One of the attacks on a clean set.

    Args:
        name: a file of configs/attack.
        config: the experiment's.
        clean: the set.
        seed: of victims, triggers and captions.
        rate: share of poisoned pairs; None = the experiment's.
        changes: other values of the attack's configuration.
    """
    chosen = settings(config)
    values = from_file(f"attack/{name}") | _common(clean, seed)
    values |= {"target": chosen.target, "rate": chosen.rate}
    if "weights" in values:
        values |= {"weights": clean.config.weights, "tokenizer": config.tokenizer}
    if name == "label_consistent":
        values |= {"target": chosen.consistent_target, "rate": chosen.consistent_rate}
    if name == "mmpoison":
        values |= {
            "target": chosen.mmpoison_target,
            "donor": chosen.mmpoison_donor,
            "share": chosen.mmpoison_share,
        }
    if config.scale == "small" and "trigger" in values:
        values["trigger"] = values["trigger"] | SETTINGS.get(values["trigger"]["name"], {})
    if rate is not None:
        values |= {"rate": rate, "share": 0.0}
    return parse(AttackConfig, values | dict(changes or {}))


def mixture_config(
    parts: Sequence[Mapping[str, Any]], config: ReproduceConfig, clean: CleanSet, *, seed: int
) -> AttackConfig:
    """Several attacks at once; `trigger` of each part names a file of configs/attack."""
    mixture = tuple(
        {**part, "trigger": from_file(f"attack/{part['trigger']}")["trigger"]} for part in parts
    )
    return parse(AttackConfig, {**_common(clean, seed), "mixture": mixture})


def _common(clean: CleanSet, seed: int) -> dict[str, Any]:
    """What all attacks on a set share."""
    return {
        "inputs": clean.config.inputs,
        "input_format": clean.config.input_format,
        "split": clean.config.split,
        "image_size": clean.encoder.image_size,
        "seed": seed,
    }


def identity(config: ReproduceConfig) -> dict[str, Any]:
    """What decides a cell's numbers, beside the cell's own name."""
    other = ("experiment", "seeds", "attacks", "results", "kinds", "mem", "trained")
    return {k: v for k, v in dataclasses.asdict(config).items() if k not in other}
