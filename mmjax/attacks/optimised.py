"""Triggers that are optimised before they are put on images, by their names; and their files.

Each has a preparation, which ends in plain arrays. They are written into the output folder once
(`triggers/NUMBER-NAME.safetensors`, with its hash in the manifest); from then on putting the
trigger on images is a pure function of images, keys and these arrays, as that of `TRIGGERS` is.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Float, Key
from safetensors.numpy import save_file

from mmjax.attacks.badclip import prepare_badclip
from mmjax.attacks.optimisation import Prepared
from mmjax.attacks.stego import apply_issba, prepare_issba
from mmjax.attacks.trojan import prepare_trojan
from mmjax.core.files import atomic_path
from mmjax.models.tensors import open_tensors
from mmjax.ops.patches import added, pasted
from mmjax.ops.stamps import Stamped

Arrays = Mapping[str, Any]


class Optimised(NamedTuple):
    """An entry of `OPTIMISED`.

    `prepare(material, **parameters)` finds the arrays, `apply(images, keys, arrays, **parameters)`
    puts the trigger on images.
    """

    prepare: Callable[..., Prepared]
    apply: Callable[..., Stamped]
    defaults: Mapping[str, Any]
    source: str


def _trojan(
    images: Float[Array, "b h w 3"], keys: Key[Array, " b"], arrays: Arrays, **parameters: Any
) -> Stamped:
    return added(images, keys, arrays["patch"])


def _badclip(
    images: Float[Array, "b h w 3"], keys: Key[Array, " b"], arrays: Arrays, **parameters: Any
) -> Stamped:
    return pasted(images, keys, arrays["patch"], location=parameters["location"])


def _issba(
    images: Float[Array, "b h w 3"], keys: Key[Array, " b"], arrays: Arrays, **parameters: Any
) -> Stamped:
    return apply_issba(images, keys, dict(arrays))


OPTIMISED: dict[str, Optimised] = {
    "trojan": Optimised(
        prepare_trojan,
        _trojan,
        {
            "patch_size": 32 / 224,
            "sample": 1024,
            "steps": 200,
            "batch_size": 32,
            "step_size": 0.02,
            "epsilon": 0.3,
            "units": 2,
        },
        "Liu et al. 2018 (Trojaning Attack on Neural Networks, NDSS), as in BackdoorBench",
    ),
    "badclip": Optimised(
        prepare_badclip,
        _badclip,
        {
            "patch_size": 16 / 224,
            "location": "centre",
            "sample": 2048,
            "steps": 1000,
            "batch_size": 64,
            "learning_rate": 0.01,
            "margin": 1.0,
            "triplet": 500.0,
        },
        "Liang et al. 2024 (BadCLIP, arXiv:2311.12075)",
    ),
    "issba": Optimised(
        prepare_issba,
        _issba,
        {
            "bits": 100,
            "width": 32,
            "sample": 4096,
            "steps": 1000,
            "batch_size": 32,
            "learning_rate": 1e-3,
            "image_weight": 100.0,
            "pattern_seed": 0,
        },
        "Li et al. 2021 (ISSBA, arXiv:2012.03816), trained as in BackdoorBench",
    ),
}
"""Every optimised trigger, by the name that a configuration gives it."""


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write a preparation's arrays as safetensors; the same arrays give the same bytes."""
    with atomic_path(path) as temporary:
        save_file({name: np.ascontiguousarray(value) for name, value in arrays.items()}, temporary)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read what `write_arrays` wrote.

    Raises:
        WeightsError: no such file, truncated or damaged.
    """
    with open_tensors(path) as tensors:
        return {name: tensors.read(name) for name in sorted(tensors.shapes)}
