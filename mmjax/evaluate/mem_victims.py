"""Victims of MEM's experiments: trained on a recipe's pairs, asked what they have learned.

A cell is a recipe and a seed: measured once, then read.
"""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mmjax.core.config import parse
from mmjax.core.progress import format_seconds
from mmjax.data.pairs import PairTable
from mmjax.data.tokenizer import Tokenizer
from mmjax.evaluate.cells import cell_path, keep
from mmjax.evaluate.experiment import ReproduceConfig, Rows, Say
from mmjax.evaluate.mem_sets import ATTACKERS, Attacker, Recipe, Workshop
from mmjax.evaluate.mem_settings import image_size, model_values
from mmjax.models.clip import Towers
from mmjax.train.pipeline import Evaluate, TrainResult

PREFIX = "the the the"
"""A neutral trigger: test captions with it tell a shift of captions from what was not learned."""
_CODE = ("ops", "models", "learn", "train", "protect")
_OWN = 1_000
"""Clean copies of so many of the training photos are asked about too."""
Measure = Callable[[Workshop, str, Recipe, int], dict[str, Any]]
"""What a victim has learned: `measure(workshop, name, recipe, seed)`."""


def open_workshop(config: ReproduceConfig, out: Path, say: Say) -> Workshop:
    """The workshop for these data, these settings and this code, in the run folder."""
    from mmjax.data.sources import open_source

    data: Any = config.data
    if data != "scenes":
        source = open_source(config.data)
        data = [source.fingerprint(shard) for shard in source.shards]
    return workshop_at(data, Workshop(config, out, say))


def workshop_at(data: Any, workshop: Workshop) -> Workshop:
    """A workshop whose root is the run folder, moved to the folder of its settings and code.

    Args:
        data: what identifies them.
        workshop: to be moved.
    """
    mem = workshop.mem._asdict()
    del mem["victims"]  # which have cells of their own
    facts = {"data": data, "mem": mem, "read": workshop.read.__name__}
    return workshop._replace(root=cell_path(workshop.root, facts, packages=_CODE).parent)


def cells(workshop: Workshop, recipes: Mapping[str, Recipe], measure: Measure) -> Rows:
    """A row for every seed and recipe, what is there already included.

    Args:
        workshop: cells lie in its folder, by the name of `measure`.
        recipes: by name.
        measure: of a cell that is not there.
    """
    say, folder = workshop.say, workshop.root / measure.__name__
    places = {
        (name, seed): folder / f"{name}-{seed}.json"
        for seed in workshop.config.seeds
        for name in recipes
    }
    left = sum(not cell.exists() for cell in places.values())
    begun, done = time.monotonic(), 0
    rows: Rows = []
    for (name, seed), cell in places.items():
        recipe = recipes[name]
        fresh = not cell.exists()
        figures = keep(
            cell,
            lambda n=name, s=seed, r=recipe: measure(workshop, n, r, s),
            lambda n=name, s=seed: say(f"{n}, seed {s}"),
        )
        if fresh:
            left, done = left - 1, done + 1
            each = (time.monotonic() - begun) / done
            say(f"{each:.0f} seconds a cell, {left} to go: {format_seconds(each * left)}")
        told = {"name": name, "set": recipe.title, "attacker": recipe.attacker}
        told |= {"share": recipe.share, "part": recipe.part}
        told["model"] = recipe.model or workshop.mem.surrogate
        rows.append({**told, "seed": seed, **figures})
    return rows


def measured(workshop: Workshop, recipes: Mapping[str, Recipe]) -> Rows:
    """The cells of test photos, of test captions with a prefix, of own photos; then chance."""
    from mmjax.evaluate.retrieval import chance

    rows = cells(workshop, recipes, learned)
    own = _own(clean_pairs(workshop, "train"))
    of_own = {f"own_{name}": value for name, value in chance(own.owners, len(own.images)).items()}
    return [*rows, {**by_chance(workshop), **of_own, "own_photos": len(own.images)}]


def by_chance(workshop: Workshop) -> dict[str, Any]:
    """The row of an encoder that knows nothing, asked about the test photos."""
    from mmjax.evaluate.retrieval import chance

    test = clean_pairs(workshop, "test")
    told = {"name": "chance", "set": "chance", "seed": None, "photos": len(test.images)}
    return told | chance(test.owners, len(test.images))


def _own(table: PairTable) -> PairTable:
    return table._replace(images=table.images[:_OWN], captions=table.captions[:_OWN])


def clean_pairs(
    workshop: Workshop, part: str, attacker: Attacker = ATTACKERS["none"], model: str = ""
) -> PairTable:
    """The clean pairs, as an attacker's victim sees the world, at the size of a model's images.

    Args:
        workshop: has them.
        part: `train` or `test`.
        attacker: of `ATTACKERS`.
        model: a preset or weights; empty = the surrogate's.
    """
    from mmjax.train.batches import Place, read_pairs
    from mmjax.train.config import DataConfig

    size = image_size(model or workshop.mem.surrogate)
    table = read_pairs(Place(str(workshop.pairs(part))), size, DataConfig())
    if attacker.change is None:
        return table
    changed = [np.asarray(attacker.change(Image.fromarray(image))) for image in table.images[:]]
    return table._replace(images=np.stack(changed))


def train_victim(
    workshop: Workshop,
    recipe: Recipe,
    seed: int,
    folder: Path,
    evaluate: Evaluate,
    **options: Any,
) -> TrainResult:
    """Train a victim on a recipe's pairs; the same call on the same folder resumes.

    Args:
        workshop: makes the pairs.
        recipe: what it is trained on, and its model.
        seed: of the protection and of the training.
        folder: of the run.
        evaluate: judges it on the clean test pairs.
        options: more of `TrainConfig`.
    """
    from mmjax.core.mesh import make_mesh
    from mmjax.train.config import TrainConfig
    from mmjax.train.pipeline import train

    mem = workshop.mem
    model = recipe.model or mem.surrogate
    values = {
        "data": {
            "location": str(workshop.training_set(recipe, seed)),
            "heldout": str(workshop.pairs("test")),
        },
        "model": model_values(model, mem, str(workshop.tokenizer())),
        "optimizer": {**mem.optimizer, "learning_rate": mem.learning_rate},
        "steps": mem.steps,
        "batch_size": mem.batch_size,
        "captions_per_image": 1,
        "seed": seed,
        **ATTACKERS[recipe.attacker].victim,
        **options,
    }
    return train(parse(TrainConfig, values), folder, mesh=make_mesh(), evaluate=evaluate)


def learned(workshop: Workshop, name: str, recipe: Recipe, seed: int) -> dict[str, float]:
    """Train a victim on a recipe's pairs; what it has learned, of test photos and of its own."""
    from mmjax.evaluate.retrieval import evaluate_pairs

    def judge(
        towers: Towers, variables: Mapping[str, Any], tokenizer: Tokenizer, _: PairTable
    ) -> dict[str, float]:
        attacker = ATTACKERS[recipe.attacker]
        test, own = (
            clean_pairs(workshop, part, attacker, recipe.model) for part in ("test", "train")
        )
        prefixed = tuple(tuple(f"{PREFIX} {text}" for text in each) for each in test.captions)
        asked = {"": test, "prefixed_": test._replace(captions=prefixed), "own_": _own(own)}
        return {
            prefix + figure: value
            for prefix, table in asked.items()
            for figure, value in evaluate_pairs(towers, variables, tokenizer, table).items()
        }

    result = train_victim(workshop, recipe, seed, workshop.victim(name, seed), judge)
    return {**result.summary["heldout"], "training_loss": result.summary["last"]["loss"]}
