"""Poisoned versions of `flickr8k_embeddings`: real encoders, three triggers, hard captions.

The folder holds image and caption embeddings of Flickr8k by two pre-trained encoders, and 1,200
photos stamped before they were encoded (facts/cfbd.md 8). A case poisons the 4,091 photos that
neither encoder nor mapping network was fitted on; every detector sees the same pairs.
"""

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from jaxtyping import Float32

from mmjax.core import keys
from mmjax.core.errors import InputError
from mmjax.core.mesh import make_mesh
from mmjax.evaluate.cells import cell_path, clean_row, detector_rows, keep
from mmjax.evaluate.planted import Planted, move_captions
from mmjax.scan.blocks import EmbeddingBlock
from mmjax.scan.detectors import EncodedSet
from mmjax.scan.fitting import Reference
from mmjax.scan.mapping import Mapping, fit_mapping
from mmjax.scan.options import MappingConfig

CAPTIONS = 5
"""Captions a photo."""
TEMPLATE_CLASS = 954
"""ImageNet's banana: the target of templates where there is one."""


@dataclasses.dataclass(frozen=True)
class Case:
    """What is planted.

    `poison` pairs of stamped photos, with captions from templates about `targets` classes or, if
    `word` is set, with other photos' captions that have that word; `shuffled` of the clean
    captions exchanged; one caption on `repeated` random photos.
    """

    trigger: Literal["badnets", "blended", "sig"] = "badnets"
    poison: int = 153
    targets: int = 1
    word: str = ""
    shuffled: float = 0.0
    repeated: int = 0


CASES: dict[str, Case] = {
    "BadNets, templates": Case(),
    "Blended, templates": Case("blended"),
    "SIG, templates": Case("sig"),
    "25 poisons": Case(poison=25),
    "12 poisons": Case(poison=12),
    "ten targets": Case(targets=10),
    "ten targets, 2 % shuffled": Case(targets=10, shuffled=0.02),
    "templates, 5 % shuffled": Case(shuffled=0.05),
    "natural: guitar": Case(word="guitar"),
    "natural: bicycle": Case(word="bicycle"),
    "natural: snow": Case(word="snow"),
    "natural: dog": Case(word="dog"),
    "natural: snow, 2 % shuffled": Case(word="snow", shuffled=0.02),
    "nothing": Case(poison=0),
    "nothing, 2 % shuffled": Case(poison=0, shuffled=0.02),
    "nothing, one caption on 200 photos": Case(poison=0, repeated=200),
}


class Base(NamedTuple):
    """The folder's arrays. `captions` are the words, in the order of `text`."""

    image: Float32[np.ndarray, "n d"]
    text: Float32[np.ndarray, "n 5 d"]
    stamped: dict[str, Float32[np.ndarray, "s d"]]
    stamped_rows: np.ndarray
    templates: Float32[np.ndarray, "c t d"]
    classes: np.ndarray
    scanned: np.ndarray
    reference: np.ndarray
    captions: list[str]


def read_base(folder: Path) -> Base:
    """Read the data folder; the words come from `flickr8k/captions.tsv` beside it.

    Raises:
        InputError: a file is missing.
    """

    def array(name: str) -> np.ndarray:
        return np.load(folder / f"{name}.npy", allow_pickle=False)

    try:
        image, text = array("image").astype(np.float32), array("text").astype(np.float32)
        lines = (folder.parent / "flickr8k" / "captions.tsv").read_text("utf-8").splitlines()
        names = [case.trigger for case in (Case(), Case("blended"), Case("sig"))]
        stamped = {name: array(f"image_{name}").astype(np.float32) for name in names}
        fitted, reference = array("fit_A"), array("fit_A2")
        base = Base(
            image,
            text.reshape(len(image), CAPTIONS, -1),
            stamped,
            array("triggered_index"),
            array("templates").astype(np.float32),
            array("template_classes"),
            np.setdiff1d(np.arange(len(image)), np.concatenate([fitted, reference])),
            reference,
            [line.split("\t")[-1] for line in lines[-len(text) :]],
        )
    except OSError as error:
        raise InputError(f"{folder} is not the folder flickr8k_embeddings: {error}") from error
    return base


def plant(base: Base, case: Case, seed: int) -> Planted:
    """Make a case; the same seed stamps the same photos in every case of one size."""
    rng = keys.host(seed, "embedding case")
    rows = base.scanned
    image = np.repeat(base.image[rows], CAPTIONS, axis=0)
    text = base.text[rows].reshape(image.shape[0], -1).copy()
    words = [base.captions[r * CAPTIONS + i] for r in rows for i in range(CAPTIONS)]
    place = {int(r): i for i, r in enumerate(rows)}
    usable = np.flatnonzero([int(r) in place for r in base.stamped_rows])
    chosen = rng.choice(usable, case.poison, replace=False)
    at = np.array([place[int(base.stamped_rows[s])] * CAPTIONS for s in chosen], int)
    at = at + rng.integers(0, CAPTIONS, at.size)
    poisoned = np.zeros(text.shape[0], bool)
    poisoned[at] = True
    image[at] = base.stamped[case.trigger][chosen]
    if case.word:
        pattern = re.compile(rf"\b{case.word}\b", re.IGNORECASE)
        having = np.flatnonzero([bool(pattern.search(w)) for w in words] & ~poisoned)
        taken = rng.choice(having, case.poison, replace=having.size < case.poison)
        text[at] = text[taken]
        for target, source in zip(at, taken, strict=True):
            words[target] = words[source]
    else:
        one = np.flatnonzero(base.classes == TEMPLATE_CLASS)
        targets = one if case.targets == 1 else np.arange(case.targets)
        target, template = rng.choice(targets, at.size), rng.integers(0, 80, at.size)
        text[at] = base.templates[target, template]
        for i, pair in enumerate(at):
            words[pair] = f"template {template[i]} of class {base.classes[target[i]]}"
    block = EmbeddingBlock(
        image.astype(np.float16), text.astype(np.float16), np.ones(poisoned.size, bool)
    )
    made = Planted([block], words, [case.trigger if bad else "" for bad in poisoned])
    clean = rng.permutation(np.flatnonzero(~poisoned))
    some = clean[: round(case.shuffled * clean.size)]
    made = move_captions(made, some, rng.permutation(some))
    copies = clean[clean.size - case.repeated :]
    return move_captions(made, copies, np.repeat(copies[:1], copies.size))


def run_cases(
    data: str, seeds: tuple[int, ...], out: Path, say: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Every detector on every case; a cell that is in `out` is not run again.

    Raises:
        InputError: `data` is not the folder.
    """
    base, rows = read_base(Path(data)), []
    mapping = fit_base(base)
    for name, case in CASES.items():
        for seed in seeds:
            found = keep(
                cell_path(out, data, name, seed),
                lambda case=case, seed=seed: _cell(base, case, seed, mapping),
                lambda name=name, seed=seed: say(f"{name}, seed {seed}"),
            )
            rows += [{"case": name, "seed": seed, **line} for line in found]
    return rows


def fit_base(base: Base) -> Mapping:
    """F, in closed form, on the photos kept for that."""
    reference = Reference(
        base.image[base.reference],
        base.text[base.reference].reshape(-1, base.image.shape[1]),
        np.repeat(np.arange(base.reference.size), CAPTIONS),
    )
    return fit_mapping(
        reference,
        MappingConfig(kind="ridge"),
        weights_fingerprint="embeddings",
        key=jax.random.key(0),
        mesh=make_mesh(),
    )


def _cell(base: Base, case: Case, seed: int, mapping: Mapping) -> list[dict[str, Any]]:
    made = plant(base, case, seed)
    encoded = EncodedSet(made.blocks, made.captions, mapping, seed=seed)
    if not made.poisoned.any():
        return [clean_row(encoded)]
    return detector_rows(encoded, made.poisoned)
