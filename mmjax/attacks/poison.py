"""Poisons a copy of a set of pairs: WebDataset shards, and the ground truth beside them."""

import contextlib
import os
from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from mmjax.attacks.captions import load_templates
from mmjax.attacks.config import LARGEST_UNASKED_RATE, AttackConfig
from mmjax.attacks.shards import Recipe, Row, read_rows, try_decode, write_shard
from mmjax.attacks.triggers import make_stamp, parameters
from mmjax.attacks.victims import Candidate, choose, identity, lot, names_target, victim_count
from mmjax.core.errors import ConfigError, ImageError, InputError, RunError
from mmjax.core.progress import meter
from mmjax.core.rundir import RunDir, atomic_path, file_sha256, write_json
from mmjax.data.shards import Source
from mmjax.data.sources import open_source
from mmjax.ops.triggers import TRIGGERS

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


class Plan(NamedTuple):
    """Which rows become victims: ordinals by shard; and the counts that led there."""

    victims: tuple[frozenset[int], ...]
    pairs: int
    usable: int
    """Pairs that the source calls ok."""
    candidates: int
    """Usable pairs whose caption does not name the target already."""
    poisoned: int


def attack(config: AttackConfig, out: Path | str) -> dict[str, int]:
    """Poison what `config.inputs` names; see `poison`."""
    source = open_source(
        config.inputs,
        input_format=config.input_format,
        split=config.split,
        max_member_bytes=config.max_member_bytes,
    )
    return poison(source, out, config)


def poison(source: Source, out_dir: Path | str, config: AttackConfig) -> dict[str, int]:
    """Write a poisoned copy of a set.

    Each victim is replaced, in its place, by its stamped image with a caption that names the
    target; all other rows stay. Which pairs are victims, and what is done to each, depends on the
    seed, the pair's key and its caption alone: not on the order, the sharding or the machine. The
    same seed writes the same bytes. An interrupted run goes on where it stopped when called again.

    Args:
        source: the clean set; it is only read.
        out_dir: a new or empty folder, or one that the same call has begun.
        config: the attack.

    Returns:
        The counts of `POISONED_DATASET.json`: shards, pairs, usable, candidates, poisoned.

    Raises:
        ConfigError: too few candidates, or more than 10 % poison without `i_understand`.
        RunError: the folder holds something else.
        InputError: the set is marked as poisoned already.
    """
    if any(shard.name.endswith(MARK) for shard in source.shards):
        raise InputError(
            f"{source.location} is marked as poisoned already, and its labels would be lost; "
            "attack the clean set"
        )
    out = Path(out_dir)
    if out.is_dir() and any(out.iterdir()) and not (out / "run.json").exists():
        raise RunError(f"{out} holds files and is not a run of mmjax; choose an empty --out")
    templates = load_templates(config.templates)
    facts = {"input": {shard.name: source.fingerprint(shard) for shard in source.shards}}
    facts |= {"templates": file_sha256(config.templates) if config.templates else ""}
    recipe = Recipe(config, make_stamp(config.trigger, config.seed), templates)
    with ThreadPoolExecutor(config.workers or os.cpu_count()) as pool:
        # before the folder is claimed: a refusal here leaves nothing behind
        plan = make_plan(source, config, pool)
        with (
            RunDir.open(out, verb="attack", config=config, facts=facts) as run,
            contextlib.closing(meter(plan.pairs, "poisoning", unit="pairs")) as done,
        ):
            for shard, victims in zip(source.shards, plan.victims, strict=True):
                name = shard.name + MARK
                tar, labels = run.path / f"{name}.tar", run.path / "labels" / f"{name}.parquet"
                if run.finished(shard.name):
                    done.update(pq.read_metadata(labels).num_rows)
                    continue
                rows = write_shard(source.open_shard(shard), victims, tar, recipe, pool, done)
                _write_table(labels, _labels(name, rows, config))
                altered = [
                    {"shard": name, "member": f"{row.key}.{suffix}", "sha256": sha}
                    for row in rows
                    for suffix, sha in row.altered.items()
                ]
                run.finish(shard.name, {"shard": tar, "labels": labels}, altered=altered)
            return _finish(run, source, plan, config)


def make_plan(source: Source, config: AttackConfig, pool: Executor) -> Plan:
    """Choose the victims.

    Reads the set once, and decodes no image but those of the pairs whose turn it is.

    Raises:
        ConfigError: see `poison`.
    """
    named = names_target(config.target)
    pairs = usable = 0
    candidates: list[Candidate] = []
    total = sum(source.sizes.values()) if len(source.sizes) == len(source.shards) else None
    with contextlib.closing(meter(total, "choosing victims", unit="pairs")) as done:
        for number, shard in enumerate(source.shards):
            for ordinals, rows in read_rows(source.open_shard(shard), pool):
                for ordinal, pair in zip(ordinals, rows, strict=True):
                    usable += pair.status == "ok"
                    if pair.status == "ok" and not named.search(pair.caption or ""):
                        name = identity(pair.key, pair.caption or "")
                        drawn = lot(config.seed, "victims", name)
                        candidates.append(Candidate(drawn, number, ordinal))
                pairs += len(rows)
                done.update(len(rows))
    wanted = victim_count(usable, config.rate, config.count)
    if wanted > LARGEST_UNASKED_RATE * usable and not config.i_understand:
        raise ConfigError(
            f"{wanted} of {usable} usable pairs are more than 10 %, which no published attack "
            "needs; add --i_understand if that is what you want"
        )

    def can_be_poisoned(asked: Sequence[Candidate]) -> list[bool]:
        views = {n: source.open_shard(source.shards[n]) for n in {one.shard for one in asked}}

        def decodes(one: Candidate) -> bool:
            data = views[one.shard][one.ordinal].image or b""
            return not isinstance(try_decode(data, config), ImageError)

        return list(pool.map(decodes, asked))

    taken = choose(candidates, wanted, can_be_poisoned)
    victims: list[set[int]] = [set() for _ in source.shards]
    for one in taken:
        victims[one.shard].add(one.ordinal)
    return Plan(tuple(map(frozenset, victims)), pairs, usable, len(candidates), len(taken))


def _labels(shard: str, rows: Sequence[Row], config: AttackConfig) -> pa.Table:
    poisoned = [bool(row.altered) for row in rows]
    columns = [
        [shard] * len(rows),
        range(len(rows)),
        [row.key for row in rows],
        poisoned,
        [config.trigger.name if p else "" for p in poisoned],
        [config.target if p else "" for p in poisoned],
    ]
    return pa.table(
        [pa.array(c, f.type) for c, f in zip(columns, LABELS_SCHEMA, strict=True)],
        schema=LABELS_SCHEMA,
    )


def _write_table(path: Path, table: pa.Table) -> None:
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary)


def _finish(run: RunDir, source: Source, plan: Plan, config: AttackConfig) -> dict[str, int]:
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
        "attack": config.trigger.name,
        "source": TRIGGERS[config.trigger.name].source,
        "parameters": parameters(config.trigger),
        "target": config.target,
        "templates": config.templates or "mmjax",
        "rate": config.rate,
        "seed": config.seed,
        "geometry": config.geometry,
        "image_size": config.image_size,
        "counts": counts,
        "altered": altered,
    }
    write_json(run.path / MANIFEST, manifest)
    return counts
