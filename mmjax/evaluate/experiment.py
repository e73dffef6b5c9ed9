"""What an experiment is, and its configuration. Imports no JAX, so that `--help` stays fast."""

import dataclasses
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

from mmjax.core.config import option
from mmjax.scan.options import CaptionerConfig, MappingConfig
from mmjax.train.defence import AblConfig, DefenceConfig, RoClipConfig, SafeClipConfig

Say = Callable[[str], None]
Rows = list[dict[str, Any]]

FIT = MappingConfig(
    width=1024,
    batch_size=256,
    epochs=6.0,
    learning_rate=5e-4,
    captioner=CaptionerConfig(
        width=128, layers=2, heads=4, max_length=20, epochs=1.0, learning_rate=2e-3
    ),
)
"""A mapping network that two cores fit in minutes; `kind` is replaced by those that are tried."""


@dataclasses.dataclass(frozen=True)
class CfbdConfig:
    """What CFBD's experiments poison; None takes what `scale` says (`evaluate/cfbd_set.py`)."""

    pairs: int | None = option(
        None, "scenes (scale=small); None = 10,000, or 3,000 where models are trained", low=100
    )
    references: int | None = option(
        None, "clean scenes that F is fitted on (scale=small); None = 3,000, or 1,500", low=100
    )
    input_format: str = option("auto", "kind of the data (scale=paper)")
    split: str = option("", "which split of it")
    reference: tuple[str, ...] = option((), "clean pairs that F is fitted on (scale=paper)")
    reference_format: str = option("auto", "kind of the reference")
    reference_split: str = option("", "which split of it")
    target: str | None = option(
        None, "what poisoned captions name (where models are trained, scale=small: bottle)"
    )
    rate: float | None = option(None, "share of poisoned pairs", low=0.0, high=0.1)
    rates: tuple[float, ...] = option(
        (0.006, 0.005, 0.004, 0.003), "of cfbd-table3", low=0.0, high=0.1
    )
    fault_rate: float | None = option(
        None, "of cfbd-table5, whose seeds are up to 320 poisoned pairs", low=0.0, high=0.1
    )
    consistent_target: str | None = option(None, "what label-consistent's captions name")
    consistent_rate: float | None = option(None, "of label-consistent", low=0.0, high=0.1)
    mmpoison_target: str | None = option(None, "what mmPoison's captions name")
    mmpoison_donor: str | None = option(None, "what the images that they get show")
    mmpoison_share: float | None = option(
        None, "share of the pairs that mmPoison can poison; 0 = by rate", low=0.0, high=1.0
    )


@dataclasses.dataclass(frozen=True)
class MemConfig:
    """What MEM's experiments protect, and the victims that learn from it.

    None takes what `scale` says (`evaluate/mem_settings.py`).
    """

    train: str | None = option(None, "split that is protected and learned from; None = train")
    test: str | None = option(None, "split that victims are asked about, clean; None = test")
    photos: int | None = option(
        None, "of the training split, the first ones; None = 1,000, or all", low=2
    )
    test_photos: int | None = option(
        None, "of the test split, the first ones; None = 500, or all", low=1
    )
    captions: int | None = option(None, "of a training photo, at most; None = 1, or 5", low=1)
    people: int | None = option(
        None, "of mem-table4, the first ones; None = 380, as many as have names", low=2, high=380
    )
    person_photos: int | None = option(
        None, "of a person to learn from, at most; None = 15, or all", low=1
    )
    person_test_photos: int | None = option(
        None, "of a person that victims are asked about; None = 5, or 1", low=1
    )
    sets: tuple[str, ...] = option((), "rows of the table; empty = all")
    attackers: tuple[str, ...] = option((), "of mem-robustness; empty = all")
    shares: tuple[float, ...] = option(
        (0.0, 0.25, 0.5, 0.75, 0.9, 1.0), "of mem-partial: protected photos", low=0.0, high=1.0
    )
    model: str | None = option(
        None, "preset of surrogates, and of victims but in tables 2 and 4; --weights goes before"
    )
    victims: tuple[str, ...] = option(
        (), "of mem-table2 and mem-table4: presets, or weights that are fine-tuned (KIND:FOLDER)"
    )
    vocab_size: int | None = option(
        None, "of the BPE of the training captions (without --tokenizer)", low=514
    )
    context_length: int | None = option(
        None, "tokens of a caption, trigger included, at most; None = 24, or 77", low=8
    )
    noise_scope: Literal["image", "pair"] | None = option(
        None, "what has a noise of its own; mem-plus: images always; None = image, or pair"
    )
    rounds: int | None = option(None, "of training, search and noise; None = 4, or 20", low=1)
    surrogate_steps: int | None = option(None, "training steps a round; None = 50, or 200", low=1)
    surrogate_learning_rate: float | None = option(None, "constant; None = 2e-3, or 1e-4", low=0.0)
    steps: int | None = option(None, "training steps of a victim; None = 400, or 7,500", low=1)
    batch_size: int | None = option(None, "pairs of a batch; None = 64, or 128", low=2)
    learning_rate: float | None = option(None, "of victims; None = 2e-3, or 5e-4", low=0.0)


DEFENCES = DefenceConfig(
    roclip=RoClipConfig(pool=1_024),
    safeclip=SafeClipConfig(unimodal_epochs=1),
    abl=AblConfig(recorded_epochs=2, isolate=0.02, unlearn_epochs=1),
)
"""Options that fit runs of some epochs; ABL isolates as many pairs as are poisoned at the
default rate."""


@dataclasses.dataclass(frozen=True)
class TrainedConfig:
    """How the models of cfbd-table1 and cfbd-table2 are trained and judged."""

    weights: str = option("demo", "what is fine-tuned (KIND:FOLDER or demo)")
    steps: int = option(360, "of a training", low=1)
    batch_size: int = option(64, "pairs of a step", low=2)
    learning_rates: tuple[float, ...] = option(
        (5e-4, 1e-3, 2e-3),
        "tried in turn until an attack succeeds without defence and the model reads as well as a "
        "clean one, to 2 points",
        low=0.0,
    )
    defence_rates: tuple[float, ...] = option(
        (2e-4, 5e-4, 1e-3), "learning rates of which each defence takes one", low=0.0
    )
    tuned_on: str = option("badnets", "attack on which a defence's learning rate is chosen")
    tuned_seed: int = option(0, "seed on which a defence's learning rate is chosen", low=0)
    rate: float = option(0.02, "share of poisoned pairs", low=0.0, high=0.1)
    images: int = option(6_000, "scenes with one object that models are judged on", low=100)
    trigger_seeds: tuple[int, ...] = option((0,), "of triggers on them, a pass each", low=0)
    methods: tuple[str, ...] = option((), "rows of the tables; empty = all")
    done_only: bool = option(False, "train nothing: the tables of what is done so far")
    defence: DefenceConfig = option(DEFENCES, "")


@dataclasses.dataclass(frozen=True)
class ReproduceConfig:
    """Which experiment, on what, where its result goes."""

    experiment: str = option("", "name of the experiment")
    scale: Literal["small", "paper"] = option(
        "small",
        "small = what two cores train, CFBD's on generated scenes; paper = the papers' models on "
        "data that are given (configs/reproduce)",
    )
    data: str = option("", "folder of the real data set that the experiment reads")
    weights: str = option(
        "", "the clean model that scans, or MEM's pre-trained surrogate, e.g. mmjax-dir:FOLDER"
    )
    tokenizer: str = option("", "its tokenizer; empty = the one beside the weights, or MEM's own")
    seeds: tuple[int, ...] = option((), "of the attack and of the scan; empty = the experiment's")
    attacks: tuple[str, ...] = option((), "of CFBD's experiments; empty = all that the paper has")
    kinds: tuple[Literal["lm", "regression", "ridge"], ...] = option(
        ("lm", "regression", "ridge"), "mapping networks that are tried"
    )
    fit: MappingConfig = option(FIT, "")
    rate: float = option(0.01, "share of poisoned pairs", low=0.0, high=0.1)
    cfbd: CfbdConfig = option(CfbdConfig(), "")
    mem: MemConfig = option(MemConfig(), "")
    trained: TrainedConfig = option(TrainedConfig(), "")
    results: str = option("docs/results", "folder that the JSON and the Markdown go to")


class Experiment(NamedTuple):
    """`run(config, out, say)` returns the rows of the results table."""

    run: Callable[[ReproduceConfig, Path, Say], Rows]
    title: str
    notes: tuple[str, ...]
    needs: tuple[str, ...] = ("data", "weights")
    seeds: tuple[int, ...] = (0, 1, 2)
    stem: str = ""
    """Of the JSON and of the page, if not the experiment's name."""
    page: str = "mmjax.evaluate.tables:write_table"
    """What makes the page of the JSON."""


def named(reference: str) -> Callable[..., Any]:
    """The function `module:name`, imported when it is called."""
    module, _, name = reference.partition(":")

    def call(*arguments: Any) -> Any:
        return getattr(importlib.import_module(module), name)(*arguments)

    return call
