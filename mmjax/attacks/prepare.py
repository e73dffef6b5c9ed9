"""Makes the attacks of a set ready: optimised arrays are found once, written, and read again."""

import functools
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mmjax.attacks.config import AttackConfig, PartConfig
from mmjax.attacks.optimisation import Material, Prepared
from mmjax.attacks.optimised import OPTIMISED, read_arrays, write_arrays
from mmjax.attacks.perturbation import make_perturb, prepare_perturb
from mmjax.attacks.plan import Plan
from mmjax.attacks.sample import draw_sample
from mmjax.attacks.shards import Place, Recipe, Step
from mmjax.attacks.surrogate import Surrogate
from mmjax.attacks.triggers import Stamp, make_stamp, parameters
from mmjax.core.rundir import RunDir
from mmjax.data.shards import ShardView, Source

_PERTURB_SAMPLE = 64


class Ready(NamedTuple):
    """What one attack does to images, and what the manifest tells of how it was found."""

    stamp: Stamp
    prepared: Sequence[Mapping[str, Any]]


def make_ready(
    run: RunDir,
    source: Source,
    config: AttackConfig,
    victims: Sequence[int],
    surrogate: Surrogate | None,
    pool: Executor,
) -> tuple[Ready, ...]:
    """Make every attack's stamp.

    Args:
        run: optimised arrays are written there, or read if they are there already.
        source: the clean set, which they are optimised on.
        config: the attacks.
        victims: how many each has; one without any is not prepared.
        surrogate: what the attacks that need one look through.
        pool: reads and decodes.

    Raises:
        ConfigError: the set lacks what an optimised trigger learns from.
    """

    def prepare(number: int, part: PartConfig, name: str) -> tuple[Any, dict[str, Any]]:
        file = run.path / "triggers" / f"{number}-{name}.safetensors"
        unit = f"prepared-{number}-{name}"
        entry = run.finished(unit)
        if entry is None:
            found = _find(source, config, part, name, surrogate, pool)
            write_arrays(file, found.arrays)
            run.finish(unit, {"arrays": file}, figures=dict(found.figures))
            entry = run.journal(unit)
        told = {
            "name": name,
            "file": str(file.relative_to(run.path)),
            "sha256": entry["outputs"]["arrays"]["sha256"],
            "weights": surrogate.fingerprint if surrogate and part.needs_weights else "",
            "figures": entry["figures"],
        }
        return read_arrays(Path(file)), told

    made = []
    for number, (part, count) in enumerate(zip(config.parts, victims, strict=True)):
        if not count:
            made.append(Ready(lambda images, names: images, ()))
            continue
        arrays, told = None, []
        if part.trigger.name in OPTIMISED:
            arrays, one = prepare(number, part, part.trigger.name)
            told.append(one)
        stamp = make_stamp(part.trigger, config.seed, arrays=arrays)
        if part.perturb.epsilon and surrogate:
            arrays, one = prepare(number, part, "perturb")
            told.append(one)
            stamp = _after(make_perturb(surrogate, arrays["direction"], part.perturb), stamp)
        made.append(Ready(stamp, told))
    return tuple(made)


def make_recipe(source: Source, plan: Plan, ready: Sequence[Ready], config: AttackConfig) -> Recipe:
    """What is done to the victims of a plan, once its attacks are ready."""
    steps = [Step(made.stamp, part.write) for made, part in zip(ready, plan.parts, strict=True)]

    @functools.lru_cache(maxsize=8)
    def opened(shard: int) -> ShardView:
        return source.open_shard(source.shards[shard])

    def donate(place: Place) -> bytes:
        return opened(place.shard)[place.ordinal].image or b""

    return Recipe(config, tuple(steps), donate)


def _find(
    source: Source,
    config: AttackConfig,
    part: PartConfig,
    name: str,
    surrogate: Surrogate | None,
    pool: Executor,
) -> Prepared:
    """Run one preparation."""
    if name == "perturb":
        sample = draw_sample(source, part, config, _PERTURB_SAMPLE, pool)
        material = Material(sample, surrogate, part.target, config.seed)
        return prepare_perturb(material, part)
    chosen = parameters(part.trigger)
    sample = draw_sample(source, part, config, chosen["sample"], pool).enough_for(part)
    material = Material(sample, surrogate, part.target, config.seed)
    return OPTIMISED[name].prepare(material, **chosen)


def _after(perturb: Any, stamp: Stamp) -> Stamp:
    """First the perturbation, then the trigger."""

    def both(images: np.ndarray, names: Sequence[str]) -> np.ndarray:
        return stamp(perturb(images), names)

    return both
