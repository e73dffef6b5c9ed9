"""Options of the defences: ways to train on pairs of which some may be poisoned."""

import dataclasses
from typing import Literal

from mmjax.core.config import option


@dataclasses.dataclass(frozen=True)
class CleanClipConfig:
    """CleanCLIP (Bansal et al. 2023): every sample is also matched with its own augmentation."""

    weight: float = option(1.0, "weight of the two in-modal terms beside CLIP's loss", low=0.0)


@dataclasses.dataclass(frozen=True)
class DefenceConfig:
    """Which defence, and the options of each; only the named one's are read."""

    name: Literal["none", "cleanclip"] = option("none", "how training is defended")
    cleanclip: CleanClipConfig = option(CleanClipConfig())
