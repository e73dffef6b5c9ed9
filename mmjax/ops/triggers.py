"""Every fixed trigger by its name: what an attacker does to an image's pixels.

Every trigger maps (images, keys) to (stamped images, mask of the pixels it may have changed);
pixels in [0, 1], NHWC, one key an image. An image's result depends on that image and its own key
only, never on the rest of the batch. A trigger with a `pattern_seed` shows the same pattern on
every image. Triggers act at the model's resolution, before its normalisation.
Triggers that are optimised first are in `mmjax.attacks.optimised`.
Cost: O(pixels of the batch); peak memory a few batches of float32.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from mmjax.ops.blends import (
    blended,
    blended_stripes,
    blended_text,
    blended_triangles,
    nashville,
    sig,
)
from mmjax.ops.patches import badnets, badnets_fixed, badnets_stripes
from mmjax.ops.stamps import Stamped
from mmjax.ops.warps import wanet


class Trigger(NamedTuple):
    """An entry of `TRIGGERS`: `apply(images, keys, **parameters)`, its parameters, its source."""

    apply: Callable[..., Stamped]
    defaults: Mapping[str, Any]
    source: str


_PATCH = {"patch_size": 16 / 224, "location": "random"}
_STRUCTURED = "Singh et al. 2024 (PerturbAndRecover)"
_WANET = "Nguyen & Tran 2021 (arXiv:2102.10369)"

TRIGGERS: dict[str, Trigger] = {
    "badnets": Trigger(
        badnets, _PATCH, "Gu et al. 2017 (arXiv:1708.06733), as in CleanCLIP (arXiv:2303.03323)"
    ),
    "badnets_fixed": Trigger(
        badnets_fixed, _PATCH, "Gu et al. 2017, the dots of Huang et al. 2025 (arXiv:2502.01385)"
    ),
    "badnets_stripes": Trigger(
        badnets_stripes, {**_PATCH, "pattern_seed": 0}, f"{_STRUCTURED}, BadNet-Stripes"
    ),
    "blended": Trigger(
        blended,
        {"alpha": 0.2, "pattern": "noise", "pattern_seed": 0},
        "Chen et al. 2017 (arXiv:1712.05526), as in CleanCLIP (arXiv:2303.03323)",
    ),
    "blended_stripes": Trigger(
        blended_stripes,
        {"alpha": 0.05, "width": 1, "pattern_seed": 0},
        f"{_STRUCTURED}, Blended-Stripes",
    ),
    "blended_triangles": Trigger(
        blended_triangles, {"alpha": 0.05, "width": 14}, f"{_STRUCTURED}, Triangles"
    ),
    "blended_text": Trigger(blended_text, {"alpha": 0.5, "text": "TEXT"}, f"{_STRUCTURED}, Text"),
    "sig": Trigger(
        sig,
        {"amplitude": 60 / 255, "frequency": 6.0},
        "Barni et al. 2019 (arXiv:1902.11237), as in BadCLIP (arXiv:2311.12075)",
    ),
    "wanet": Trigger(
        wanet,
        {"grid": 0, "strength": 1.0, "pattern_seed": 0},
        f"{_WANET}, per pixel as in CleanCLIP (arXiv:2303.03323)",
    ),
    "wanet_smooth": Trigger(wanet, {"grid": 4, "strength": 0.5, "pattern_seed": 0}, _WANET),
    "nashville": Trigger(
        nashville, {}, "Huang et al. 2025 (arXiv:2502.01385), the filter of pilgram"
    ),
}
"""Every fixed trigger, by the name that a configuration gives it."""
