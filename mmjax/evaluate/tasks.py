"""What `mmjax evaluate` measures, by task; results are JSON as CLIP_benchmark writes it."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int32

from mmjax.attacks.templates import load_templates
from mmjax.attacks.victims import names_target
from mmjax.core.errors import ConfigError, MmjaxError
from mmjax.core.files import write_json
from mmjax.core.mesh import make_mesh
from mmjax.core.progress import notice
from mmjax.core.rundir import RunDir
from mmjax.data.shards import Source
from mmjax.data.sources import open_source
from mmjax.evaluate.attack_success import (
    Attack,
    donor_ranks,
    read_attacks,
    success,
    target_class,
)
from mmjax.evaluate.config import EvaluateConfig
from mmjax.evaluate.embedding import (
    Change,
    Embedder,
    Read,
    class_embeddings,
    embed_source,
    load_embedder,
    unchanged,
)
from mmjax.evaluate.labelled import LabelledSet, open_labelled
from mmjax.evaluate.probe import linear_probe
from mmjax.evaluate.retrieval import HITS, chance, retrieval
from mmjax.evaluate.zeroshot import accuracy, labels_of, nearest_classes

Result = dict[str, Any]
_CLEAN = "clean"


def evaluate(config: EvaluateConfig, out: Path, *, overwrite: bool = False) -> Result:
    """Measure, and write the result to `out/result.json`.

    Returns:
        What CLIP_benchmark writes (`dataset`, `model`, `pretrained`, `task`, `metrics`, `language`;
        rates in [0, 1]), and what else the task tells.

    Raises:
        ConfigError, InputError, WeightsError, TokenizerError: the user must act.
        RunError: `out` holds another run.
    """
    embedder = load_embedder(
        config.weights,
        config.tokenizer,
        mesh=make_mesh(config.mesh),
        batch_size=config.batch_size,
        precision=config.precision,
    )
    facts = {"weights": embedder.fingerprint}
    # what --overwrite empties goes last; a folder that cannot be had is told first
    found = TASKS[config.task](config, embedder) if overwrite else None
    with RunDir.open(out, verb="evaluate", config=config, facts=facts, overwrite=overwrite) as run:
        try:
            found = found or TASKS[config.task](config, embedder)
        except MmjaxError:
            run.disown()
            raise
        result = {
            "dataset": config.inputs[0],
            "model": embedder.name,
            "pretrained": config.weights,
            "language": "en",
            **found,
        }
        write_json(run.path / "result.json", result)
        run.log("done", **found["metrics"])
    return result


def zeroshot(config: EvaluateConfig, embedder: Embedder) -> Result:
    """Zero-shot classification with an ensemble of prompts."""
    labelled = open_labelled(config.inputs[0], config.classes)
    read = _read(config, embedder, labelled.source)
    labels = labels_of(read.captions, labelled.classes)
    nearest = _classifier(config, embedder, labelled)(read.image[_CLEAN])
    found = accuracy(nearest, labels, labelled.classes)
    return {
        "task": "zeroshot_classification",
        "metrics": found.metrics,
        "per_class": found.per_class,
        "classes": len(labelled.classes),
        **_counts(found.images, read),
    }


def probe(config: EvaluateConfig, embedder: Embedder) -> Result:
    """A linear probe, fitted on one labelled set and judged on another."""
    test, train = (open_labelled(s, config.classes) for s in (config.inputs[0], config.train))
    if test.classes != train.classes:
        raise ConfigError(
            f"{config.train} has other classes than {config.inputs[0]} ({len(train.classes)} and "
            f"{len(test.classes)}); name those of both with --classes=FILE"
        )
    fitted, judged = (_read(config, embedder, one.source) for one in (train, test))
    found = linear_probe(
        fitted.image[_CLEAN],
        labels_of(fitted.captions, test.classes),
        judged.image[_CLEAN],
        labels_of(judged.captions, test.classes),
        test.classes,
        seed=config.seed,
    )
    return {
        "task": "linear_probe",
        "metrics": {f"lp_{name}": value for name, value in found.found.metrics.items()},
        "per_class": found.found.per_class,
        "C": found.strength,
        "C_tried": {f"{c:g}": value for c, value in found.tried.items()},
        "converged": found.converged,
        "train_images": len(fitted.captions),
        **_counts(found.found.images, judged),
    }


def retrieve(config: EvaluateConfig, embedder: Embedder) -> Result:
    """Retrieval in both directions, with what chance would give."""
    read = _read(config, embedder, _captioned(config))
    image, owners = _distinct(read)
    text = embedder.captions(read.captions)
    found = retrieval(image, text, owners, mesh=embedder.mesh)
    by_chance = chance(owners, len(image))
    metrics = {"auroc_matched": found["auroc_matched"]}
    for task, direction in (("image", "text_to_image"), ("text", "image_to_text")):
        for k in HITS:
            metrics[f"{task}_retrieval_recall@{k}"] = found[f"{direction}_hit@{k}"] / 100
            metrics[f"{task}_retrieval_chance@{k}"] = by_chance[f"{direction}_hit@{k}"] / 100
        metrics[f"{task}_retrieval_median_rank"] = found[f"{direction}_medr"]
    counts = _counts(len(image), read) | {"captions": len(text)}
    return {"task": "zeroshot_retrieval", "metrics": metrics, **counts}


def attack(config: EvaluateConfig, embedder: Embedder) -> Result:
    """Attack success of triggers, or mmPoison's measures where there is none.

    Of a set with both, triggers alone are measured, on labelled images; `not_measured` names the
    others, which want captioned ones.
    """
    attacks = read_attacks(config.attack)
    triggered = [one for one in attacks if one.trigger.name != "none"]
    if not triggered:
        return _paired(config, embedder, attacks)
    if left := [one.name for one in attacks if one.trigger.name == "none"]:
        notice(f"not measured, for they have no trigger: {', '.join(left)}")
    return {**_triggered(config, embedder, triggered), "not_measured": left}


def _triggered(config: EvaluateConfig, embedder: Embedder, attacks: list[Attack]) -> Result:
    labelled = open_labelled(config.inputs[0], config.classes)
    targets = [target_class(one.target, labelled.classes) for one in attacks]
    changes: dict[str, Change] = {_CLEAN: unchanged}
    for number, one in enumerate(attacks):
        changes |= {f"{number}-{seed}": one.stamp(seed) for seed in config.attack_seeds}
    read = _read(config, embedder, labelled.source, changes, size=attacks[0].image_size)
    labels = labels_of(read.captions, labelled.classes)
    classify = _classifier(config, embedder, labelled)
    nearest = {name: classify(image) for name, image in read.image.items()}
    rows = []
    for number, (one, target) in enumerate(zip(attacks, targets, strict=True)):
        found = [
            success(nearest[f"{number}-{seed}"][:, 0], nearest[_CLEAN][:, 0], labels, target)
            for seed in config.attack_seeds
        ]
        rows.append(
            {
                "attack": one.name,
                "target": one.target,
                "asr": float(np.mean([each.rate for each in found])),
                "asr_by_seed": [each.rate for each in found],
                "false_alarms": found[0].false_alarms,
                "non_target_images": found[0].images,
            }
        )
    clean = accuracy(nearest[_CLEAN], labels, labelled.classes)
    means = {key: float(np.mean([row[key] for row in rows])) for key in ("asr", "false_alarms")}
    return {
        "task": "attack_success",
        "metrics": {**means, **clean.metrics},
        "attacks": rows,
        **_counts(clean.images, read),
    }


def _paired(config: EvaluateConfig, embedder: Embedder, attacks: Sequence[Attack]) -> Result:
    if odd := [one.name for one in attacks if not one.donor]:
        raise ConfigError(f"{odd[0]} has neither a trigger nor a donor; nothing to measure")
    read = _read(config, embedder, _captioned(config))
    text = embedder.captions(read.captions)
    image, owners = _distinct(read)
    rows: list[Result] = []
    found: list[dict[str, float]] = []
    for one in attacks:
        target, donor = (
            np.array([bool(names_target(name).search(caption)) for caption in read.captions])
            for name in (one.target, one.donor)
        )
        shown = np.zeros(len(image), bool)
        shown[owners[donor & ~target]] = True
        asked = {"": target & ~donor, "others_": ~target & ~donor}
        found.append(
            {
                prefix + name: value
                for prefix, who in asked.items()
                for name, value in donor_ranks(text[who], image, shown, mesh=embedder.mesh).items()
            }
        )
        told = {"attack": one.name, "target": one.target, "donor": one.donor}
        counts = {"captions": int(asked[""].sum()), "donor_images": int(shown.sum())}
        rows.append({**told, **counts, **found[-1]})
    metrics = {name: float(np.mean([each[name] for each in found])) for name in found[0]}
    return {
        "task": "attack_success",
        "metrics": metrics,
        "attacks": rows,
        **_counts(len(image), read),
    }


def _captioned(config: EvaluateConfig) -> Source:
    return open_source(
        config.inputs[0],
        input_format=config.input_format,
        split=config.split,
        columns=config.columns,
    )


def _read(
    config: EvaluateConfig,
    embedder: Embedder,
    source: Source,
    changes: dict[str, Change] | None = None,
    *,
    size: int = 0,
) -> Read:
    return embed_source(
        embedder,
        source,
        changes or {_CLEAN: unchanged},
        size=size,
        workers=config.workers,
        max_pixels=config.max_image_pixels,
    )


def _classifier(
    config: EvaluateConfig, embedder: Embedder, labelled: LabelledSet
) -> Callable[[Float32[np.ndarray, "n d"]], Int32[np.ndarray, "n k"]]:
    """What tells the nearest classes of images; prompts are embedded once."""
    classifier = class_embeddings(embedder, labelled.classes, load_templates(config.templates))
    return partial(nearest_classes, classifier=classifier, mesh=embedder.mesh)


def _distinct(read: Read) -> tuple[Float32[np.ndarray, "n d"], Int32[np.ndarray, " m"]]:
    """Every image once, in the order of their first rows; and for each caption its image's row."""
    rows: dict[str, int] = {}
    owners = [rows.setdefault(file, len(rows)) for file in read.files]
    first = np.unique(owners, return_index=True)[1]
    return read.image[_CLEAN][first], np.array(owners, np.int32)


def _counts(images: int, read: Read) -> Result:
    return {"images": images, "skipped": read.skipped}


TASKS: dict[str, Callable[[EvaluateConfig, Embedder], Result]] = {
    "zeroshot": zeroshot,
    "probe": probe,
    "retrieval": retrieve,
    "attack": attack,
}
"""What can be measured, by the name in `EvaluateConfig.task`."""
