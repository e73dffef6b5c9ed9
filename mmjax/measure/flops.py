"""Floating-point operations of a program's products and convolutions, its loops multiplied out.

A compiler's own count takes the body of a loop once; here a scan counts as often as it runs. What
is not a product or a convolution is left out: a few percent of a tower.
"""

import math
from collections.abc import Iterator
from typing import Any

from jax.extend import core


def count(jaxpr: Any, *, once: bool = False) -> float:
    """Operations of a (closed) jaxpr over all devices; a multiplication and an addition are two.

    Of the branches of a condition the costliest counts; a loop whose length is not known counts
    once, and with `once` every loop does, as compilers count.
    """
    equations = getattr(jaxpr, "jaxpr", jaxpr).eqns
    return sum((_of(equation, once) for equation in equations), start=0.0)


def _of(equation: Any, once: bool) -> float:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        return _product(equation)
    if name == "conv_general_dilated":
        return _convolution(equation)
    if name == "cond":
        return max(count(branch, once=once) for branch in params["branches"])
    inner = sum((count(each, once=once) for each in _inner(params)), start=0.0)
    if name == "scan":
        return inner if once else params["length"] * inner
    if name == "shard_map":  # its jaxpr is one device's
        return params["mesh"].size * inner
    return inner


def _inner(params: dict[str, Any]) -> Iterator[Any]:
    for value in params.values():
        for each in value if isinstance(value, tuple | list) else (value,):
            if isinstance(each, core.Jaxpr | core.ClosedJaxpr):
                yield each


def _product(equation: Any) -> float:
    (contracted, _), _ = equation.params["dimension_numbers"]
    left = equation.invars[0].aval.shape
    return 2.0 * math.prod(equation.outvars[0].aval.shape) * math.prod(left[i] for i in contracted)


def _convolution(equation: Any) -> float:
    numbers = equation.params["dimension_numbers"]
    kernel = equation.invars[1].aval.shape
    # a group sees its share of the input's channels, which is what the kernel's shape holds;
    # zeros that a dilated input (a transposed convolution) holds are not multiplied
    _, of_input, *window = (kernel[i] for i in numbers.rhs_spec)
    positions = math.prod(equation.outvars[0].aval.shape)
    dilation = math.prod(equation.params["lhs_dilation"])
    return 2.0 * positions * of_input * math.prod(window) / dilation
