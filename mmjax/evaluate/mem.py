"""MEM's tables: what a victim that is trained on protected pairs still learns, with controls.

For every row and seed: protect the training pairs, let an attacker change them, train a CLIP from
scratch on them, and ask it for the captions of clean photos that it has not seen, and for the
photos of clean captions.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from mmjax.core.errors import ConfigError
from mmjax.evaluate.experiment import ReproduceConfig, Rows, Say
from mmjax.evaluate.mem_methods import CLEAN, PROTECTIONS
from mmjax.evaluate.mem_sets import ATTACKERS, Recipe, Workshop, of_set
from mmjax.evaluate.mem_victims import measured, open_workshop

TABLE1: dict[str, Recipe] = {
    **{name: of_set(name) for name in PROTECTIONS},
    "mem_3_trigger": Recipe("MEM-3's triggers, clean photos", CLEAN, "mem_3"),
    "mem_3_strip": of_set("mem_3", "strip"),
    "mem_plus_strip": of_set("mem_plus", "strip"),
}
"""The rows of Table 1 and of the controls that the paper lacks."""
CONTROLS = (
    CLEAN,
    "prefix",
    "random_trigger",
    "random_trigger_5",
    "mem_3_trigger",
    "mem_3_strip",
    "mem_3",
    "mem_5",
)
"""The rows that tell what carries the effect: tokens, noise, or their being optimised."""
TABLE2 = (CLEAN, "mem_3")
"""The sets that victims of other shapes are trained on."""


def table1(config: ReproduceConfig, out: Path, say: Say) -> Rows:
    """The rows of `TABLE1` that `mem.sets` names, for every seed, and chance.

    Args:
        config: `data` names a set with the splits `mem.train` and `mem.test`, or is `scenes`.
        out: run folder; a cell that is there is not run again.
        say: is told of every cell, and how long the rest takes.

    Raises:
        ConfigError: a set is unknown.
    """
    return measured(open_workshop(config, out, say), chosen(config.mem.sets, TABLE1, "sets"))


def controls(config: ReproduceConfig, out: Path, say: Say) -> Rows:
    """The rows of `CONTROLS`."""
    names = config.mem.sets or CONTROLS
    return measured(open_workshop(config, out, say), chosen(names, TABLE1, "sets"))


def table2(config: ReproduceConfig, out: Path, say: Say) -> Rows:
    """Sets protected against one surrogate, learned from by victims of its shape and of others."""
    workshop = open_workshop(config, out, say)
    sets = chosen(config.mem.sets or TABLE2, PROTECTIONS, "sets")
    return measured(workshop, for_victims(workshop, sets))


def for_victims(workshop: Workshop, sets: Mapping[str, str]) -> dict[str, Recipe]:
    """A recipe for every victim and set; a victim of the surrogate's shape is that of table 1."""
    recipes = {}
    for model in workshop.mem.victims:
        for name in sets:
            own = model == workshop.mem.surrogate
            key = name if own else f"{name}@{re.sub('[^A-Za-z0-9]+', '-', model)}"
            recipes[key] = of_set(name)._replace(model="" if own else model)
    return recipes


def robustness(config: ReproduceConfig, out: Path, say: Say) -> Rows:
    """Every protected set under every attacker; the clean set too, for what an attack costs."""
    names = config.mem.sets or (CLEAN, "em_matched", "mem_3", "mem_plus")
    sets = chosen(names, PROTECTIONS, "sets")
    attackers = chosen(config.mem.attackers, ATTACKERS, "attackers")
    recipes = {
        f"{name}+{attacker}": of_set(name, attacker)
        for name in sets
        for attacker in attackers
        if not (name == CLEAN and ATTACKERS[attacker].strips)
    }
    return measured(open_workshop(config, out, say), recipes)


def table3(config: ReproduceConfig, out: Path, say: Say) -> Rows:
    """MEM-3 with any tokens and with natural ones: what is learned, naturalness, examples."""
    names = config.mem.sets or (CLEAN, "mem_3", "mem_natural")
    workshop = open_workshop(config, out, say)
    sets = chosen(names, PROTECTIONS, "sets")
    rows = measured(workshop, {name: of_set(name) for name in sets})
    return [row | _wording(workshop, row) for row in rows]


def _wording(workshop: Workshop, row: Mapping[str, Any]) -> dict[str, Any]:
    """How natural a set's triggers are, and its first captions."""
    if row["seed"] is None:
        return {}
    folder = workshop.protected(row["name"], row["seed"]).parent
    manifest = json.loads((folder / "protection.json").read_text(encoding="utf-8"))
    captions = pq.read_table(folder / "captions.parquet")["protected"].to_pylist()
    return {"examples": captions[:3], "naturalness": manifest.get("naturalness")}


def partial(config: ReproduceConfig, out: Path, say: Say) -> Rows:
    """Sets of which a share of the photos is protected, and their clean part alone."""
    names = config.mem.sets or ("em_matched", "mem_3", "mem_plus")
    recipes = {}
    for name in chosen(names, PROTECTIONS, "sets"):
        for share in config.mem.shares:
            whole = Recipe(PROTECTIONS[name], name, name, share=share)
            recipes[f"{name}@{share:g}"] = whole
            if 0 < share < 1:
                rest = whole._replace(title="the clean part alone", part="clean")
                recipes[f"rest@{share:g}"] = rest._replace(photos=CLEAN, captions=CLEAN)
    return measured(open_workshop(config, out, say), recipes)


def chosen(names: tuple[str, ...], known: Mapping[str, Any], key: str) -> dict[str, Any]:
    """The named entries of a table, all if none is named; ConfigError for an unknown one."""
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ConfigError(f"config.mem.{key}: unknown {unknown[0]!r}; known: {', '.join(known)}")
    return {name: known[name] for name in names or known}
