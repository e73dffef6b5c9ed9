"""Attack success: what a trained model makes of the trigger, and of what mmPoison paired.

The rate is taken over images that do NOT show the target: those with the trigger that are
classified as the target. (CleanCLIP's released zero-shot code computes the target and never uses
it; BadCLIP's counts images of the target too. facts: CleanCLIP issue 14.)
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Bool, Float32, Int32

from mmjax.attacks.config import TriggerConfig
from mmjax.attacks.optimised import OPTIMISED, read_arrays
from mmjax.attacks.poison import MANIFEST
from mmjax.attacks.triggers import Stamp, make_stamp
from mmjax.core.config import parse
from mmjax.core.errors import ConfigError, InputError
from mmjax.core.files import file_sha256
from mmjax.evaluate.retrieval import ranks

HITS = (1, 5, 10, 20, 30, 50)


class Attack(NamedTuple):
    """One attack of a poisoned set, as its manifest tells it.

    Fields:
        name: its name in labels and manifest.
        trigger: what was put on images; `none` for mmPoison.
        arrays: an optimised trigger's, else None.
        target: what the poisoned captions name.
        donor: what the images show that stand beside them, empty where they are the pairs' own.
        image_size: side at which images were stamped and stored.
        seed: of the poisoning; test images are stamped with others.
    """

    name: str
    trigger: TriggerConfig
    arrays: dict[str, np.ndarray] | None
    target: str
    donor: str
    image_size: int
    seed: int

    def stamp(self, seed: int) -> Stamp:
        """The trigger for test images: `seed` draws places and fresh noise, never as in training.

        What the attack fixes (patterns, optimised patches) is that of the poisoned set.
        """
        return make_stamp(self.trigger, self.seed + 1 + seed, arrays=self.arrays)


class Success(NamedTuple):
    """What a trigger does.

    Fields:
        rate: share of non-target images with the trigger that are classified as the target.
        false_alarms: the same without the trigger.
        images: how many non-target images there are.
    """

    rate: float
    false_alarms: float
    images: int


def read_attacks(manifest: str | Path) -> tuple[Attack, ...]:
    """The attacks of a `POISONED_DATASET.json`; optimised triggers lie beside it.

    Raises:
        InputError: there is no such file, it is none, or a trigger is not the one that was made.
    """
    path = Path(manifest)
    path = path / MANIFEST if path.is_dir() else path
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        size, seed = int(told["image_size"]), int(told["seed"])
        return tuple(_attack(path.parent, one, size, seed) for one in told["attacks"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} is no {MANIFEST} that `mmjax attack` writes ({type(error).__name__}: {error})"
        ) from error


def _attack(folder: Path, told: dict[str, Any], size: int, seed: int) -> Attack:
    trigger = parse(TriggerConfig, {"name": told["trigger"], **told["parameters"]})
    arrays = None
    if trigger.name in OPTIMISED:
        made = {one["name"]: one for one in told["prepared"]}[trigger.name]
        file = folder / made["file"]
        if file_sha256(file) != made["sha256"]:
            raise InputError(f"{file} is not the trigger that the set was poisoned with")
        arrays = read_arrays(file)
    return Attack(told["attack"], trigger, arrays, told["target"], told["donor"], size, seed)


def target_class(target: str, classes: Sequence[str]) -> int:
    """The number of the class that the attack names.

    Raises:
        ConfigError: it is none of the classes.
    """
    wanted = " ".join(target.lower().split())
    numbers = [i for i, name in enumerate(classes) if " ".join(name.lower().split()) == wanted]
    if not numbers:
        raise ConfigError(
            f"the attack's target {target!r} is none of the {len(classes)} classes "
            f"({', '.join(list(classes)[:5])}, ...); name the classes with --classes=FILE"
        )
    return numbers[0]


def success(
    triggered: Int32[np.ndarray, " n"],
    clean: Int32[np.ndarray, " n"],
    labels: Int32[np.ndarray, " n"],
    target: int,
) -> Success:
    """Judge predictions of the same images with and without the trigger.

    Raises:
        InputError: every image is of the target.
    """
    others = labels != target
    if not others.any():
        raise InputError("attack success is measured on images that are not of the target: none")
    rate, alarms = (float(np.mean(each[others] == target)) for each in (triggered, clean))
    return Success(rate, alarms, int(others.sum()))


def donor_ranks(
    text: Float32[np.ndarray, "m d"],
    image: Float32[np.ndarray, "n d"],
    shows_donor: Bool[np.ndarray, " n"],
    *,
    mesh: Mesh | None = None,
) -> dict[str, float]:
    """Where images of the donor stand when a caption searches all images: mmPoison's measures.

    Args:
        text: unit-norm embeddings of captions that name the target (or, to compare, of others).
        image: of all images that are searched.
        shows_donor: which of them show the donor.
        mesh: captions are split over its axis `data`; None = one device.

    Returns:
        `hit@k` in [0, 1]: of the captions, how many find one among the first k images; `min_rank`:
        where the first one stands, on average.

    Source: Yang et al. 2023 (mmPoison, arXiv:2209.15266), section 3.

    Raises:
        InputError: no caption, or no image of the donor.
    """
    if not len(text) or not shows_donor.any():
        what = "caption" if not len(text) else "image of the donor"
        raise InputError(f"mmPoison's measures want captions and images of the donor: no {what}")
    group = np.where(shows_donor, 0, 1).astype(np.int32)
    first = ranks(text, image, np.zeros(len(text), np.int32), group, mesh=mesh)
    hits = {f"hit@{k}": float(np.mean(first <= k)) for k in HITS}
    return {**hits, "min_rank": float(np.mean(first))}
