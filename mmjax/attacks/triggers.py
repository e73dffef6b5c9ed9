"""A configured trigger as a function of images and their names."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8

from mmjax.attacks.config import TriggerConfig
from mmjax.attacks.optimised import OPTIMISED
from mmjax.core import keys
from mmjax.core.config import to_dict
from mmjax.core.errors import ConfigError
from mmjax.ops.stamps import image_keys
from mmjax.ops.triggers import TRIGGERS

Stamp = Callable[[UInt8[np.ndarray, "n h w 3"], Sequence[str]], UInt8[np.ndarray, "n h w 3"]]


KNOWN = {**TRIGGERS, **OPTIMISED}
"""Every trigger, fixed or optimised, by its name; each has `defaults` and a `source`."""


def parameters(config: TriggerConfig) -> dict[str, Any]:
    """The parameters of a configured trigger: its defaults and what the configuration changes.

    Raises:
        ConfigError: the configuration sets what this trigger does not have.
    """
    chosen = {} if config.name == "none" else dict(KNOWN[config.name].defaults)
    for name, value in to_dict(config).items():
        if name == "name" or value is None:
            continue
        if name not in chosen:
            known = f"no such parameter; it has {', '.join(chosen)}" if chosen else "no parameters"
            raise ConfigError(f"config.trigger.{name}: {config.name} has {known}")
        chosen[name] = value
    return chosen


def make_stamp(
    config: TriggerConfig,
    seed: int,
    *,
    arrays: Mapping[str, np.ndarray] | None = None,
    batch_size: int = 32,
) -> Stamp:
    """The function that puts the trigger on images, given a name of each.

    What it does to an image depends on the seed and the image's name alone. Another seed, as for
    triggered test images, draws places and noise anew. Pixels outside the trigger keep their
    values exactly.

    Args:
        config: the trigger.
        seed: of the places and the noise.
        arrays: an optimised trigger's preparation (`OPTIMISED`).
        batch_size: images a step; the last step is padded, so that one shape is compiled.

    Raises:
        ConfigError: the trigger is optimised, and `arrays` are missing.
    """
    chosen = parameters(config)
    if config.name == "none":
        return lambda images, names: images
    if config.name in OPTIMISED and not arrays:
        raise ConfigError(f"{config.name} is optimised first; pass the arrays of its preparation")
    apply = KNOWN[config.name].apply

    @jax.jit
    def step(images: jax.Array, numbers: jax.Array, prepared: Mapping[str, Any]) -> jax.Array:
        key = image_keys(keys.stream(jax.random.key(seed), "trigger", config.name), numbers)
        pixels = images.astype(jnp.float32) / 255
        given = (prepared,) if prepared else ()
        stamped = apply(pixels, key, *given, **chosen).images
        return jnp.round(stamped * 255).astype(jnp.uint8)

    def stamp(
        images: UInt8[np.ndarray, "n h w 3"], names: Sequence[str]
    ) -> UInt8[np.ndarray, "n h w 3"]:
        out = np.empty_like(images)
        numbers = np.array([_number(name) for name in names], np.uint32)
        for start in range(0, len(images), batch_size):
            part = slice(start, start + batch_size)
            missing = batch_size - len(images[part])
            padded = np.pad(images[part], ((0, missing), (0, 0), (0, 0), (0, 0)))
            stamped = step(padded, np.pad(numbers[part], (0, missing)), dict(arrays or {}))
            out[part] = np.asarray(stamped)[: batch_size - missing]
        return out

    return stamp


def _number(name: str) -> int:
    """A stable 32-bit number of an image's name."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "little")
