"""A plan in words and numbers, for a terminal and as JSON."""

from typing import Any

from mmjax.measure.chips import chip_of
from mmjax.measure.plan import Plan, cores_needed
from mmjax.measure.plan_config import PlanConfig

_LONG = {
    "compute": "arithmetic",
    "memory": "HBM traffic",
    "interconnect": "interconnect",
    "transfer": "host to device",
    "decode": "reading and decoding",
}


def lines(config: PlanConfig, made: Plan) -> list[str]:
    """What is known of a step, a few lines."""
    compiled = made.compiled
    where = f"{config.devices} CPU devices"
    if config.platform == "tpu":
        where = f"{config.topology} ({chip_of(config.topology)[2]} chips)"
    head = f"{config.step} {config.preset}, batch {made.batch_size:,}, on {where}"
    told = [head, f"  compiled in {compiled.seconds:.0f} s"]
    if not compiled.fits:
        return [*told, f"  DOES NOT FIT: {compiled.why}"]
    wanted = compiled.arguments + compiled.temporaries + compiled.output
    room = ""
    if config.platform == "tpu":
        room = f" of {chip_of(config.topology)[1].memory / 1e9:.1f}"
    told.append(
        f"  fits: {wanted / 1e9:.2f}{room} GB a device (arguments {compiled.arguments / 1e9:.2f}, "
        f"temporaries {compiled.temporaries / 1e9:.2f}, output {compiled.output / 1e9:.2f})"
    )
    told.append(
        f"  a device, a batch: {compiled.flops / 1e12:.3f} TFLOP, "
        f"{compiled.traffic / 1e9:.2f} GB of memory traffic"
    )
    for kind, (number, size, largest) in compiled.collectives.items():
        told.append(
            f"  {number} x {kind}: {size / 1e6:.2f} MB in all, {largest / 1e6:.2f} the largest"
        )
    if not compiled.collectives:
        told.append("  no collectives")
    if not made.bounds:
        return told
    told.append("  at least, a batch:")
    for name, seconds in sorted(made.bounds.items(), key=lambda item: -item[1]):
        told.append(f"    {_LONG[name]:<22}{1e3 * seconds:10.2f} ms")
    chips = chip_of(config.topology)[2]
    hours = _rows(config) / made.rate / 3600
    told.append(f"  what binds: {_LONG[made.binds]}; at most {made.rate:,.0f} rows a second")
    told.append(
        f"  {_rows(config):,.0f} rows: at least {_duration(hours)}, {hours * chips:.2f} chip-hours"
    )
    if made.binds == "decode":
        told.append(
            f"  {cores_needed(config, made):,} host cores would keep the chips busy at "
            f"{config.host.decode_rate:g} images a second each; so would shards whose images are "
            "stored at the model's size"
        )
    return told


def as_json(config: PlanConfig, made: Plan) -> dict[str, Any]:
    """The same as plain values."""
    found: dict[str, Any] = {
        "step": config.step,
        "preset": config.preset,
        "platform": config.platform,
        "topology": config.topology if config.platform == "tpu" else str(config.devices),
        "batch_size": made.batch_size,
        **made.compiled._asdict(),
        "collectives": dict(made.compiled.collectives),
        "bounds": made.bounds,
    }
    if made.bounds:
        hours = _rows(config) / made.rate / 3600
        found |= {
            "binds": made.binds,
            "rows_per_second": made.rate,
            "rows": _rows(config),
            "hours": hours,
            "chip_hours": hours * chip_of(config.topology)[2],
            "cores_needed": cores_needed(config, made),
        }
    return found


def _rows(config: PlanConfig) -> float:
    """Rows of the whole run: a scan sees every pair once, a training as often as its steps say."""
    if config.step == "train" and config.train.steps > 1:
        return float(config.train.steps * config.batch_size)
    return config.pairs


def _duration(hours: float) -> str:
    if hours < 1 / 60:
        return f"{3600 * hours:.1f} s"
    return f"{60 * hours:.1f} min" if hours < 1 else f"{hours:.1f} h"
