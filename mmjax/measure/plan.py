"""What a step would take on accelerators that are not here, compiled for them ahead of time.

The compiler says whether a step fits, its operations, its traffic to memory and its collectives;
published peaks (`chips.py`) turn these into the time below which no run of it can fall. A roofline
is a bound, not a forecast: kernels reach a part of it.
"""

import dataclasses
import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh

import mmjax
from mmjax.core.config import to_dict
from mmjax.core.errors import ConfigError
from mmjax.core.files import write_json
from mmjax.core.mesh import DATA, MODEL
from mmjax.measure.chips import chip_of
from mmjax.measure.collectives import Traffic, collectives
from mmjax.measure.flops import count
from mmjax.measure.plan_config import PlanConfig
from mmjax.measure.steps import make_abstract_step

Say = Callable[[str], None]

_QUIET = {
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_STDERR_LOG_LEVEL": "3",
    "TPU_MIN_LOG_LEVEL": "3",
}
"""Keep libtpu from asking the network where it runs, and from complaining that it is nowhere."""


class Compiled(NamedTuple):
    """What the compiler says of one device's share of a step.

    Fields:
        fits: whether it fits into the device's memory.
        why: what the compiler said if not.
        seconds: how long it compiled.
        arguments, temporaries, output: bytes; output that reuses arguments is not counted.
        flops: operations of products and convolutions, loops multiplied out (`flops.py`).
        traffic: bytes moved between memory and cores; a compiler counts the body of a loop once,
            so this is its count times what loops do to `flops`.
        collectives: by kind.
        sent: bytes of a row that come from the host.
    """

    fits: bool
    why: str
    seconds: float
    arguments: int = 0
    temporaries: int = 0
    output: int = 0
    flops: float = 0.0
    traffic: float = 0.0
    collectives: Mapping[str, Traffic] = MappingProxyType({})
    sent: int = 0


class Plan(NamedTuple):
    """A step and what bounds it: seconds of a batch by what could bind, and the whole set's."""

    batch_size: int
    compiled: Compiled
    bounds: dict[str, float]

    @property
    def binds(self) -> str:
        """What takes longest."""
        return max(self.bounds, key=lambda name: self.bounds[name])

    @property
    def rate(self) -> float:
        """Rows a second at most, over all devices."""
        return self.batch_size / self.bounds[self.binds]


def plan(config: PlanConfig, say: Say, cache: Path | None = None) -> list[Plan]:
    """Compile a step, or with `sweep` ever larger ones until one does not fit.

    Args:
        config: the step and the machine.
        say: is told before something takes long.
        cache: folder of what was compiled before; None compiles anew.

    Raises:
        ConfigError: no such topology; libtpu is not installed.
    """
    made = []
    while True:
        compiled = _cached(config, say, cache)
        bounds = _bounds(config, compiled) if compiled.fits else {}
        made.append(Plan(config.batch_size, compiled, bounds))
        if not config.sweep or not compiled.fits:
            return made
        config = dataclasses.replace(config, batch_size=2 * config.batch_size)


def make_devices(config: PlanConfig) -> list[Any]:
    """The devices that are planned for; those of a TPU are descriptions.

    Raises:
        ConfigError: libtpu is not there or does not know the topology; too few CPU devices.
    """
    if config.platform == "cpu":
        found = jax.devices()
        if len(found) < config.devices:
            raise ConfigError(
                f"{config.devices} devices are wanted, {len(found)} are simulated: "
                f"set JAX_NUM_CPU_DEVICES={config.devices}"
            )
        return list(found[: config.devices])
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    try:
        described = topologies.get_topology_desc(
            platform="tpu", topology_name=config.topology
        ).devices
    except (RuntimeError, ValueError, NotImplementedError) as error:
        if not _has_libtpu():
            raise ConfigError(
                "compiling for TPUs needs libtpu (no TPU): pip install 'mmjax[tpu-plan]', or plan "
                "with --platform=cpu"
            ) from error
        raise ConfigError(f"libtpu knows no topology {config.topology}: {error}") from error
    return list(described)


def compile_step(config: PlanConfig) -> Compiled:
    """Compile one step; a step that does not fit is an answer, not an error."""
    devices = make_devices(config)
    model = config.train.mesh.model if config.step == "train" else 1
    if len(devices) % model or config.batch_size % (len(devices) // model):
        raise ConfigError(
            f"{len(devices)} devices with mesh.model={model} share no batch of "
            f"{config.batch_size}; choose a multiple of {len(devices) // model}"
        )
    mesh = Mesh(
        np.array(devices).reshape(-1, model),
        (DATA, MODEL),
        axis_types=(AxisType.Auto, AxisType.Auto),
    )
    step = make_abstract_step(config, mesh)
    traced = step.function.trace(*step.arguments)
    flops, lowered = count(traced.jaxpr) / len(devices), traced.lower()
    again = count(traced.jaxpr) / max(1.0, count(traced.jaxpr, once=True))
    start = time.perf_counter()
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        first = next(line for line in str(error).splitlines() if line.strip())
        return Compiled(False, first, time.perf_counter() - start)
    seconds = time.perf_counter() - start
    memory, costs = compiled.memory_analysis(), compiled.cost_analysis()
    made = Compiled(
        True,
        "",
        seconds,
        arguments=memory.argument_size_in_bytes,
        temporaries=memory.temp_size_in_bytes,
        output=memory.output_size_in_bytes - memory.alias_size_in_bytes,
        flops=flops,
        traffic=again * costs.get("bytes accessed", 0.0),
        collectives=collectives(compiled.as_text(), step.repeats),
        sent=step.sent,
    )
    if config.platform == "tpu":
        room = chip_of(config.topology)[1].memory
        wanted = made.arguments + made.temporaries + made.output
        if wanted > room:
            why = f"{wanted / 1e9:.1f} GB a device, there are {room / 1e9:.1f}"
            made = made._replace(fits=False, why=why)
    return made


def _bounds(config: PlanConfig, compiled: Compiled) -> dict[str, float]:
    """Seconds of a batch by what could bind; on a CPU nothing is known of its peaks."""
    if config.platform == "cpu":
        return {}
    chip, chips = chip_of(config.topology)[1:]
    hosts = -(-chips // chip.per_host)
    cores = hosts * (config.host.cores or chip.host_cores)
    bounds = {
        "compute": compiled.flops / chip.flops,
        "memory": compiled.traffic / chip.bandwidth,
        "interconnect": _moved(compiled, chips) / chip.interconnect,
        "transfer": compiled.sent * config.batch_size / hosts / config.host.transfer,
    }
    if config.step in ("encode", "train"):
        bounds["decode"] = config.batch_size / (cores * config.host.decode_rate)
    return bounds


def _moved(compiled: Compiled, chips: int) -> float:
    """Bytes that a chip sends: a ring moves (n - 1) / n of a result, an all-reduce twice."""
    share = (chips - 1) / chips
    return share * sum(
        found.bytes * (2 if kind == "all-reduce" else 1)
        for kind, found in compiled.collectives.items()
    )


def cores_needed(config: PlanConfig, made: Plan) -> int:
    """Host cores, over all hosts, that decode as fast as the chips could compute."""
    device = max(value for name, value in made.bounds.items() if name not in ("decode", "transfer"))
    return math.ceil(made.batch_size / device / config.host.decode_rate)


def _cached(config: PlanConfig, say: Say, cache: Path | None) -> Compiled:
    """What was compiled before by the same code and compiler for the same plan, or compile it."""
    wanted = dataclasses.replace(config, pairs=1.0, sweep=False, host=type(config.host)())
    text = json.dumps([to_dict(wanted), _code(), _versions()], sort_keys=True, default=list)
    file = cache / f"{hashlib.sha256(text.encode()).hexdigest()[:24]}.json" if cache else None
    if file is not None and file.is_file():
        known = json.loads(file.read_text(encoding="utf-8"))
        kinds = {kind: Traffic(*found) for kind, found in known.pop("collectives").items()}
        return Compiled(**known, collectives=kinds)
    where = config.topology if config.platform == "tpu" else f"{config.devices} CPU devices"
    say(f"compiling {config.step} {config.preset}, batch {config.batch_size}, for {where} ...")
    compiled = compile_step(config)
    if file is not None:
        write_json(file, compiled._asdict() | {"collectives": dict(compiled.collectives)})
    return compiled


def _code() -> str:
    """A hash of the code that steps are made of."""
    package = Path(mmjax.__file__).parent
    digest = hashlib.sha256()
    for part in ("core", "ops", "models", "learn", "train", "measure"):
        for file in sorted((package / part).glob("*.py")):
            digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()


def _versions() -> list[str]:
    from importlib.metadata import PackageNotFoundError, version

    found = [jax.__version__]
    try:
        found.append(version("libtpu"))
    except PackageNotFoundError:
        found.append("")
    return found


def _has_libtpu() -> bool:
    return bool(_versions()[1])
