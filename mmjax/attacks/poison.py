"""Poisons a copy of a set of pairs: WebDataset shards, and the ground truth beside them."""

import contextlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mmjax.attacks.captions import CAPTIONS
from mmjax.attacks.config import AttackConfig, PartConfig
from mmjax.attacks.pictures import IMAGES
from mmjax.attacks.plan import PartPlan, Plan, make_plan
from mmjax.attacks.prepare import Ready, make_ready, make_recipe
from mmjax.attacks.shards import Recipe, Row, write_shard
from mmjax.attacks.surrogate import load_surrogate
from mmjax.attacks.templates import load_templates
from mmjax.attacks.triggers import KNOWN, parameters
from mmjax.core.config import to_dict
from mmjax.core.errors import InputError, RunError
from mmjax.core.files import atomic_path, file_sha256, write_json
from mmjax.core.progress import meter
from mmjax.core.rundir import RunDir, is_unclaimed
from mmjax.data.shards import Source
from mmjax.data.sources import open_source

MARK = "-POISONED"
MANIFEST = "POISONED_DATASET.json"
LABELS = "poison_labels.parquet"
LABELS_SCHEMA = pa.schema(
    [
        ("shard", pa.string()),
        ("ordinal", pa.int32()),
        ("key", pa.string()),
        ("is_poisoned", pa.bool_()),
        ("attack", pa.string()),
        ("target", pa.string()),
    ]
)


def attack(config: AttackConfig, out: Path | str) -> dict[str, int]:
    """Poison what `config.inputs` names; see `poison`."""
    source = open_source(
        config.inputs,
        input_format=config.input_format,
        split=config.split,
        columns=config.columns,
        max_member_bytes=config.max_member_bytes,
    )
    return poison(source, out, config)


def poison(source: Source, out_dir: Path | str, config: AttackConfig) -> dict[str, int]:
    """Write a poisoned copy of a set.

    Each victim is replaced, in its place, by its stamped image (or a donor's) with a caption that
    names the target; all other rows stay. Which pairs are victims, and what is done to each,
    depends on the seed, the keys and the captions alone: not on the order, the sharding or the
    machine. The same seed writes the same bytes. An interrupted run goes on where it stopped when
    called again.

    Args:
        source: the clean set; it is only read.
        out_dir: a new or empty folder, or one that the same call has begun.
        config: the attack.

    Returns:
        The counts of `POISONED_DATASET.json`: shards, pairs, usable, candidates, poisoned.

    Raises:
        ConfigError: the set does not offer what the attack wants (`make_plan`), or more than 10 %
            poison without `i_understand`.
        RunError: the folder holds something else.
        InputError: the set is marked as poisoned already.
    """
    if any(shard.name.endswith(MARK) for shard in source.shards):
        raise InputError(
            f"{source.location} is marked as poisoned already, and its labels would be lost; "
            "attack the clean set"
        )
    out = Path(out_dir)
    if not is_unclaimed(out, "run.json") and not (out / "run.json").exists():
        raise RunError(f"{out} holds files and is not a run of mmjax; choose an empty --out")
    templates = {part.templates for part in config.parts if part.templates}
    for file in templates:
        load_templates(file)  # a bad file is told before the set is read
    facts = {"input": {shard.name: source.fingerprint(shard) for shard in source.shards}}
    facts |= {"templates": {file: file_sha256(file) for file in sorted(templates)}}
    surrogate = None
    if any(part.needs_weights for part in config.parts):
        surrogate = load_surrogate(config.weights, config.tokenizer)
        facts |= {"weights": {config.weights: surrogate.fingerprint}}
    with ThreadPoolExecutor(config.workers or os.cpu_count()) as pool:
        # before the folder is claimed: a refusal here leaves nothing behind
        plan = make_plan(source, config, pool)
        for part in config.parts:
            parameters(part.trigger)
        with RunDir.open(out, verb="attack", config=config, facts=facts) as run:
            victims = [part.poisoned for part in plan.parts]
            ready = make_ready(run, source, config, victims, surrogate, pool)
            _write_shards(run, source, plan, make_recipe(source, plan, ready, config), pool)
            return _finish(run, source, plan, ready, config)


def _write_shards(
    run: RunDir, source: Source, plan: Plan, recipe: Recipe, pool: ThreadPoolExecutor
) -> None:
    """Write the shards that are not finished yet, each with its labels."""
    with contextlib.closing(meter(plan.pairs, "poisoning", unit="pairs")) as done:
        for shard, victims in zip(source.shards, plan.victims, strict=True):
            name = shard.name + MARK
            tar, labels = run.path / f"{name}.tar", run.path / "labels" / f"{name}.parquet"
            if run.finished(shard.name):
                done.update(pq.read_metadata(labels).num_rows)
                continue
            rows = write_shard(source.open_shard(shard), victims, tar, recipe, pool, done)
            _write_table(labels, _labels(name, rows, recipe.config))
            altered = [
                {"shard": name, "member": f"{row.key}.{suffix}", "sha256": sha}
                for row in rows
                for suffix, sha in row.altered.items()
            ]
            run.finish(shard.name, {"shard": tar, "labels": labels}, altered=altered)


def _labels(shard: str, rows: Sequence[Row], config: AttackConfig) -> pa.Table:
    columns = [
        [shard] * len(rows),
        range(len(rows)),
        [row.key for row in rows],
        [row.attack >= 0 for row in rows],
        [config.parts[row.attack].label if row.attack >= 0 else "" for row in rows],
        [config.parts[row.attack].target if row.attack >= 0 else "" for row in rows],
    ]
    return pa.table(
        [pa.array(c, f.type) for c, f in zip(columns, LABELS_SCHEMA, strict=True)],
        schema=LABELS_SCHEMA,
    )


def _write_table(path: Path, table: pa.Table) -> None:
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary)


def _finish(
    run: RunDir, source: Source, plan: Plan, ready: Sequence[Ready], config: AttackConfig
) -> dict[str, int]:
    """Write the labels of the whole set and its manifest."""
    names = [shard.name + MARK for shard in source.shards]
    parts = [pq.read_table(run.path / "labels" / f"{name}.parquet") for name in names]
    labels = pa.concat_tables(parts)
    _write_table(run.path / LABELS, labels)
    altered = [
        item
        for shard in source.shards
        for item in (run.finished(shard.name) or {"altered": []})["altered"]
    ]
    counts = {
        "shards": len(names),
        "pairs": plan.pairs,
        "usable": plan.usable,
        "candidates": plan.candidates,
        "poisoned": plan.poisoned,
    }
    manifest = {
        "warning": "Poisoned on purpose, to test detectors. Do not train a model for use on it.",
        "tags": ["poisoned", "backdoor", "do-not-train"],
        "made_by": f"mmjax {version('mmjax')}",
        "attacks": [
            {**_describe(part, planned), "prepared": list(made.prepared)}
            for part, planned, made in zip(config.parts, plan.parts, ready, strict=True)
        ],
        "seed": config.seed,
        "geometry": config.geometry,
        "image_size": config.image_size,
        "counts": counts,
        "altered": altered,
    }
    write_json(run.path / MANIFEST, manifest)
    return counts


def _describe(part: PartConfig, planned: PartPlan) -> dict[str, Any]:
    """An attack as the manifest tells it."""
    sources = [CAPTIONS[part.captions].source, IMAGES[part.images].source]
    if part.perturb.epsilon:
        sources.insert(0, "Turner et al. 2019 (arXiv:1912.02771), section 4.2")
    if part.trigger.name != "none":
        sources.insert(0, KNOWN[part.trigger.name].source)
    return {
        "attack": part.label,
        "trigger": part.trigger.name,
        "parameters": parameters(part.trigger),
        "perturb": to_dict(part.perturb) if part.perturb.epsilon else {},
        "captions": part.captions,
        "images": part.images,
        "sources": sources,
        "target": part.target,
        "donor": part.donor,
        "templates": (part.templates or "mmjax") if part.captions == "template" else "",
        "full_stop": part.full_stop if part.captions == "template" else None,
        "pool": part.pool,
        "rate": part.rate,
        "count": part.count,
        "share": part.share,
        "candidates": planned.candidates,
        "poisoned": planned.poisoned,
        "donors": planned.donors,
    }
