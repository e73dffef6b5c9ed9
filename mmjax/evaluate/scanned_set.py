"""A poisoned copy of a clean set: what models learn from, and what scans keep of it."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool

from mmjax.attacks.config import AttackConfig
from mmjax.evaluate.attack_success import Attack, read_attacks
from mmjax.evaluate.clean_set import CleanSet, embed_pairs
from mmjax.evaluate.planted import Planted, replace_rows
from mmjax.evaluate.training_set import (
    TrainingSet,
    Victims,
    poisoned_copy,
    with_victims,
)
from mmjax.scan import stages
from mmjax.scan.detectors import EncodedSet
from mmjax.scan.stages import COARSE, VERDICTS


class Scanned(NamedTuple):
    """A poisoned set: what it holds, who did it, and which of its rows the scans keep."""

    pairs: TrainingSet
    attack: Attack
    poisoned: Bool[np.ndarray, " n"]
    kept: Callable[[str], Bool[np.ndarray, " n"]]


def poison_and_scan(
    clean: CleanSet, pairs: TrainingSet, config: AttackConfig, folder: Path, seed: int
) -> Scanned:
    """Poison a copy of a clean set in a folder, once, and scan it.

    Args:
        clean: the set with its embeddings; of poisoned pairs alone they are made anew.
        pairs: the same at the size of the models that learn.
        config: the attack.
        folder: for the copy.
        seed: of the scan.

    Raises:
        ConfigError: the set does not offer what the attack wants.
    """
    victims = poisoned_copy(clean.source, config, folder)
    poisoned = np.zeros(len(clean.captions), bool)
    poisoned[victims.rows] = True
    (attack,) = read_attacks(folder)
    encoded = clean.encoded(plant_victims(clean, victims, attack.name), seed)
    kept = functools.cache(lambda scan: kept_rows(encoded, scan))
    return Scanned(with_victims(pairs, victims), attack, poisoned, kept)


def plant_victims(clean: CleanSet, victims: Victims, label: str) -> Planted:
    """The clean set's embeddings with those of poisoned pairs in their place."""
    image, text = embed_pairs(clean.encoder, victims.pairs)
    captions, labels = list(clean.captions), [""] * len(clean.captions)
    for row, pair in zip(victims.rows.tolist(), victims.pairs, strict=True):
        captions[row], labels[row] = pair.caption or "", label
    return Planted(
        replace_rows(clean.blocks, victims.rows, image=image, text=text), captions, labels
    )


def kept_rows(encoded: EncodedSet, scan: str) -> Bool[np.ndarray, " n"]:
    """The rows that are trained on after a scan.

    Args:
        encoded: the set.
        scan: coarse = D_b of the paper's coarse stage; paper = all but those that its fine stage
            flags by rule R1; robust = all but those that the robust mode flags.
    """
    if scan == "coarse":
        return encoded.paper.scores.coarse == COARSE.index("benign")
    if scan == "robust":
        return encoded.robust.scores.verdict != VERDICTS.index("poisoned")
    by_rule = dataclasses.replace(encoded.config, mode="paper", gamma_z="auto")
    found = stages.score(encoded.blocks, encoded.mapping, by_rule, mesh=encoded.mesh)
    return found.scores.verdict != VERDICTS.index("poisoned")
