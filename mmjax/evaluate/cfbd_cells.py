"""Runs the cells of CFBD's experiments: attacks and seeds, each clean set opened at most once."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mmjax.evaluate.cells import cell_path, keep
from mmjax.evaluate.cfbd_set import attack_config, identity, open_set, settings
from mmjax.evaluate.clean_set import CleanSet, Planted, plant
from mmjax.evaluate.experiment import ReproduceConfig, Rows, Say

Make = Callable[[CleanSet, int], Rows]
"""(clean set, seed) to the rows of a cell."""
Measure = Callable[[CleanSet, Planted, int], Rows]
"""(clean set, what was planted in it, seed) to the rows of a cell."""


def run_cells(
    config: ReproduceConfig, out: Path, say: Say, cells: Sequence[tuple[dict[str, Any], Make]]
) -> Rows:
    """The rows of all cells and seeds; what is in `out` is read.

    Args:
        config: the experiment's.
        out: its folder.
        say: is told of every cell that is measured.
        cells: of each, what names it (and stands in its rows), and what makes it.
    """
    rows: Rows = []
    for seed in config.seeds:
        opened = functools.cache(lambda seed=seed: open_set(config, out, seed))
        for names, make in cells:
            told = ", ".join(f"{name} {value}" for name, value in names.items())
            found = keep(
                cell_path(out, identity(config), config.experiment, *names.values(), seed),
                lambda make=make, seed=seed, opened=opened: make(opened(), seed),
                lambda told=told, seed=seed: say(f"{told}, seed {seed}"),
            )
            rows += [{**names, "seed": seed, **row} for row in found]
    return rows


def run_attacks(
    config: ReproduceConfig,
    out: Path,
    say: Say,
    attacks: Sequence[str],
    measure: Measure,
    *,
    rates: Sequence[float | None] = (None,),
) -> Rows:
    """`run_cells` over attacks (those that `config.attacks` names, if any) and rates.

    A rate of None is the attack's own in this experiment; label-consistent keeps its own always.
    """
    cells = []
    for name in attacks:
        if config.attacks and name not in config.attacks:
            continue
        for rate in rates:

            def make(clean: CleanSet, seed: int, name: str = name, rate: float | None = rate):
                attack = attack_config(name, config, clean, seed=seed, rate=rate)
                return measure(clean, plant(clean, attack), seed)

            cells.append(({"attack": name, "rate": rate or own_rate(name, config)}, make))
    return run_cells(config, out, say, cells)


def own_rate(name: str, config: ReproduceConfig) -> float:
    """The rate of an attack where the experiment asks for no other."""
    chosen = settings(config)
    if name == "mmpoison" and chosen.mmpoison_share:
        return chosen.mmpoison_share
    return chosen.consistent_rate if name == "label_consistent" else chosen.rate


def mean(rows: Rows, value: str, **wanted: Any) -> float | None:
    """The mean of a value over the rows that have it and fit; None without any."""
    found = [
        row[value]
        for row in rows
        if row.get(value) is not None and all(row.get(k) == v for k, v in wanted.items())
    ]
    return sum(found) / len(found) if found else None


def distinct(rows: Rows, key: str) -> list[Any]:
    """The values of a key, in the order in which they come."""
    return list(dict.fromkeys(row[key] for row in rows))
