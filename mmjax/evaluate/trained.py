"""One trained model of a results table: what it learned from, how well it reads, what fools it."""

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import pyarrow.parquet as pq
from jaxtyping import Bool, Int32, UInt8

from mmjax.attacks.templates import TEMPLATES
from mmjax.attacks.victims import names_target
from mmjax.core.mesh import make_mesh
from mmjax.data.pairs import PairTable
from mmjax.data.scenes import CLASSES, scene_arrays
from mmjax.evaluate.attack_success import Attack, donor_ranks, success, target_class
from mmjax.evaluate.embedding import Embedder, class_embeddings, fit, load_embedder
from mmjax.evaluate.experiment import TrainedConfig
from mmjax.evaluate.zeroshot import accuracy, nearest_classes
from mmjax.learn.config import ModelConfig, OptimizerConfig
from mmjax.ops.quality import psnr, ssim
from mmjax.scan import detection
from mmjax.train.config import DataConfig, TrainConfig
from mmjax.train.isolation import LOSSES
from mmjax.train.pipeline import train

PROMPTS = tuple(template.rstrip(" .") for template in TEMPLATES)
"""CLIP's kind of prompts without the full stop, which no caption of the scenes has."""
_JUDGED = 9_000
"""Series of the scenes that models are judged on; nothing learns from them."""


class Judged(NamedTuple):
    """Scenes with one object each as they are stored: what they show, and a caption of each."""

    images: UInt8[np.ndarray, "n s s 3"]
    labels: Int32[np.ndarray, " n"]
    captions: tuple[str, ...]


def judged_scenes(count: int, size: int, seed: int) -> Judged:
    """The scenes that the models of a seed are judged on."""
    scenes = scene_arrays(count, _JUDGED + seed, size, two_objects=0.0)
    return Judged(scenes.images, scenes.object_class, tuple(c[0] for c in scenes.captions))


def train_config(
    config: TrainedConfig, *, rate: float, seed: int, defence: str = "none", weights: str = ""
) -> TrainConfig:
    """A training of the tables.

    Args:
        config: of all trainings.
        rate: peak learning rate.
        seed: of everything that is drawn.
        defence: a name of `train.defence`.
        weights: to start from; empty = the configuration's.
    """
    made = TrainConfig(
        data=DataConfig(heldout_scenes=0),
        model=ModelConfig(weights=weights or config.weights, compute="float32"),
        optimizer=OptimizerConfig(learning_rate=rate),
        steps=config.steps,
        batch_size=config.batch_size,
        checkpoint_every=100,
        seed=seed,
    )
    chosen: Any = {"name": defence}
    return dataclasses.replace(made, defence=dataclasses.replace(config.defence, **chosen))


def train_model(config: TrainConfig, pairs: PairTable, out: Path) -> str:
    """Train on pairs; the same call goes on where a killed one stopped.

    Returns:
        The model, as `load_weights` takes it. Of the run its checkpoints are removed.
    """
    model = out / "model" / "mmjax_config.json"
    if not model.exists():
        train(config, out, mesh=make_mesh(config.mesh), pairs=pairs)
        shutil.rmtree(out / "checkpoints", ignore_errors=True)
    return f"mmjax-dir:{model.parent}"


def isolation(run: Path, poisoned: Bool[np.ndarray, " n"]) -> dict[str, float | None]:
    """How well the losses that ABL recorded rank poison first.

    Args:
        run: the training's folder.
        poisoned: the truth of the pairs that it learned from, in their order.

    Returns:
        `isolation_auroc`, and `isolation_recall`: the share of the poison among as many pairs of
        lowest loss as there is poison.
    """
    recorded = pq.read_table(run / LOSSES, columns=["loss"])["loss"].to_pylist()
    found = detection.measure(-np.mean(recorded, axis=1), poisoned)
    return {"isolation_auroc": found.auroc, "isolation_recall": found.recall_at_poisoned}


def measure(
    model: str, judged: Judged, attack: Attack | None, seeds: Sequence[int]
) -> dict[str, float]:
    """Zero-shot accuracy on the judged scenes, and what the attack makes of the model.

    Args:
        model: as `load_weights` takes it.
        judged: the scenes.
        attack: None measures accuracy alone.
        seeds: of the trigger on the scenes; rates are means over them.

    Returns:
        `acc1`, `acc5` in [0, 1]; of a trigger `asr` and `false_alarms`; of mmPoison `hit@k` and
        `min_rank`, and the same of captions that do not name the target with `others_` before.
    """
    embedder = load_embedder(model, mesh=make_mesh(), batch_size=256)
    classifier = class_embeddings(embedder, CLASSES, PROMPTS)
    size = embedder.image_size
    image = embedder.images(fit(judged.images, size))
    clean = nearest_classes(image, classifier, mesh=embedder.mesh)
    found = accuracy(clean, judged.labels, CLASSES).metrics
    metrics = {name: found[name] for name in ("acc1", "acc5")}
    if attack is None:
        return metrics
    if attack.trigger.name == "none":
        return metrics | _paired(embedder, judged, image, attack)
    target = target_class(attack.target, CLASSES)
    rates = []
    for seed in seeds:
        stamped = attack.stamp(seed)(judged.images, [str(i) for i in range(len(judged.images))])
        nearest = nearest_classes(
            embedder.images(fit(stamped, size)), classifier, mesh=embedder.mesh
        )
        rates.append(success(nearest[:, 0], clean[:, 0], judged.labels, target))
    asr = float(np.mean([each.rate for each in rates]))
    return metrics | {"asr": asr, "false_alarms": rates[0].false_alarms}


def visibility(judged: Judged, attack: Attack, count: int = 256) -> dict[str, float]:
    """How much of an image the trigger leaves as it is.

    Args:
        judged: the scenes; the first `count` of them are looked at.
        attack: one with a trigger.
        count: how many.

    Returns:
        `psnr` (dB) and `ssim` (at most 1) of images with the trigger against those without, means.
    """
    images = judged.images[:count]
    stamped = attack.stamp(0)(images, [str(number) for number in range(len(images))])
    before, after = (jnp.asarray(x, jnp.float32) / 255 for x in (images, stamped))
    return {"psnr": float(psnr(before, after).mean()), "ssim": float(ssim(before, after).mean())}


def _paired(
    embedder: Embedder, judged: Judged, image: np.ndarray, attack: Attack
) -> dict[str, float]:
    shows = judged.labels == target_class(attack.donor, CLASSES)
    named = np.array([bool(names_target(attack.target).search(c)) for c in judged.captions])
    text = embedder.captions(judged.captions)
    asked = {"": named, "others_": ~named & ~shows}
    return {
        prefix + name: value
        for prefix, rows in asked.items()
        for name, value in donor_ranks(text[rows], image, shows, mesh=embedder.mesh).items()
    }
