"""What an attack changes in a set, without writing a poisoned copy of all of it."""

import dataclasses
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from mmjax.attacks.config import AttackConfig, PartConfig
from mmjax.attacks.optimised import OPTIMISED
from mmjax.attacks.plan import Plan, make_plan
from mmjax.attacks.prepare import Ready, make_ready, make_recipe
from mmjax.attacks.shards import Place, poisoned_rows
from mmjax.attacks.surrogate import Surrogate, load_surrogate
from mmjax.core.config import digest
from mmjax.core.rundir import RunDir
from mmjax.core.types import Pair
from mmjax.data.shards import Source


class Change(NamedTuple):
    """A victim: where it stands, which of the configuration's attacks took it, what it is now."""

    place: Place
    attack: int
    pair: Pair


def poisoned_pairs(source: Source, config: AttackConfig, triggers: Path) -> list[Change]:
    """The pairs that `mmjax attack` would write in place of clean ones, in the set's order.

    Args:
        source: the clean set; it is only read.
        config: the attack.
        triggers: folder that optimised triggers are kept in, one run for every way to make them.
            How many pairs are poisoned is no part of that: one trigger serves every rate.

    Raises:
        ConfigError: as `poison`.
    """
    with ThreadPoolExecutor(config.workers or os.cpu_count()) as pool:
        plan = make_plan(source, config, pool)
        recipe = make_recipe(source, plan, _ready(source, config, plan, triggers, pool), config)
        return [
            Change(Place(number, ordinal), plan.victims[number][ordinal].attack, pair)
            for number, shard in enumerate(source.shards)
            for ordinal, pair in poisoned_rows(
                source.open_shard(shard), plan.victims[number], recipe, pool
            ).items()
        ]


def _ready(
    source: Source, config: AttackConfig, plan: Plan, triggers: Path, pool: ThreadPoolExecutor
) -> tuple[Ready, ...]:
    """The attacks made ready in a run folder of their own, which keeps what they optimise."""
    victims = [part.poisoned for part in plan.parts]
    surrogate: Surrogate | None = None
    facts: dict[str, Any] = {"input": {s.name: source.fingerprint(s) for s in source.shards}}
    if any(part.needs_weights for part in config.parts):
        surrogate = load_surrogate(config.weights, config.tokenizer)
        facts["weights"] = surrogate.fingerprint
    names = [part.trigger.name for part in config.parts if part.trigger.name in OPTIMISED]
    names += ["perturb" for part in config.parts if part.perturb.epsilon]
    # triggers that nothing is optimised for share one folder, which stays empty
    made = _of_any_size(config) if names else AttackConfig(inputs=config.inputs)
    folder = triggers / "-".join([*(names or ["fixed"]), digest(made)])
    with RunDir.open(folder, verb="attack", config=made, facts=facts) as run:
        return make_ready(run, source, config, victims, surrogate, pool)


def _of_any_size(config: AttackConfig) -> AttackConfig:
    """The attack without how many pairs it poisons."""
    default = PartConfig()
    sizes = {"rate": default.rate, "count": default.count, "share": default.share}
    mixture = tuple(dataclasses.replace(part, **sizes) for part in config.mixture)
    return dataclasses.replace(config, mixture=mixture, **sizes)
