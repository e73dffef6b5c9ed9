"""CFBD's Tables 1 and 2: accuracy and attack success of models trained with and without defence.

One harness for both: a cell is one training, kept once it is measured, whichever table asked.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmjax.core.code import code_hash
from mmjax.core.config import digest
from mmjax.core.errors import ConfigError, NonFiniteLossError
from mmjax.data.pairs import PairTable
from mmjax.data.sources import open_source
from mmjax.evaluate.cells import SCORING, cell_path, keep
from mmjax.evaluate.cfbd_set import ATTACKS, attack_config, identity, open_set
from mmjax.evaluate.clean_set import CleanSet
from mmjax.evaluate.experiment import ReproduceConfig, Rows, Say
from mmjax.evaluate.scanned_set import Scanned, poison_and_scan
from mmjax.evaluate.sweeps import NOT_YET, Clock, Row, best_defence, first_success
from mmjax.evaluate.trained import (
    PROMPTS,
    Judged,
    isolation,
    judged_scenes,
    measure,
    train_config,
    train_model,
    visibility,
)
from mmjax.evaluate.trained_settings import (
    MMPOISON,
    PAIRS,
    REFERENCES,
    TARGET,
    attack_values,
    changes,
)
from mmjax.evaluate.training_set import TrainingSet, read_set
from mmjax.models.weights import load_weights

DEFENCES = ("cleanclip", "roclip", "safeclip", "abl")
SCANS = ("coarse", "paper", "robust")
METHODS = ("clean", "none", *DEFENCES, *SCANS)
"""Rows of the tables: clean pairs, no defence, defences in training, what a scan keeps."""
WHICH = ("learning_rates", "defence_rates", "tuned_on", "tuned_seed", "methods", "done_only")
"""What of the configuration says which cells there are, and nothing about any of them."""
LEARNED = ("data", "ops", "attacks", "models", "learn", "train")
"""The packages that draw, poison, train and embed; what a scan keeps depends on `SCORING` too."""


def tables(config: ReproduceConfig, out: Path, say: Say) -> Rows:
    """The cells of both tables: a row an attack, method and seed.

    Rows with `tuning` stand apart: trainings by which the learning rate of an "attack", or of a
    "defence", is found, and whether it is the one that is `chosen`.

    Raises:
        ConfigError: an unknown method or attack, or paper scale.
    """
    if config.scale != "small":
        raise ConfigError("cfbd-table1 and cfbd-table2 train on scenes; --scale=small is theirs")
    given = config.cfbd
    values: dict[str, Any] = {
        "pairs": given.pairs or PAIRS,
        "references": given.references or REFERENCES,
        "target": given.target or TARGET,
    }
    config = dataclasses.replace(config, cfbd=dataclasses.replace(given, **values))
    methods = config.trained.methods or METHODS
    if unknown := [name for name in methods if name not in METHODS]:
        raise ConfigError(f"unknown method {unknown[0]!r}; known: {', '.join(METHODS)}")
    for name in (config.trained.tuned_on, *config.attacks):
        if name not in ATTACKS:
            raise ConfigError(f"unknown attack {name!r}; known: {', '.join(ATTACKS)}")
    attacks = [name for name in ATTACKS if not config.attacks or name in config.attacks]
    chosen = config.trained
    defences = [name for name in DEFENCES if name in methods]
    # the sweep of an attack has clean models beside it
    trainings = 2 * len(chosen.learning_rates) + len(defences) + len(set(methods) & set(SCANS))
    tuning = (1 + len(defences)) * len(chosen.defence_rates) if defences else 0
    clock = Clock(len(config.seeds) * len(attacks) * trainings + tuning, say)
    tuned = Lab(config, out, chosen.tuned_seed, clock).tuning(defences) if defences else []
    clock.skip(tuning - clock.done)
    best = {name: best_defence([r for r in tuned if r["method"] == name]) for name in defences}
    taken = [row for row in best.values() if "reason" not in row]
    rows: Rows = [{**row, "tuning": "defence", "chosen": row in taken} for row in tuned]
    for seed in config.seeds:
        lab = Lab(config, out, seed, clock)
        for name in attacks:
            before = clock.done
            rows += lab.rows(name, methods, best)
            clock.skip(before + trainings - clock.done)
    return rows


class Lab:
    """The sets and models of one seed, each made when it is first asked for."""

    def __init__(self, config: ReproduceConfig, out: Path, seed: int, clock: Clock) -> None:
        self._config, self._out, self._seed, self._clock = config, out, seed, clock
        self._size = load_weights(config.trained.weights).preset.vision.image_size
        self.scanned = functools.lru_cache(maxsize=1)(self._scanned)
        self.cell = functools.cache(self._cell)

    @functools.cached_property
    def clean(self) -> CleanSet:
        """The clean set with its embeddings."""
        return open_set(self._config, self._out, self._seed)

    @functools.cached_property
    def clean_pairs(self) -> TrainingSet:
        """Its pairs at the trained models' size."""
        return read_set(self.clean.source, self._size)

    @functools.cached_property
    def reference(self) -> PairTable:
        """Clean pairs apart from it."""
        return read_set(open_source(self.clean.config.reference), self._size).table()

    @functools.cached_property
    def judged(self) -> Judged:
        """What models are judged on, at the size at which triggers are put on."""
        return judged_scenes(self._config.trained.images, self.clean.encoder.image_size, self._seed)

    def tuning(self, defences: Sequence[str]) -> Rows:
        """The trainings by which defences' learning rates are chosen, beside undefended ones.

        CleanCLIP goes on from the undefended model at the first learning rate of the attack.
        """
        chosen = self._config.trained
        return [
            self.cell(chosen.tuned_on, method, rate, chosen.learning_rates[0])
            for method in ("none", *defences)
            for rate in chosen.defence_rates
        ]

    def rows(self, name: str, methods: Sequence[str], tuned: Mapping[str, Row]) -> Rows:
        """The sweep of an attack, then a row a method, all but the defences' at its learning rate.

        Args:
            name: of the attack.
            methods: the rows.
            tuned: of every defence, the training whose learning rate it takes.
        """
        undefended = self._undefended(name)
        at = undefended["learning_rate"]

        def row(method: str) -> Row:
            if method == "none":
                return undefended if "reason" in undefended else undefended | self._visible(name)
            if method not in DEFENCES:
                return self.cell(name, method, at, at)
            if reason := tuned[method].get("reason"):
                return {"attack": name, "method": method, "seed": self._seed, "reason": reason}
            return self.cell(name, method, tuned[method]["learning_rate"], at)

        swept = self._config.trained.learning_rates[: undefended["tried"]]
        sweep = [self.cell(name, "none", rate, rate) for rate in swept]
        return [
            *(
                {**each, "tuning": "attack", "chosen": each["learning_rate"] == at}
                for each in sweep
            ),
            *(row(method) for method in methods),
        ]

    def _undefended(self, name: str) -> Row:
        return first_success(
            self._config.trained.learning_rates,
            lambda rate: self.cell(name, "none", rate, rate),
            lambda rate: self.cell(name, "clean", rate, rate),
        )

    def _cell(self, name: str, method: str, rate: float, at: float) -> Row:
        """One training, measured; what is in the folder is read.

        CleanCLIP goes on from the model of the undefended training at the rate `at`.
        """
        code = tuple(sorted({*LEARNED, *SCORING})) if method in SCANS else LEARNED
        path = self._file(name, "trained", name, trained(method, rate, at), self._seed, code=code)
        models = path
        if method == "clean":  # its model is that of all attacks
            models = cell_path(
                self._out, identity(self._config) | self._common(), name, packages=code
            )
        facts = {"attack": name, "method": method, "learning_rate": rate, "seed": self._seed}
        told = f"{name}, {method}, learning rate {rate:g}, seed {self._seed}"

        if self._config.trained.done_only and not path.exists():
            return {**facts, "reason": NOT_YET}

        def make() -> Row:
            return self._clock.run(
                told, lambda: self._measured(models.parent, name, method, rate, at)
            )

        found = keep(path, make)
        self._clock.skip()
        return {**facts, **found}

    def _visible(self, name: str) -> Row:
        """How well an attack's trigger can be seen; empty without one, or if left for later."""
        path = self._file(name, "trigger", name, self._seed)
        if name == "mmpoison" or (self._config.trained.done_only and not path.exists()):
            return {}
        return keep(path, lambda: visibility(self.judged, self.scanned(name).attack))

    def _file(self, name: str, *names: str | int, code: tuple[str, ...] = LEARNED) -> Path:
        """Where something of an attack is kept that depends on the code of these packages."""
        attack = attack_values(name)
        facts = (
            identity(self._named(name)) | self._common() | {"attack": attack, "prompts": PROMPTS}
        )
        return cell_path(self._out, facts, *names, packages=code)

    def _common(self) -> dict[str, Any]:
        """What decides the numbers of all trainings."""
        chosen = dataclasses.asdict(self._config.trained)
        return {key: value for key, value in chosen.items() if key not in WHICH}

    def _measured(self, folder: Path, name: str, method: str, rate: float, at: float) -> Row:
        try:
            scanned = self.scanned(name)
            model, counts = self._model(folder, name, method, rate, at)
        except (ConfigError, NonFiniteLossError) as error:
            return {"reason": str(error)}
        seeds = self._config.trained.trigger_seeds
        return {**counts, **measure(model, self.judged, scanned.attack, seeds)}

    def _model(
        self, folder: Path, name: str, method: str, rate: float, at: float
    ) -> tuple[str, Row]:
        """The model of a cell, and what is told of the pairs that it learned from."""
        scanned, chosen = self.scanned(name), self._config.trained
        config = train_config(chosen, rate=rate, seed=self._seed)
        whose = "all" if method == "clean" else name
        run = folder / "models" / f"{whose}-{trained(method, rate, at)}-{self._seed}"
        if method == "clean":
            pairs, counts = self.clean_pairs.table(), {"poisoned": 0}
        elif method == "cleanclip":
            start, _ = self._model(folder, name, "none", at, at)
            pairs, counts = self.reference, {}
            config = train_config(chosen, rate=rate, seed=self._seed, defence=method, weights=start)
        else:
            kept = np.ones(len(scanned.poisoned), bool)
            if method in SCANS:
                kept = scanned.kept(method)
            elif method != "none":
                config = train_config(chosen, rate=rate, seed=self._seed, defence=method)
            pairs = scanned.pairs.table(kept)
            counts = {
                "poisoned": int(scanned.poisoned.sum()),
                "survivors": int(np.sum(scanned.poisoned & kept)),
                "clean_lost": int(np.sum(~scanned.poisoned & ~kept)),
            }
        told = {"pairs": len(pairs.images), **counts}
        model = train_model(config, pairs, run)
        return model, told | (isolation(run, scanned.poisoned) if method == "abl" else {})

    def _named(self, name: str) -> ReproduceConfig:
        """The configuration of an attack: mmPoison has things of its own."""
        given = self._config.cfbd
        own = MMPOISON if name == "mmpoison" else {}
        values: dict[str, Any] = {key: getattr(given, key) or own[key] for key in own}
        return dataclasses.replace(self._config, cfbd=dataclasses.replace(given, **values))

    def _scanned(self, name: str) -> Scanned:
        config = attack_config(
            name,
            self._named(name),
            self.clean,
            seed=self._seed,
            rate=self._config.trained.rate,
            changes=changes(name),
        )
        made = f"{name}-{digest(config)[:12]}-{code_hash(LEARNED)[:12]}"
        return poison_and_scan(
            self.clean, self.clean_pairs, config, self._out / "poisoned" / made, self._seed
        )


def trained(method: str, rate: float, at: float) -> str:
    """The name of a training of some poisoned set."""
    return f"{method}-{rate:g}" + (f"-after-{at:g}" if method == "cleanclip" else "")
