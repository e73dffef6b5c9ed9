"""Which arithmetic a tower computes in, and which formulation of it is fast where it runs."""

from pathlib import Path
from typing import Literal, NamedTuple

import jax

from mmjax.core.errors import ConfigError

Compute = Literal["float32", "bfloat16"]
Backend = Literal["auto", "cpu", "accelerator"]

_CPUINFO = Path("/proc/cpuinfo")


class Policy(NamedTuple):
    """How the towers compute; parameters, norms, softmax and outputs are float32 under any.

    `compute` is the type that the operands of every product are rounded to (sums are float32).
    `backend` chooses between formulations that are equal in value: `cpu` writes a bfloat16
    convolution as matrix products, `accelerator` leaves it to the compiler; `auto` looks at
    JAX's default backend. `remat` keeps only the input of every Transformer block and ResNet stage
    for the backward pass and computes the rest again there: a third more products, the same
    values.
    """

    compute: Compute = "float32"
    backend: Backend = "auto"
    remat: bool = False


def resolve(policy: Policy) -> Policy:
    """Returns `policy` with `backend` decided; raises ConfigError for an unknown value."""
    if policy.compute not in ("float32", "bfloat16"):
        raise ConfigError(f"compute must be 'float32' or 'bfloat16', got {policy.compute!r}")
    if policy.backend not in ("auto", "cpu", "accelerator"):
        raise ConfigError(f"backend must be 'auto', 'cpu' or 'accelerator', got {policy.backend!r}")
    if policy.backend != "auto":
        return policy
    backend = "cpu" if jax.default_backend() == "cpu" else "accelerator"
    return policy._replace(backend=backend)


def inference_compute(
    compute: Literal["auto", "float32", "bfloat16"] = "auto",
    cpuinfo: Path = _CPUINFO,
) -> Compute:
    """Returns the arithmetic for frozen encoders.

    `auto` is bfloat16 on accelerators and on CPUs whose flags list `amx_bf16` (elsewhere a CPU
    emulates bfloat16 and float32 is faster), float32 otherwise.
    """
    if compute == "auto":
        fast = jax.default_backend() != "cpu" or _has_amx(cpuinfo)
        return "bfloat16" if fast else "float32"
    return resolve(Policy(compute)).compute


def _has_amx(cpuinfo: Path) -> bool:
    if not cpuinfo.is_file():  # not Linux
        return False
    with cpuinfo.open(encoding="ascii", errors="replace") as lines:
        flags = next((line for line in lines if line.startswith("flags")), "")
    return "amx_bf16" in flags.split()
