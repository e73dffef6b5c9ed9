"""How fast the parts are here, beside what the machine can do and beside peers.

All that is compared runs in turn, several times over, so that other work on the machine slows all
of it alike; medians are told, and the quartiles beside them.
"""

import importlib
import importlib.util
import json
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mmjax.core.errors import ConfigError, InputError
from mmjax.core.files import write_json
from mmjax.core.rundir import versions
from mmjax.measure.bench_config import BenchConfig

Say = Callable[[str], None]

CASES = {
    "machine": "machine:peaks",
    "encode": "towers:encode",
    "text": "towers:text",
    "pair": "towers:pair",
    "pgd": "towers:pgd",
    "hotflip": "towers:hotflip",
    "loss": "kernels:loss",
    "gmm": "kernels:gmm",
    "z": "kernels:correlation",
    "neighbours": "kernels:neighbours",
    "loader": "pipelines:loader",
    "photos": "photos:photos",
    "checkpoint": "pipelines:checkpoint",
    "scan": "pipelines:scan",
}
"""Where the parts of a case are made, below `measure.bench_`."""

PEERS = {
    case: f"peers:{case}"
    for case in ("encode", "text", "pair", "pgd", "hotflip", "loss", "neighbours")
}
"""Where the parts are made that need torch and open_clip."""

ABSENT = "torch and open_clip are not both installed (`make parity`): their parts are left out"


class Part(NamedTuple):
    """Something that is timed.

    Fields:
        name: what it is.
        run: does it once and waits for its end.
        items: how many of `unit` one run does.
        unit: what is counted, as "image".
        flops: of one run's products and convolutions; 0 where they do not matter.
        traffic: bytes that one run must read and write at least; 0 where they do not matter.
        temporaries: bytes that one run holds beside its inputs and results; 0 where not known.
        peer: whether it is another implementation, or another formulation, of what is compared.
        threads: how many it was given; 0 where the runtime decides.
        compute: the type that it was found fastest in; "" where its name says it.
    """

    name: str
    run: Callable[[], Any]
    items: float
    unit: str
    flops: float = 0.0
    traffic: float = 0.0
    temporaries: float = 0.0
    peer: bool = False
    threads: int = 0
    compute: str = ""


class Timing(NamedTuple):
    """Seconds of one run: the first, which compiles, and the quartiles of the others."""

    first: float
    low: float
    median: float
    high: float
    cpu: float


def bench(config: BenchConfig, out: Path, say: Say) -> dict[str, Any]:
    """Time the parts of a case and write `bench-CASE.json` to `out`.

    Args:
        config: which case, how large, how often.
        out: a folder; files of other cases stay.
        say: is told of every part.

    Raises:
        ConfigError: no such case.
    """
    if config.case not in CASES:
        raise ConfigError(f"no case {config.case!r}; there are: {', '.join(CASES)}")
    with tempfile.TemporaryDirectory(prefix="mmjax-bench-") as work:
        makers = [CASES[case] for case in dict.fromkeys(("machine", config.case))]
        if alone := config.case in PEERS and not torch_is_here():
            say(ABSENT)
        elif config.case in PEERS:
            makers.append(PEERS[config.case])
        parts = [part for maker in makers for part in _parts(maker, config, Path(work))]
        timings = time_in_turn(parts, config.repeats, say)
    peaks = {
        part.name: (part.flops or part.traffic) / timing.median
        for part, timing in zip(parts, timings, strict=True)
        if part.name in PEAKS
    }
    rows = [
        as_row(part, timing, peaks)
        for part, timing in zip(parts, timings, strict=True)
        if config.case == "machine" or part.name not in PEAKS
    ]
    found = {
        "case": config.case,
        "size": config.size,
        "repeats": config.repeats,
        "data": Path(config.data).name,
        "device": jax.devices()[0].device_kind,
        "devices": len(jax.devices()),
        "cores": len(os.sched_getaffinity(0)),
        "versions": versions() | _peer_versions(),
        "absent": ABSENT if alone else "",
        "peaks": peaks,
        "resident_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "rows": rows,
    }
    write_json(out / f"bench-{config.case}.json", found)
    return found


PEAKS = ("float32 product", "bfloat16 product", "copy")
"""Parts of the case `machine`: operations a second, and bytes a second."""


def torch_is_here() -> bool:
    """Whether the peers that `PEERS` names can be imported."""
    return all(importlib.util.find_spec(name) for name in ("torch", "open_clip"))


def _peer_versions() -> dict[str, str]:
    if not torch_is_here():
        return {}
    return {name: metadata.version(name) for name in ("torch", "open_clip_torch")}


def _parts(maker: str, config: BenchConfig, work: Path) -> list[Part]:
    module, _, name = maker.partition(":")
    make = getattr(importlib.import_module(f"mmjax.measure.bench_{module}"), name)
    return list(make(config, work))


def time_in_turn(parts: Iterable[Part], repeats: int, say: Say) -> list[Timing]:
    """Time parts in turn, `repeats` times after one run that warms up."""
    parts = list(parts)
    firsts = []
    for part in parts:
        say(f"warming up: {part.name}")
        start = time.perf_counter()
        part.run()
        firsts.append(time.perf_counter() - start)
    walls: list[list[float]] = [[] for _ in parts]
    cpus: list[list[float]] = [[] for _ in parts]
    for turn in range(repeats):
        say(f"turn {turn + 1} of {repeats}")
        for i, part in enumerate(parts):
            cpu, wall = time.process_time(), time.perf_counter()
            part.run()
            walls[i].append(time.perf_counter() - wall)
            cpus[i].append(time.process_time() - cpu)
    return [
        Timing(
            first,
            float(np.quantile(wall, 0.25)),
            statistics.median(wall),
            float(np.quantile(wall, 0.75)),
            statistics.median(cpu),
        )
        for first, wall, cpu in zip(firsts, walls, cpus, strict=True)
    ]


def as_row(part: Part, timing: Timing, peaks: dict[str, float]) -> dict[str, Any]:
    """A part's figures; its share of the peak that bounds it, where its work is known."""
    row: dict[str, Any] = {
        "name": part.name,
        "peer": part.peer,
        "unit": part.unit,
        "items_per_second": part.items / timing.median,
        "seconds": timing.median,
        "quartiles": [timing.low, timing.high],
        "cpu_seconds": timing.cpu,
        "first_seconds": timing.first,
    }
    if part.threads:
        row["threads"] = part.threads
    if part.compute:
        row["compute"] = part.compute
    if part.temporaries:
        row["temporary_bytes"] = part.temporaries
    if part.flops and part.name not in PEAKS:
        kind = "bfloat16 product" if "bfloat16" in part.name else "float32 product"
        row["flops_per_second"] = part.flops / timing.median
        row["share_of_peak"] = row["flops_per_second"] / peaks[kind]
    elif part.traffic and part.name not in PEAKS:
        row["bytes_per_second"] = part.traffic / timing.median
        row["share_of_peak"] = row["bytes_per_second"] / peaks["copy"]
    return row


def lines(found: dict[str, Any], earlier: dict[str, Any] | None = None) -> Iterator[str]:
    """The figures of a case for a terminal, beside those of an earlier run if there is one."""
    known = {row["name"]: row for row in (earlier or {"rows": []})["rows"]}
    width = max(len(row["name"]) for row in found["rows"])
    for row in found["rows"]:
        low, high = row["quartiles"]
        told = (
            f"{row['name']:<{width}}  {_short(row['items_per_second'])} {plural(row['unit'])}/s  "
            f"{1e3 * row['seconds']:.1f} ms ({1e3 * low:.1f}-{1e3 * high:.1f})"
        )
        if "share_of_peak" in row:
            told += f"  {row['share_of_peak']:.0%} of the machine's peak"
        if row["name"] in known:
            ratio = row["items_per_second"] / known[row["name"]]["items_per_second"]
            told += f"  {ratio:.2f} x the earlier rate"
        yield told
    own = [row for row in found["rows"] if not row["peer"] and row["name"] not in PEAKS]
    for peer in (row for row in found["rows"] if row["peer"]):
        for row in own:
            if row["unit"] == peer["unit"]:
                ratio = row["items_per_second"] / peer["items_per_second"]
                yield f"{row['name']}: {ratio:.2f} x {peer['name']}"
    if found.get("absent"):
        yield found["absent"]


def read(file: Path | str) -> dict[str, Any]:
    """A result that `bench` wrote.

    Raises:
        InputError: it is none.
    """
    try:
        found = json.loads(Path(file).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{file} is no result of `mmjax bench`") from error
    if not isinstance(found, dict) or not {"case", "size", "rows"} <= set(found):
        raise InputError(f"{file} is no result of `mmjax bench`")
    return found


def plural(unit: str) -> str:
    """More than one of them."""
    return f"{unit[:-1]}ies" if unit.endswith("y") else f"{unit}s"


def _short(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"


def jitted(function: Callable[..., Any], *arguments: Any) -> Callable[[], Any]:
    """A run of a jitted function that waits for its result."""
    compiled = jax.jit(function)
    placed = jax.tree.map(jnp.asarray, arguments)
    return lambda: jax.block_until_ready(compiled(*placed))
