"""The numbers behind MEM's Figures 4, 5 and 6; `mem_plots` draws them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Int32

from mmjax.core.errors import ConfigError
from mmjax.data.pairs import PairTable
from mmjax.data.tokenizer import Tokenizer, bucket_length
from mmjax.evaluate.attribution import heat_maps, project, word_attributions
from mmjax.evaluate.experiment import ReproduceConfig, Rows, Say
from mmjax.evaluate.mem import chosen
from mmjax.evaluate.mem_methods import CLEAN, PROTECTIONS
from mmjax.evaluate.mem_sets import Recipe, Workshop, of_set, rows_of
from mmjax.evaluate.mem_settings import image_size
from mmjax.evaluate.mem_victims import (
    by_chance,
    cells,
    clean_pairs,
    measured,
    open_workshop,
    train_victim,
)
from mmjax.models.clip import Towers

FIGURE4 = (CLEAN, "em_matched", "uap_8", "mem_3", "mem_5")
FIGURE5 = (CLEAN, "em_matched", "uap_8", "mem_3")
FIGURE6 = (CLEAN, "mem_3")
FIRST_WORDS = 3
"""Where the triggers of MEM-3 stood."""
MEDR = ("image_to_text_medr", "text_to_image_medr")
"""What the curves show beside the loss."""
SHOWN = 3
"""Pairs of a picture; figures are means over `_ASKED`."""
_ASKED = 200
_PLACED = 50


class Victim(NamedTuple):
    """A trained victim, frozen."""

    towers: Towers
    variables: Mapping[str, Any]
    tokenizer: Tokenizer


def figure4(config: ReproduceConfig, out: Path, say: Say) -> Rows:
    """Loss and MedR by epoch, a row a set and seed; and chance."""
    names = config.mem.sets or FIGURE4
    workshop = open_workshop(config, out, say)
    sets = chosen(names, PROTECTIONS, "sets")
    rows = cells(workshop, {name: of_set(name) for name in sets}, curves)
    return [*rows, by_chance(workshop)]


def curves(workshop: Workshop, name: str, recipe: Recipe, seed: int) -> dict[str, list[float]]:
    """Train a victim that is asked after every epoch: as many steps as see all pairs once.

    Raises:
        ConfigError: the training is shorter than an epoch.
    """
    from mmjax.evaluate.retrieval import evaluate_pairs
    from mmjax.train import record
    from mmjax.train.pipeline import HELDOUT

    mem = workshop.mem
    epoch = -(-sum(1 for _ in rows_of(workshop.pairs("train"))) // mem.batch_size)
    if mem.steps < epoch:
        raise ConfigError(f"an epoch has {epoch} steps, config.mem.steps is {mem.steps}; raise it")
    folder = workshop.root / "curves" / f"{name}-{seed}"
    every = {"evaluate_every": epoch, "log_every": 1}
    train_victim(workshop, recipe, seed, folder, evaluate_pairs, **every)
    losses = [line["loss"] for line in record.read(folder / "metrics.jsonl")]
    asked = record.read(folder / HELDOUT)
    return {
        "loss": [float(np.mean(losses[e["step"] - epoch : e["step"]])) for e in asked],
        **{key: [each[key] for each in asked] for key in MEDR},
    }


def figure5(config: ReproduceConfig, out: Path, say: Say) -> Rows:
    """What the victims of the paper's four models look at; a row a set and seed."""
    names = tuple(chosen(config.mem.sets or FIGURE5, PROTECTIONS, "sets"))
    workshop = open_workshop(config, out, say)
    measured(workshop, {name: of_set(name) for name in dict.fromkeys((CLEAN, *names))})
    test = clean_pairs(workshop, "test")
    images = test.images[:_ASKED]
    captions = [each[0] for each in test.captions[:_ASKED]]
    rows: Rows = []
    for seed in config.seeds:
        usual: Float32[np.ndarray, "n h w"] | None = None
        for name in dict.fromkeys((CLEAN, *names)):
            victim = load_victim(workshop, name, seed)
            tokens = encode(victim.tokenizer, captions)
            heat = heat_maps(victim.towers, victim.variables, images, tokens)
            usual = heat if usual is None else usual
            words = word_attributions(victim.towers, victim.variables, images, tokens)
            size = np.abs(words.values)
            first = size[:, 1 : 1 + FIRST_WORDS].sum(axis=1) / np.maximum(size.sum(axis=1), 1e-12)
            shown = [
                [victim.tokenizer.decode([int(t)]) for t in row[1 : int(np.argmax(row))]]
                for row in tokens[:SHOWN]
            ]
            rows.append(
                {
                    "name": name,
                    "set": PROTECTIONS[name],
                    "seed": seed,
                    "first_words": float(first.mean()),
                    "completeness_gap": words.gap,
                    "cosine": float(words.cosine.mean()),
                    "like_clean": _correlation(heat, usual),
                    "pixels": images[:SHOWN].tolist() if name == CLEAN else None,
                    "heat": heat[:SHOWN].tolist(),
                    "words": shown,
                    "values": [
                        values[1 : 1 + len(each)].tolist()
                        for values, each in zip(words.values, shown, strict=False)
                    ],
                }
            )
    return rows


def figure6(config: ReproduceConfig, out: Path, say: Say) -> Rows:
    """Training pairs in the plane, each set as its own victim sees it; a row a set and seed."""
    from mmjax.train.batches import Place, read_pairs
    from mmjax.train.config import DataConfig

    names = tuple(chosen(config.mem.sets or FIGURE6, PROTECTIONS, "sets"))
    workshop = open_workshop(config, out, say)
    measured(workshop, {name: of_set(name) for name in names})
    size = image_size(workshop.mem.surrogate)
    rows: Rows = []
    for seed in config.seeds:
        for name in names:
            folder = workshop.training_set(of_set(name), seed)
            table = _first(read_pairs(Place(str(folder)), size, DataConfig()), _PLACED)
            victim = load_victim(workshop, name, seed)
            tokens = encode(victim.tokenizer, [t for each in table.captions for t in each])
            image = np.asarray(victim.towers.encode_image(victim.variables, table.images[:]))
            text = np.asarray(victim.towers.encode_text(victim.variables, tokens))
            plane = project(np.concatenate([image, text]))
            own = np.sum(image[table.owners] * text, axis=1)
            others = image[np.roll(table.owners, len(table.owners) // 2)]
            rows.append(
                {
                    "name": name,
                    "set": PROTECTIONS[name],
                    "seed": seed,
                    "matched_cosine": float(own.mean()),
                    "other_cosine": float(np.sum(others * text, axis=1).mean()),
                    "captions_cosine": _among_captions(text, table.owners),
                    "images_at": plane[: len(image)].tolist(),
                    "captions_at": plane[len(image) :].tolist(),
                    "owners": table.owners.tolist(),
                }
            )
    return rows


def load_victim(workshop: Workshop, name: str, seed: int) -> Victim:
    """The trained victim of a set, frozen in float32."""
    from mmjax.learn.pretrained import load_pretrained
    from mmjax.models.clip import build, freeze

    loaded, tokenizer = load_pretrained(f"mmjax-dir:{workshop.victim(name, seed) / 'model'}")
    towers, variables = freeze(build(loaded.preset), loaded.variables, "float32")
    return Victim(towers, variables, tokenizer)


def encode(tokenizer: Tokenizer, captions: list[str]) -> Int32[np.ndarray, "n l"]:
    """Token ids, cut to the bucket of the longest."""
    tokens = tokenizer.encode(captions)
    return tokens.ids[:, : bucket_length(int(tokens.lengths.max()), tokenizer.context_length)]


def _first(table: PairTable, captions: int) -> PairTable:
    """The first images that have so many captions together."""
    count = int(np.searchsorted(table.owners, table.owners[:captions][-1], side="right"))
    images = int(table.owners[count - 1]) + 1
    return table._replace(images=table.images[:images], captions=table.captions[:images])


def _correlation(
    one: Float32[np.ndarray, "n h w"], other: Float32[np.ndarray, "n h w"]
) -> float | None:
    """The mean correlation of two victims' heat maps, where both are not the same everywhere."""
    a, b = (x.reshape(len(x), -1) - x.mean(axis=(1, 2))[:, None] for x in (one, other))
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    vary = norms > 0
    return float(np.mean(np.sum(a * b, axis=1)[vary] / norms[vary])) if vary.any() else None


def _among_captions(
    text: Float32[np.ndarray, "m d"], owners: Int32[np.ndarray, " m"]
) -> float | None:
    """The mean cosine of captions of one photo; None where photos have one each."""
    same = np.triu(owners[:, None] == owners[None], 1)
    return float((text @ text.T)[same].mean()) if same.any() else None
