"""MEM's tables: what a victim that is trained on protected pairs still learns, with controls.

For every row and seed: protect the training pairs, let an attacker change them, train a CLIP from
scratch on them, and ask it for the captions of clean photos that it has not seen, and for the
photos of clean captions.
"""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from mmjax.core.config import parse, to_dict
from mmjax.core.errors import ConfigError
from mmjax.core.progress import format_seconds
from mmjax.data.pairs import PairTable
from mmjax.data.tokenizer import Tokenizer
from mmjax.evaluate.cells import cell_path, keep
from mmjax.evaluate.experiment import ReproduceConfig, Rows, Say
from mmjax.evaluate.mem_methods import CLEAN, PROTECTIONS
from mmjax.evaluate.mem_sets import ATTACKERS, Attacker, Recipe, Workshop, of_set
from mmjax.models.clip import Towers

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
PREFIX = "the the the"
"""A neutral trigger: test captions with it tell a shift of captions from what was not learned."""
_CODE = ("ops", "models", "learn", "train", "protect")
_OWN = 1_000
"""Clean copies of so many of the training photos are asked about too."""


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


def open_workshop(config: ReproduceConfig, out: Path, say: Say) -> Workshop:
    """The workshop for these data, these settings and this code, in the run folder."""
    from mmjax.data.sources import open_source

    data: Any = config.data
    if data != "scenes":
        source = open_source(config.data)
        data = [source.fingerprint(shard) for shard in source.shards]
    of_rows = ("sets", "attackers", "shares")  # which have cells of their own
    mem = {k: v for k, v in to_dict(config.mem).items() if k not in of_rows}
    root = cell_path(out, {"data": data, "mem": mem}, packages=_CODE).parent
    return Workshop(config, root, say)


def measured(workshop: Workshop, recipes: Mapping[str, Recipe]) -> Rows:
    """A row for every recipe and seed, what is there already included; then chance."""
    from mmjax.evaluate.retrieval import chance

    say, seeds = workshop.say, workshop.config.seeds
    cells = {
        (name, seed): workshop.root / f"{name}-{seed}.json" for seed in seeds for name in recipes
    }
    left = sum(not cell.exists() for cell in cells.values())
    begun, done = time.monotonic(), 0
    rows: Rows = []
    for (name, seed), cell in cells.items():
        recipe = recipes[name]
        fresh = not cell.exists()
        figures = keep(
            cell,
            lambda n=name, s=seed, r=recipe: _measure(workshop, n, r, s),
            lambda n=name, s=seed: say(f"{n}, seed {s}"),
        )
        if fresh:
            left, done = left - 1, done + 1
            each = (time.monotonic() - begun) / done
            say(f"{each:.0f} seconds a cell, {left} to go: {format_seconds(each * left)}")
        told = {"name": name, "set": recipe.title, "attacker": recipe.attacker}
        rows.append({**told, "share": recipe.share, "part": recipe.part, "seed": seed, **figures})
    test, own = clean_pairs(workshop, "test"), _own(clean_pairs(workshop, "train"))
    by_chance = chance(test.owners, len(test.images))
    of_own = {f"own_{name}": value for name, value in chance(own.owners, len(own.images)).items()}
    told = {"name": "chance", "set": "chance", "seed": None, "own_photos": len(own.images)}
    return [*rows, {**told, **by_chance, **of_own}]


def _own(table: PairTable) -> PairTable:
    return table._replace(images=table.images[:_OWN], captions=table.captions[:_OWN])


def clean_pairs(workshop: Workshop, part: str, attacker: Attacker = ATTACKERS["none"]) -> PairTable:
    """The clean pairs, seen as an attacker's victim sees the world."""
    from mmjax.models.presets import preset
    from mmjax.train.batches import read_pairs
    from mmjax.train.config import DataConfig

    size = preset(workshop.mem.model).vision.image_size
    table = read_pairs(str(workshop.pairs(part)), size, DataConfig())
    if attacker.change is None:
        return table
    changed = [np.asarray(attacker.change(Image.fromarray(image))) for image in table.images[:]]
    return table._replace(images=np.stack(changed))


def _measure(workshop: Workshop, name: str, recipe: Recipe, seed: int) -> dict[str, float]:
    """Train a victim on a recipe's pairs; what it has learned, of test photos and of its own."""
    from mmjax.core.mesh import make_mesh
    from mmjax.train.config import TrainConfig
    from mmjax.train.pipeline import train

    mem, attacker = workshop.mem, ATTACKERS[recipe.attacker]
    values = {
        "data": {
            "location": str(workshop.training_set(recipe, seed)),
            "heldout": str(workshop.pairs("test")),
        },
        "model": {
            "preset": mem.model,
            "tokenizer": str(workshop.tokenizer()),
            "context_length": mem.context_length,
            "compute": "float32",
        },
        "optimizer": {"learning_rate": mem.learning_rate, "weight_decay": 0.2},
        "steps": mem.steps,
        "batch_size": mem.batch_size,
        "captions_per_image": 1,
        "seed": seed,
        **attacker.victim,
    }

    def judge(
        towers: Towers, variables: Mapping[str, Any], tokenizer: Tokenizer, _: PairTable
    ) -> dict[str, float]:
        from mmjax.evaluate.retrieval import evaluate_pairs

        test, own = (clean_pairs(workshop, part, attacker) for part in ("test", "train"))
        prefixed = tuple(tuple(f"{PREFIX} {text}" for text in each) for each in test.captions)
        asked = {"": test, "prefixed_": test._replace(captions=prefixed), "own_": _own(own)}
        return {
            prefix + figure: value
            for prefix, table in asked.items()
            for figure, value in evaluate_pairs(towers, variables, tokenizer, table).items()
        }

    folder = workshop.victim(name, seed)
    result = train(parse(TrainConfig, values), folder, mesh=make_mesh(), evaluate=judge)
    return {**result.summary["heldout"], "training_loss": result.summary["last"]["loss"]}
