"""The verbs that are killed: their smallest runs that come through every stage."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from PIL import Image

from mmjax.cli import main
from mmjax.data.scenes import write_scenes
from tests.data.faults import pair, plain, write_tar
from tests.e2e.conftest import FLOAT32, save_model

IMPORTS = (
    "mmjax.attacks.poison",
    "mmjax.evaluate.retrieval",
    "mmjax.protect.export",
    "mmjax.protect.pipeline",
    "mmjax.scan.pipeline",
    "mmjax.scan.report",
    "mmjax.train.pipeline",
    "matplotlib.backends.backend_agg",
    "transformers",
)
"""What the verbs import on their way; done once, by the parent."""
SHARDS, ROWS = 6, 6


class Case(NamedTuple):
    """A verb and what of its folder must be equal.

    Fields:
        arguments: of the verb, without `--out`.
        codes: with which it may end undisturbed.
        without: first parts of names that tell of the run itself.
        steps: folders of checkpoints.
        stopped: exit codes beside 42 with which SIGTERM may end it.
    """

    arguments: tuple[str, ...]
    codes: tuple[int, ...] = (0,)
    without: tuple[str, ...] = ("lock", "log.jsonl")
    steps: tuple[str, ...] = ()
    stopped: tuple[int, ...] = ()


def import_all() -> None:
    """Import what the verbs need."""
    for name in IMPORTS:
        importlib.import_module(name)


def make_inputs(folder: Path) -> int:
    """Shards with some faults, a reference, photos and a model; in a child, as it runs JAX."""
    jax.config.update("jax_num_cpu_devices", 1)
    save_model(folder / "model")
    for number in range(SHARDS):
        first = ROWS * number
        members = [m for i in range(first, first + ROWS) for m in pair(f"{i}", i, b"a %03d" % i)]
        broken = plain(f"{first}x.png", b"\x89PNG"), plain(f"{first}x.txt", b"a 100")
        write_tar(folder / "shards" / f"{number:05d}.tar", [*members, *broken])
    write_tar(
        folder / "reference" / "00000.tar",
        [m for i in range(200, 224) for m in pair(f"{i}", i, b"a %03d" % i)],
    )
    write_scenes(folder / "pairs", 16, 9, size=32, shard_size=8)
    (folder / "photos").mkdir()
    rng = np.random.default_rng(0)
    for number in range(4):
        tiles = rng.integers(0, 256, (3, 4, 3), np.uint8)
        pixels = tiles.repeat(10 + number, axis=0).repeat(9, axis=1)
        Image.fromarray(pixels).save(folder / "photos" / f"photo {number}.png")
    return 0


def verb(case: Case, out: Path) -> Callable[[], int]:
    """What a child runs."""

    def start() -> int:
        jax.config.update("jax_num_cpu_devices", 1)
        sys.argv[0] = "mmjax"
        return int(main([*case.arguments, f"--out={out}"]))

    return start


def cases(folder: Path) -> dict[str, Case]:
    """The verbs on the inputs of `make_inputs`."""
    weights = f"--weights=mmjax-dir:{folder / 'model'}"
    quick = "--config.surrogate.model.compute=float32"
    return {
        "scan": Case(
            (
                "scan",
                str(folder / "shards"),
                f"--reference={folder / 'reference'}",
                weights,
                FLOAT32,
                "--config.fit.kind=ridge",
                "--config.max_bad_fraction=1",
                "--batch_size=4",
                "--config.encode.text_batch_size=8",
                "--workers=2",
                "--write_clean",
            ),
        ),
        "train": Case(
            (
                "train",
                "--config=train/demo",
                weights,
                "--steps=16",
                "--config.data.scenes=16",
                "--config.data.heldout_scenes=8",
                "--config.model.compute=float32",
                "--config.batch_size=8",
                "--config.log_every=1",
                "--config.checkpoint_every=3",
            ),
            steps=("checkpoints",),
            stopped=(0,),
        ),
        "protect": Case(
            (
                "protect",
                str(folder / "pairs"),
                weights,
                quick,
                "--config.output=shards",
                "--config.rounds=2",
                "--config.shard_size=6",
                "--config.batch_size=8",
                "--config.noise.steps=2",
                "--config.trigger.candidates=2",
                "--config.surrogate.steps=3",
            ),
            steps=("surrogate",),
        ),
        "protect photos": Case(
            (
                "protect",
                str(folder / "photos"),
                weights,
                "--config.photos.steps=2",
                "--config.photos.canvas=1",
                "--config.photos.views=2",
                "--config.photos.negatives=4",
                "--config.trigger.candidates=2",
            ),
        ),
        "attack": Case(
            (
                "attack",
                str(folder / "shards"),
                weights,
                "--config=attack/trojan",
                "--config.image_size=32",
                "--i_understand",
                "--config.workers=2",
                "--config.count=3",
                "--config.trigger.patch_size=8.0",
                "--config.trigger.sample=24",
                "--config.trigger.steps=2",
                "--config.trigger.batch_size=8",
            ),
        ),
    }
