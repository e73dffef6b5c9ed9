"""What a run tells of itself: metrics.jsonl, a tracker beside it, a plot at its end."""

import contextlib
import json
import math
import secrets
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mmjax.core.errors import ConfigError
from mmjax.core.files import atomic_path, write_bytes

Track = Callable[[int, Mapping[str, float]], None]


@contextlib.contextmanager
def no_tracker(folder: Path) -> Iterator[Track]:
    """Tells nobody."""
    yield lambda step, metrics: None


@contextlib.contextmanager
def tensorboard(folder: Path) -> Iterator[Track]:
    """Event files in `folder/tensorboard`, by tensorboardX."""
    try:
        from tensorboardX import SummaryWriter  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise _missing("tensorboard", "tensorboardX") from error
    writer = SummaryWriter(str(folder / "tensorboard"))

    def track(step: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            writer.add_scalar(f"train/{name}", value, step)

    with contextlib.closing(writer):
        yield track


@contextlib.contextmanager
def wandb(folder: Path) -> Iterator[Track]:
    """A run of Weights & Biases, named as its folder; its own variables say where it goes."""
    try:
        import wandb as service  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise _missing("wandb", "wandb") from error
    known = folder / "wandb_id"  # a run that goes on is one run there too
    if not known.exists():
        write_bytes(known, secrets.token_hex(8).encode())
    run = service.init(
        project="mmjax", name=folder.name, id=known.read_text(), dir=str(folder), resume="allow"
    )
    try:
        yield lambda step, metrics: run.log(dict(metrics), step=step)
    finally:
        run.finish()


TRACKERS = {"none": no_tracker, "tensorboard": tensorboard, "wandb": wandb}
"""Trackers by the name in `TrainConfig.track`: each gives `track(step, metrics)`."""


def _missing(name: str, package: str) -> ConfigError:
    return ConfigError(f"track={name} wants {package}; pip install 'mmjax[track]'")


def append(log: Path, step: int, metrics: Mapping[str, float]) -> None:
    """Add a line to `metrics.jsonl`; a value that is not finite becomes null, as JSON has none."""
    line = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
    with open(log, "a", encoding="utf-8") as lines:
        lines.write(json.dumps({"step": step, **line}, allow_nan=False) + "\n")


def read(log: Path) -> list[dict[str, Any]]:
    """The lines of `metrics.jsonl`."""
    return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]


def forget(log: Path, step: int) -> None:
    """Drop the lines from `step` on: an interrupted run wrote them, this one does them again.

    The last one may be half a line, if the machine died.
    """
    if log.exists():
        lines = log.read_text(encoding="utf-8").splitlines(keepends=True)
        whole = [line for line in lines if line.endswith("\n")]
        write_bytes(log, "".join(x for x in whole if json.loads(x)["step"] < step).encode())


def plot(log: Path, picture: Path, *, chance: float) -> None:
    """Draw loss, learning rate and scale by step as a PNG.

    Args:
        log: `metrics.jsonl`.
        picture: where the PNG goes.
        chance: the loss of a model that knows nothing, in nats: a dashed line.
    """
    from matplotlib.figure import Figure

    lines = read(log)
    steps = [line["step"] for line in lines]
    figure = Figure(figsize=(6.4, 6.4), layout="constrained")
    loss, rate, scale = figure.subplots(3, 1, sharex=True, height_ratios=(3, 1, 1))
    for axes, name in ((loss, "loss"), (rate, "learning_rate"), (scale, "scale")):
        values = [math.nan if line[name] is None else line[name] for line in lines]
        axes.plot(steps, values, marker="." if len(steps) < 50 else "")
        axes.set_ylabel(name.replace("_", " "))
        axes.grid(alpha=0.3)
    loss.axhline(chance, linestyle="--", color="grey", linewidth=1)
    scale.set_xlabel("step")
    with atomic_path(picture) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None})
