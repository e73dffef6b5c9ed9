"""The verbs around the scan: demo, attack, train, detectors, reproduce, pack, convert."""

import argparse
import dataclasses
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mmjax.core.errors import ConfigError, ExitCode, RetryError
from mmjax.core.types import STATUSES

if TYPE_CHECKING:
    from mmjax.attacks.config import AttackConfig
    from mmjax.evaluate.demo import DemoConfig
    from mmjax.evaluate.experiment import ReproduceConfig
    from mmjax.train.config import TrainConfig


def demo(config: "DemoConfig", flags: argparse.Namespace) -> int:
    """Make, poison, scan and compare, telling each step."""
    from mmjax.evaluate.demo import run_demo

    run_demo(config, Path(flags.out), say=print)
    return ExitCode.DONE


def attack(config: "AttackConfig", flags: argparse.Namespace) -> int:
    """Write a poisoned copy of a set with its ground truth."""
    from mmjax.attacks.poison import attack as run

    summary = run(config, _out(flags))
    print(f"poisoned {summary['poisoned']:,} of {summary['pairs']:,} pairs")
    print(f"truth    {_out(flags) / 'poison_labels.parquet'}")
    print("This set is poisoned on purpose: never train a model for use on it.")
    return ExitCode.DONE


def train(config: "TrainConfig", flags: argparse.Namespace) -> int:
    """Train and print the last figures; SIGTERM saves first and exits 42."""
    from mmjax.core import distributed
    from mmjax.core.mesh import make_mesh
    from mmjax.evaluate.retrieval import evaluate_pairs
    from mmjax.train.pipeline import train as run

    out = _out(flags)
    distributed.initialize(flags.coordinator, flags.processes, flags.process)
    with distributed.stop_on_sigterm() as stop:
        try:
            result = run(
                config,
                out,
                mesh=make_mesh(config.mesh),
                evaluate=evaluate_pairs,
                stop=stop,
                overwrite=flags.overwrite,
            )
        except RetryError as error:
            if flags.overwrite:
                raise RetryError(f"{error}, without --overwrite") from error
            raise
    if not distributed.is_primary():
        return ExitCode.DONE
    for name, value in result.summary.items():
        print(f"{name:<12} {value}")
    print(f"model        mmjax-dir:{result.folder}")
    return ExitCode.DONE


def reproduce(config: "ReproduceConfig", flags: argparse.Namespace) -> int:
    """Run an experiment and say where its results are."""
    from mmjax.evaluate.reproduce import run_experiment

    config = dataclasses.replace(config, experiment=flags.inputs[0])
    command = shlex.join(["mmjax", *sys.argv[1:]])
    file, page = run_experiment(config, _out(flags), command=command, say=print)
    print(page.read_text(encoding="utf-8"))
    print(f"results {file}, {page}")
    return ExitCode.DONE


def detectors(config: None, flags: argparse.Namespace) -> int:
    """Measure all detectors on a finished scan and print the table."""
    if not flags.truth:
        raise ConfigError("--truth=FILE is wanted: the poison_labels.parquet of the scanned set")
    from mmjax.core.mesh import make_mesh
    from mmjax.evaluate.detection import compare_detectors
    from mmjax.evaluate.tables import write_results, write_table

    run = Path(flags.inputs[0])
    out = Path(flags.out) if flags.out else run / "detectors"
    rows = compare_detectors(
        run,
        flags.truth,
        names=tuple(flags.only.split(",")) if flags.only else (),
        losses=Path(flags.losses) if flags.losses else None,
        seed=flags.seed,
        mesh=make_mesh(),
    )
    command = shlex.join(["mmjax", *sys.argv[1:]])
    write_results(out / "detectors.json", rows, title=f"Detectors on {run.name}", command=command)
    write_table(out / "detectors.json", out / "detectors.md")
    print((out / "detectors.md").read_text(encoding="utf-8"))
    print(f"results {out / 'detectors.json'}, {out / 'detectors.md'}")
    return ExitCode.DONE


def pack(config: None, flags: argparse.Namespace) -> int:
    """Turn any source into WebDataset shards."""
    if not flags.inputs:
        raise ConfigError("nothing to pack; name shards, a folder or a table")
    from mmjax.data.pack import pack as run
    from mmjax.data.sources import open_source

    source = open_source(
        flags.inputs[0] if len(flags.inputs) == 1 else flags.inputs,
        input_format=flags.input_format,
        split=flags.split,
        columns=flags.columns,
    )
    summary = run(source, _out(flags), shard_size=flags.shard_size, resume=True)
    packed = summary.counts.get("ok", 0)
    print(f"packed {packed:,} pairs into {len(summary.sizes):,} shards in {_out(flags)}")
    for status, count in sorted(summary.counts.items()):
        if status != "ok":
            print(f"skipped {count:,} x {status}: {STATUSES[status]}")
    for line in (*summary.warnings, *summary.notes):
        print(f"warning: {line}")
    return ExitCode.DEGRADED if summary.warnings else ExitCode.DONE


def convert(config: None, flags: argparse.Namespace) -> int:
    """Turn a pickled checkpoint into safetensors."""
    from mmjax.models.convert import convert as run

    print(run(Path(flags.inputs[0]), _out(flags)))
    return ExitCode.DONE


def _out(flags: argparse.Namespace) -> Path:
    if not flags.out:
        raise ConfigError("where to? add --out=FOLDER")
    return Path(flags.out)
