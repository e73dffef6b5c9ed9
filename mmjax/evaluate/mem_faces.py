"""MEM's case study, Table 4 and Figure 7: faces with invented names.

A set of people with a folder each (or `labels.tsv`) becomes pairs: every person gets a name that
nobody has, every photo that is learned from a caption with it. Victims are asked about photos of
the same people that are in no training set, by one caption a person: a photo's answer is the
caption of its person, a caption's any photo of its person, the best-placed one.
"""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int32
from PIL import Image

from mmjax.core import keys
from mmjax.core.errors import InputError
from mmjax.data.pairs import PairTable
from mmjax.data.tokenizer import Tokenizer
from mmjax.evaluate.experiment import ReproduceConfig, Rows, Say
from mmjax.evaluate.mem import chosen, for_victims
from mmjax.evaluate.mem_methods import CLEAN, PROTECTIONS
from mmjax.evaluate.mem_sets import Recipe, Workshop, of_set, png_of, rows_of
from mmjax.evaluate.mem_settings import image_size, model_values, settings
from mmjax.evaluate.mem_victims import cells, clean_pairs, train_victim, workshop_at
from mmjax.models.clip import Towers

TEMPLATES = (
    "a photo of {}",
    "this is {}",
    "a portrait of {}",
    "{} looks at the camera",
    "my neighbour {}",
    "{} in the news",
    "the face of {}",
    "{} last summer",
)
"""Captions of photos that are learned from; the first one asks."""
TABLE4 = (CLEAN, "em_matched", "mem_3", "mem_plus")
FIGURE7 = (CLEAN, "mem_3")
SHOWN, ANSWERS = 4, 3
"""People of Figure 7, and the names that a victim thinks likeliest."""
# fmt: off
_SYLLABLES = ("ba", "dro", "fen", "gil", "hos", "jun", "kel", "lor", "mav", "nem",
              "pir", "quo", "rus", "sil", "tav", "ulm", "vex", "wen", "yor", "zad")
# fmt: on


def table4(config: ReproduceConfig, out: Path, say: Say) -> Rows:
    """A row for every victim, set and seed, and one for every victim before its training."""
    workshop = open_faces(config, out, say)
    sets = chosen(config.mem.sets or TABLE4, PROTECTIONS, "sets")
    before = [
        _before(workshop, model, seed) for seed in config.seeds for model in workshop.mem.victims
    ]
    return [*before, *cells(workshop, for_victims(workshop, sets), recognised), _chance(workshop)]


def figure7(config: ReproduceConfig, out: Path, say: Say) -> Rows:
    """From photo to protection to answer: for each set and seed, some people; and chance."""
    workshop = open_faces(config, out, say)
    sets = chosen(config.mem.sets or FIGURE7, PROTECTIONS, "sets")
    recipes = {name: of_set(name) for name in dict.fromkeys((CLEAN, *sets))}
    rows = cells(workshop, recipes, recognised)
    return [*({**row, "people": _shown(workshop, row)} for row in rows), _chance(workshop)]


def _shown(workshop: Workshop, row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Of the first people: a pair that is learned from, and whose name a new photo gets.

    Photos are PNG files in base64.
    """
    from mmjax.core.mesh import local_mesh
    from mmjax.evaluate.embedding import load_embedder

    name, seed = row["name"], row["seed"]
    weights = f"mmjax-dir:{workshop.victim(name, seed) / 'model'}"
    embedder = load_embedder(weights, mesh=local_mesh())
    test = clean_pairs(workshop, "test")
    asked, people = people_of(test)
    clean = [pair["txt"].decode() for pair in rows_of(workshop.pairs("train"))]
    learned = list(rows_of(workshop.training_set(of_set(name), seed)))
    text = embedder.captions(asked)
    told = []
    for person, caption in enumerate(asked[:SHOWN]):
        called = TEMPLATES[0].split("{}")[0]
        right = caption.removeprefix(called)
        pair = learned[next(i for i, each in enumerate(clean) if right in each)]
        new = test.images[np.flatnonzero(people == person)[:1]]
        best = np.argsort(-(text @ embedder.images(new)[0]), kind="stable")[:ANSWERS]
        told.append(
            {
                "person": right,
                "photo": base64.b64encode(pair["png"]).decode(),
                "caption": pair["txt"].decode(),
                "new": base64.b64encode(png_of(Image.fromarray(new[0]))).decode(),
                "answers": [asked[i].removeprefix(called) for i in best],
            }
        )
    return told


def open_faces(config: ReproduceConfig, out: Path, say: Say) -> Workshop:
    """The workshop of these people, these settings and this code, in the run folder.

    Raises:
        InputError: the data are no set of people.
    """
    from mmjax.evaluate.labelled import open_labelled

    source = open_labelled(config.data).source
    data = [source.fingerprint(shard) for shard in source.shards]
    return workshop_at(data, Workshop(config, out, say, read_faces))


def names(count: int) -> list[str]:
    """Invented names, up to 380; no two share their first or their last one."""
    parts = [a + b for a in _SYLLABLES for b in _SYLLABLES if a != b]
    first, last = (keys.host(0, "names", i).permutation(len(parts))[:count] for i in range(2))
    return [f"{parts[a].title()} {parts[b].title()}n" for a, b in zip(first, last, strict=True)]


def read_faces(config: ReproduceConfig, part: str) -> PairTable:
    """Captioned photos of people that have enough of them, in random order within a person.

    Args:
        config: `data` names the set.
        part: `test`: the first photos of each, under the first template; `train`: those after
            them, each under templates in turn.

    Raises:
        InputError: the set cannot be read, or fewer than two people have enough photos.
    """
    from mmjax.data.pairs import read_table
    from mmjax.evaluate.labelled import open_labelled
    from mmjax.train.config import DataConfig

    mem, data = settings(config), DataConfig()
    table, _ = read_table(
        open_labelled(config.data).source,
        image_size(mem.surrogate),
        workers=data.workers,
        max_pixels=data.max_image_pixels,
        memory=data.memory_gb * 2**30,
    )
    person = np.array([int(each[0]) for each in table.captions])
    asked = mem.person_test_photos
    known = [p for p in np.unique(person) if np.sum(person == p) > asked][: mem.people]
    if len(known) < 2:
        raise InputError(f"{config.data} has no two people with more than {asked} photos each")
    photos: list[int] = []
    captions: list[tuple[str, ...]] = []
    for number, (one, name) in enumerate(zip(known, names(len(known)), strict=True)):
        own = np.flatnonzero(person == one)
        own = own[keys.host(0, "photos", number).permutation(len(own))]
        chosen = own[:asked] if part == "test" else own[asked : asked + mem.person_photos]
        photos += chosen.tolist()
        captions += [
            tuple(
                TEMPLATES[(place + turn) % len(TEMPLATES)].format(name)
                for turn in range(min(mem.captions, len(TEMPLATES)))
            )
            if part == "train"
            else (TEMPLATES[0].format(name),)
            for place in range(len(chosen))
        ]
    return PairTable(table.images[np.array(photos)], tuple(captions), table.skipped)


def people_of(table: PairTable) -> tuple[list[str], Int32[np.ndarray, " n"]]:
    """The captions that ask, one a person, and the person of every test photo."""
    texts = [each[0] for each in table.captions]
    asked = list(dict.fromkeys(texts))
    return asked, np.array([asked.index(text) for text in texts], np.int32)


def recognise(
    towers: Towers, variables: Mapping[str, Any], tokenizer: Tokenizer, table: PairTable
) -> dict[str, float]:
    """Retrieval of people between test photos and the captions that ask."""
    from mmjax.core.mesh import local_mesh
    from mmjax.evaluate.embedding import make_embedder
    from mmjax.evaluate.retrieval import group_retrieval

    mesh = local_mesh()
    embedder = make_embedder(towers, variables, tokenizer, mesh=mesh)
    asked, people = people_of(table)
    image, text = embedder.images(table.images[:]), embedder.captions(asked)
    return group_retrieval(image, text, people, np.arange(len(asked), dtype=np.int32), mesh=mesh)


def recognised(workshop: Workshop, name: str, recipe: Recipe, seed: int) -> dict[str, float]:
    """Train a victim on a recipe's faces; whom of the test photos it recognises."""
    result = train_victim(workshop, recipe, seed, workshop.victim(name, seed), recognise)
    return {**result.summary["heldout"], "training_loss": result.summary["last"]["loss"]}


def _before(workshop: Workshop, model: str, seed: int) -> dict[str, Any]:
    """The row of a victim that has not been trained on the faces."""
    import jax

    from mmjax.core.config import parse
    from mmjax.core.keys import stream
    from mmjax.learn.config import ModelConfig
    from mmjax.learn.start import fit_text, read_start
    from mmjax.models.clip import build
    from mmjax.models.policy import Policy

    values = model_values(model, workshop.mem, str(workshop.tokenizer()))
    config = parse(ModelConfig, values)
    test = clean_pairs(workshop, "test", model=model)
    start = read_start(config)
    shape, tokenizer, _ = fit_text(start, config, test, workshop.root)
    towers = build(shape, Policy(config.compute))
    variables = start.variables or towers.init(stream(jax.random.key(seed), "weights"))
    told = {"name": f"before@{model}", "set": "before training", "model": model, "seed": seed}
    return told | recognise(towers, variables, tokenizer, test)


def _chance(workshop: Workshop) -> dict[str, Any]:
    from mmjax.evaluate.retrieval import group_chance

    asked, people = people_of(clean_pairs(workshop, "test"))
    told = {"name": "chance", "set": "chance", "seed": None}
    told |= {"people": len(asked), "photos": len(people)}
    return told | group_chance(people, np.arange(len(asked), dtype=np.int32))
