"""`mmjax plan`, `mmjax bench`."""

import argparse
import dataclasses
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmjax.core.config_file import from_file
from mmjax.core.errors import ConfigError, ExitCode

if TYPE_CHECKING:
    from mmjax.measure.bench_config import BenchConfig
    from mmjax.measure.plan_config import PlanConfig


def run_of(flags: argparse.Namespace) -> dict[str, Any]:
    """What a plan starts from: the step of the run whose configuration `--of` names."""
    if not flags.of:
        return {}
    values = from_file(flags.of)
    kind = Path(flags.of).parent.name
    if kind == "train":
        planned: dict[str, Any] = {"step": "train", "train": values}
        if "preset" in values.get("model", {}):
            planned["preset"] = values["model"]["preset"]
        if "batch_size" in values:
            planned["batch_size"] = values["batch_size"]
        return planned
    if kind == "scan":
        size = values.get("encode", {}).get("batch_size")
        return {"step": "encode"} | ({"batch_size": size} if size else {})
    raise ConfigError(f"--of names a configuration in scan/ or train/, got {flags.of!r}")


def plan(config: "PlanConfig", flags: argparse.Namespace) -> int:
    """Compile for machines that are not here and say what would bind; 2 if it does not fit."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    if config.platform == "cpu":
        os.environ["JAX_NUM_CPU_DEVICES"] = str(config.devices)
    from mmjax.core.files import write_json
    from mmjax.core.programs import cache_folder
    from mmjax.measure import plan as planning
    from mmjax.measure.plan_text import as_json, lines

    made = planning.plan(
        config,
        lambda line: print(line, flush=True),
        None if flags.anew else cache_folder("plan"),
    )
    for each in made:
        print("\n".join(lines(config, each)))
    fitting = [each for each in made if each.compiled.fits]
    if config.sweep:
        best = f"{fitting[-1].batch_size:,}" if fitting else "none"
        print(f"largest batch that fits, of those tried: {best}")
    if flags.out:
        write_json(Path(flags.out), [as_json(config, each) for each in made])
        print(json.dumps({"written": flags.out}))
    return ExitCode.DONE if fitting else ExitCode.USER


def bench(config: "BenchConfig", flags: argparse.Namespace) -> int:
    """Time a case and print its figures, beside those of an earlier run if one is named."""
    from mmjax.core.progress import notice
    from mmjax.measure import bench as timing
    from mmjax.measure.bench_page import write_page

    config = dataclasses.replace(config, case=flags.inputs[0])
    earlier = timing.read(flags.compare) if flags.compare else None
    if earlier and (earlier["case"], earlier["size"]) != (config.case, config.size):
        raise ConfigError(
            f"{flags.compare} is of case {earlier['case']}, size {earlier['size']}, "
            f"not of {config.case}, {config.size}"
        )
    found = timing.bench(config, Path(flags.out), notice)
    print("\n".join(timing.lines(found, earlier)))
    print(f"page: {write_page(Path(flags.out))}")
    return ExitCode.DONE
