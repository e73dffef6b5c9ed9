"""What accelerators can do at most, as their makers publish it. Imports no JAX."""

from typing import NamedTuple

from mmjax.core.errors import ConfigError

GIB = 2**30
_DOCS = "https://docs.cloud.google.com/tpu/docs"


class Chip(NamedTuple):
    """Peaks of one chip.

    Fields:
        flops: bfloat16 operations a second.
        memory: bytes of HBM.
        bandwidth: bytes a second between HBM and cores.
        interconnect: bytes a second to other chips, all links, both directions.
        per_host: chips of one host at most.
        host_cores: virtual cores of such a host.
        source: where these figures stand.
    """

    flops: float
    memory: float
    bandwidth: float
    interconnect: float
    per_host: int
    host_cores: int
    source: str


CHIPS = {
    "v4": Chip(275e12, 32 * GIB, 1.2e12, 300e9, 4, 240, f"{_DOCS}/v4"),
    "v5e": Chip(197e12, 16e9, 819e9, 400e9, 8, 224, f"{_DOCS}/v5e"),
    "v5p": Chip(459e12, 95 * GIB, 2765e9, 1200e9, 4, 208, f"{_DOCS}/v5p"),
    "v6e": Chip(918e12, 32e9, 1638e9, 800e9, 8, 180, f"{_DOCS}/v6e"),
}


def chip_of(topology: str) -> tuple[str, Chip, int]:
    """The chip of a topology such as `v5e:2x4`, and how many there are.

    Raises:
        ConfigError: an unknown chip or an unreadable shape.
    """
    name, _, shape = topology.partition(":")
    sides = shape.split("x")
    if name not in CHIPS or not all(side.isdecimal() and int(side) for side in sides):
        raise ConfigError(
            f"a topology is CHIP:SHAPE, as v5e:2x4, with a chip of {', '.join(CHIPS)}; "
            f"got {topology!r}"
        )
    count = 1
    for side in sides:
        count *= int(side)
    return name, CHIPS[name], count
