"""Beyond the paper: a grid of hard cases, sets without poison, and the false-discovery rate."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool

from mmjax.attacks.config import AttackConfig
from mmjax.core import keys
from mmjax.evaluate.cells import cell_path, clean_row, detector_rows, keep
from mmjax.evaluate.cfbd_cells import run_cells
from mmjax.evaluate.cfbd_set import attack_config, identity, mixture_config, settings
from mmjax.evaluate.clean_set import CleanSet, embed_captions, plant
from mmjax.evaluate.embedding_cases import CASES, fit_base, read_base
from mmjax.evaluate.embedding_cases import plant as plant_embeddings
from mmjax.evaluate.experiment import ReproduceConfig, Rows, Say
from mmjax.evaluate.planted import (
    Planted,
    least_alike,
    move_captions,
    move_images,
    write_captions,
)
from mmjax.scan import stages
from mmjax.scan.detection import measure
from mmjax.scan.detectors import EncodedSet
from mmjax.scan.kept import Memory

SHOWN = ("cfbd_robust", "cfbd_fine", "cfbd_coarse", "clip_score", "safeclip", "caption_count")
"""The detectors of the grid."""
ASKED = (0.01, 0.05, 0.1, 0.2)
"""False-discovery rates that are asked for."""
ON_SCENES = ("badnets", "blended", "badnets_natural")
ON_EMBEDDINGS = (
    "BadNets, templates",
    "ten targets, 2 % shuffled",
    "natural: snow",
    "natural: dog",
    "nothing",
    "nothing, 2 % shuffled",
    "nothing, one caption on 200 photos",
)


@dataclasses.dataclass(frozen=True)
class Stress:
    """What a case plants.

    `attackers` are files of configs/attack, which share the poisoned pairs with the targets; a
    rate of None is the experiment's. `shuffled` of the clean pairs exchange captions, `decoys` get
    one that fits them least. Each of `boilerplate` captions stands on `copies` random images, word
    by word or with a number that is always another; each of `reused` images has `copies` captions.
    """

    rate: float | None = None
    count: int = 0
    attackers: tuple[str, ...] = ("badnets",)
    targets: int = 1
    captions: Literal["template", "paraphrase", "natural"] = "template"
    shuffled: float = 0.0
    decoys: float = 0.0
    boilerplate: int = 0
    numbered: bool = False
    reused: int = 0
    copies: int = 100


NOTHING = Stress(rate=0.0)
ZERO: dict[str, Stress] = {
    "nothing": NOTHING,
    "nothing, one caption on 200 images": dataclasses.replace(NOTHING, boilerplate=1, copies=200),
    "nothing, four captions on 100 images each": dataclasses.replace(NOTHING, boilerplate=4),
    "nothing, three captions, each numbered, on 100 images": dataclasses.replace(
        NOTHING, boilerplate=3, numbered=True
    ),
    "nothing, one image with 100 captions": dataclasses.replace(NOTHING, reused=1),
}
"""Sets without poison."""
STRESS: dict[str, Stress] = {
    "1 %": Stress(rate=0.01),
    ".6 %": Stress(rate=0.006),
    ".3 %": Stress(rate=0.003),
    ".05 %": Stress(rate=0.0005),
    "30 pairs": Stress(count=30),
    "3 targets": Stress(targets=3),
    "10 targets": Stress(targets=10),
    "two attackers": Stress(attackers=("badnets", "blended"), targets=2),
    "1 % shuffled": Stress(shuffled=0.01),
    "2 % shuffled": Stress(shuffled=0.02),
    "5 % shuffled": Stress(shuffled=0.05),
    "10 targets, 2 % shuffled": Stress(targets=10, shuffled=0.02),
    "paraphrased captions": Stress(captions="paraphrase"),
    "natural captions": Stress(captions="natural"),
    "1 % decoys": Stress(decoys=0.01),
    "boilerplate, four captions on 100 images each": Stress(boilerplate=4),
    **{name: ZERO[name] for name in list(ZERO)[:3]},
    "nothing, 2 % shuffled": dataclasses.replace(NOTHING, shuffled=0.02),
}
"""The grid."""


class Made(NamedTuple):
    """A case made, and which of its clean pairs are wrong ones."""

    planted: Planted
    wrong: Bool[np.ndarray, " n"]


def stress(config: ReproduceConfig, out: Path, say: Say) -> Rows:
    """The grid."""
    return _grid(config, out, say, STRESS)


def zero(config: ReproduceConfig, out: Path, say: Say) -> Rows:
    """Sets without poison; what the robust mode flags all the same."""
    return _grid(config, out, say, ZERO)


def _grid(config: ReproduceConfig, out: Path, say: Say, cases: dict[str, Stress]) -> Rows:
    def cell(name: str):
        def make(clean: CleanSet, seed: int) -> Rows:
            return case_rows(clean, make_case(cases[name], config, clean, seed), seed)

        return {"case": name}, make

    return run_cells(config, out, say, [cell(name) for name in cases])


def case_rows(clean: CleanSet, made: Made, seed: int) -> Rows:
    """The rows of a case, with what became of its wrong pairs in that of the robust mode."""
    encoded, poisoned = clean.encoded(made.planted, seed), made.planted.poisoned
    found = detector_rows(encoded, poisoned, SHOWN) if poisoned.any() else [clean_row(encoded)]
    judged = encoded.robust.scores.verdict[made.wrong]
    told = {
        "wrong": int(made.wrong.sum()),
        "wrong_as_poisoned": int((judged == stages.VERDICTS.index("poisoned")).sum()),
        "wrong_as_mismatched": int((judged == stages.VERDICTS.index("mismatched")).sum()),
    }
    return [row | told if row["name"] == "cfbd_robust" else row for row in found]


def make_case(case: Stress, config: ReproduceConfig, clean: CleanSet, seed: int) -> Made:
    """Plant a case; the pairs that are no poison but look like it are drawn apart from it."""
    made = plant(clean, case_attack(case, config, clean, seed))
    rng = keys.host(seed, "stress")
    valid = np.concatenate([block.valid for block in made.blocks])
    free = rng.permutation(np.flatnonzero(valid & ~made.poisoned))
    wrong = np.zeros(valid.size, bool)

    def take(count: int) -> np.ndarray:
        nonlocal free
        taken, free = free[:count], free[count:]
        return taken

    rows = take(round(case.shuffled * valid.size))
    made, wrong[rows] = move_captions(made, rows, np.roll(rows, 1)), True
    rows = take(round(case.decoys * valid.size))
    if rows.size:
        others = rng.choice(free, min(1000, free.size), replace=False)
        made, wrong[rows] = move_captions(made, rows, least_alike(made, rows, others)), True
    for _ in range(case.boilerplate):
        rows = take(case.copies)
        if case.numbered:
            words = made.captions[rows[0]]
            captions = [f"{words}, number {i}" for i in range(1, rows.size + 1)]
            made = write_captions(
                made, rows, captions, lambda words: embed_captions(clean.encoder, words)
            )
        else:
            made = move_captions(made, rows, np.repeat(rows[:1], rows.size))
    for _ in range(case.reused):
        rows = take(case.copies)
        made = move_images(made, rows, np.repeat(rows[:1], rows.size))
    return Made(made, wrong)


def case_attack(
    case: Stress, config: ReproduceConfig, clean: CleanSet, seed: int
) -> AttackConfig | None:
    """The attack of a case; None where nothing is poisoned."""
    chosen = settings(config)
    rate = chosen.rate if case.rate is None else case.rate
    count = case.count or round(rate * len(clean.captions))
    if not count:
        return None
    targets = (chosen.target, *chosen.others)[: case.targets]
    parts = [
        {
            "trigger": case.attackers[i % len(case.attackers)],
            "captions": case.captions,
            "target": target,
            "count": max(count // case.targets, 1),
        }
        for i, target in enumerate(targets)
    ]
    return mixture_config(parts, config, clean, seed=seed)


def false_discoveries(config: ReproduceConfig, out: Path, say: Say) -> Rows:
    """The realised false-discovery rate of the robust mode, by the rate asked for.

    On scenes; with `config.data` on flickr8k_embeddings instead.
    """
    if config.data and config.scale == "small":
        return _on_embeddings(config, out, say)

    def cell(name: str):
        def make(clean: CleanSet, seed: int) -> Rows:
            made = plant(clean, attack_config(name, config, clean, seed=seed))
            return realised(clean.encoded(made, seed), made.poisoned)

        return {"case": f"scenes: {name}"}, make

    return run_cells(config, out, say, [cell(name) for name in ON_SCENES])


def _on_embeddings(config: ReproduceConfig, out: Path, say: Say) -> Rows:
    base, rows = read_base(Path(config.data)), []
    mapping = fit_base(base)
    for seed in config.seeds:
        for name in ON_EMBEDDINGS:

            def make(name: str = name, seed: int = seed) -> Rows:
                made = plant_embeddings(base, CASES[name], seed)
                encoded = EncodedSet(made.blocks, made.captions, mapping, seed=seed)
                return realised(encoded, made.poisoned)

            case = f"embeddings: {name}"
            found = keep(
                cell_path(out, identity(config), config.experiment, case, seed),
                make,
                lambda case=case, seed=seed: say(f"case {case}, seed {seed}"),
            )
            rows += [{"case": case, "seed": seed, **row} for row in found]
    return rows


def realised(
    encoded: EncodedSet, poisoned: Bool[np.ndarray, " n"], asked: Sequence[float] = ASKED
) -> Rows:
    """The share of clean pairs among those flagged as poisoned, 0 where none is flagged.

    The scores are those of the first rate; only the decision is made anew for the others.
    """
    rows: Rows = []
    recall = Memory()
    for fdr in asked:
        config = dataclasses.replace(encoded.config, fdr=fdr)
        result = stages.score(
            encoded.blocks, encoded.mapping, config, mesh=encoded.mesh, recall=recall
        )
        flags = result.scores.verdict == stages.VERDICTS.index("poisoned")
        found = measure(result.scores.poison_score, poisoned, flags=flags)
        told: dict[str, Any] = dataclasses.asdict(found)
        share = (found.clean_lost or 0) / max(found.flagged or 0, 1)
        told |= {"fdr_asked": fdr, "fdr_realised": share}
        rows.append({**told, "expected_fdr": result.thresholds.expected_fdr})
    return rows
