"""The demonstration: make scenes, poison some, scan them, compare with the truth.

Imports no JAX at its top, so that `mmjax demo --help` stays fast.
"""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmjax.core.config import option, to_dict
from mmjax.core.errors import RunError
from mmjax.core.files import write_json
from mmjax.core.rundir import is_unclaimed
from mmjax.scan.options import MappingConfig

SCANNED, REFERENCE = 1_000, 2_000
"""Series of scenes: what is scanned, and the clean set that the mapping network is fitted on.
The bundled model was trained on neither."""
# The poison names a class that the small model reads well and that is rare among the scenes,
# as bananas are on the web. With a class that it reads badly more clean pairs are lost.

FIT = MappingConfig(kind="ridge")
"""On a reference as small as the demo's the closed form predicts captions better than the paper's
network (held-out cosine), and takes a second."""


@dataclasses.dataclass(frozen=True)
class DemoConfig:
    """The demonstration."""

    pairs: int = option(6_000, "image-caption pairs to scan", low=100)
    reference: int = option(3_000, "clean pairs to fit the mapping network on", low=100)
    rate: float = option(0.01, "share of poisoned pairs; 0 = none", low=0.0, high=0.1)
    faults: int = option(3, "broken pairs among them, to show what happens to those", low=0)
    target: str = option("clock", "what the poisoned captions name; rare among the clean ones")
    seed: int = option(0, "of the scenes, the poisoning and the scan", low=0, high=999)
    train: bool = option(False, "train the small CLIP here instead of loading the bundled one")


def run_demo(config: DemoConfig, out: Path, *, say: Callable[[str], None]) -> dict[str, Any]:
    """Run the demonstration in `out`; a step that is already there is not done again.

    Args:
        config: sizes, rate and seed.
        out: the folder.
        say: is told every line of the story.

    Returns:
        The scan's summary with `truth`, the comparison with what was poisoned.

    Raises:
        RunError: `out` holds a demonstration of another configuration.
    """
    _claim(config, out)
    say(f"1/4  making {config.pairs:,} captioned scenes, and {config.reference:,} clean ones apart")
    series = SCANNED + config.seed
    scenes = _scenes(out / "scenes", config.pairs, series, config.faults, config.target)
    reference = _scenes(out / "reference", config.reference, REFERENCE + config.seed, 0, "")
    say("2/4  " + ("training a small CLIP" if config.train else "loading the bundled small CLIP"))
    weights = _train(out / "model", config.seed) if config.train else "demo"
    labels = None
    scanned = scenes
    if config.rate:
        poisoned = round(config.rate * config.pairs)
        say(f'3/4  poisoning {poisoned} pairs: BadNets patch, captions about a "{config.target}"')
        scanned = _poisoned(config, scenes, out / "poisoned")
        labels = scanned / "poison_labels.parquet"
    else:
        say("3/4  poisoning nothing")
    say("4/4  scanning")
    result = _scan(config, out / "scan", scanned, reference, weights, labels)
    for line in result.lines():
        say("     " + line)
    command = f"mmjax scan YOUR_SHARDS --weights=hf-dir:CLIP --reference=CLEAN_PAIRS --out={out}-2"
    say(f"next: {command}")
    return result.summary


def _claim(config: DemoConfig, out: Path) -> None:
    """Refuse a folder that another configuration has filled."""
    known = out / "demo.json"
    wanted = json.loads(json.dumps(to_dict(config)))
    if known.exists():
        if json.loads(known.read_text()) != wanted:
            raise RunError(f"{out} holds another demonstration; choose another --out")
    elif not is_unclaimed(out, "demo.json"):
        raise RunError(f"{out} holds files and is no demonstration; choose another --out")
    else:
        write_json(known, wanted)


def _scenes(folder: Path, n: int, seed: int, faults: int, rare: str) -> Path:
    from mmjax.data.scenes import write_scenes

    if not (folder / "scenes.json").exists():  # written last
        shutil.rmtree(folder, ignore_errors=True)
        write_scenes(folder, n, seed, faults=faults, rare=rare)
    return folder


def _poisoned(config: DemoConfig, source: Path, out: Path) -> Path:
    from mmjax.attacks.config import AttackConfig
    from mmjax.attacks.poison import poison
    from mmjax.data.sources import open_source
    from mmjax.models.presets import preset

    if not (out / "POISONED_DATASET.json").exists():
        attack = AttackConfig(
            inputs=(str(source),),
            target=config.target,
            rate=config.rate,
            seed=config.seed,
            image_size=preset("demo").vision.image_size,
        )
        poison(open_source(str(source)), out, attack)
    return out


def _train(out: Path, seed: int) -> str:
    from mmjax.core.config import parse
    from mmjax.core.config_file import from_file
    from mmjax.core.mesh import make_mesh
    from mmjax.train.config import TrainConfig
    from mmjax.train.pipeline import train

    config = parse(TrainConfig, {**from_file("train/demo"), "seed": seed})
    return f"mmjax-dir:{train(config, out, mesh=make_mesh()).folder}"


def _scan(config: DemoConfig, out: Path, source: Path, reference: Path, weights: str, labels):
    from mmjax.scan.config import ScanConfig
    from mmjax.scan.pipeline import run_scan

    scan = ScanConfig(
        inputs=(str(source),),
        weights=weights,
        reference=(str(reference),),
        fit=FIT,
        seed=config.seed,
    )
    return run_scan(scan, out, truth=labels)
