"""Options of the defences: ways to train on pairs of which some may be poisoned."""

import dataclasses
from typing import Literal

from mmjax.core.config import option


@dataclasses.dataclass(frozen=True)
class CleanClipConfig:
    """CleanCLIP (Bansal et al. 2023): every sample is also matched with its own augmentation."""

    weight: float = option(1.0, "weight of the two in-modal terms beside CLIP's loss", low=0.0)


@dataclasses.dataclass(frozen=True)
class RoClipConfig:
    """RoCLIP (Yang et al. 2023): in some epochs images are matched with captions of others."""

    pool: int = option(21_845, "captions in the pool, rounded up to whole batches", low=1)
    every: int = option(2, "every so many epochs images take their captions from the pool", low=1)
    augment: bool = option(True, "train on augmentations (AutoAugment, rewordings) throughout")


@dataclasses.dataclass(frozen=True)
class SafeClipConfig:
    """SafeCLIP (Yang et al. 2024): only pairs that look safe teach what captions mean."""

    unimodal_epochs: int = option(5, "epochs of images alone and captions alone, first", low=0)
    multimodal_epochs: int = option(1, "epochs of CLIP's loss at a low rate after them", low=1)
    multimodal_rate: float = option(
        0.01, "learning rate of these, as a share of the peak (5e-6 of 5e-4)", low=0.0, high=1.0
    )
    posterior: float = option(
        0.9, "pairs are safe that belong to the upper Gaussian so surely", low=0.0, high=1.0
    )
    growth: float = option(0.01, "share of all pairs that turns safe every epoch", low=0, high=1)
    largest: float = option(0.85, "share of all pairs that is ever safe", low=0, high=1)


@dataclasses.dataclass(frozen=True)
class AblConfig:
    """ABL (Li et al. 2021): what is learned first is isolated, then unlearned."""

    recorded_epochs: int = option(
        10, "first epochs, after each of which losses are recorded", low=1
    )
    gather: Literal["clip", "lga"] = option(
        "clip", "these train as ever, or hold low losses up by local gradient ascent"
    )
    percentile: float = option(
        10.0, "lga: losses are held up at this percentile of the first record", low=0.0, high=100.0
    )
    isolate: float = option(
        0.01, "pairs of the lowest losses: their share, or their number from 1 on", low=0.0
    )
    unlearn_epochs: int = option(5, "last epochs, which unlearn the isolated pairs", low=0)
    unlearn_rate: float = option(
        0.1, "learning rate of these, as a share of the peak", low=0.0, high=1.0
    )


@dataclasses.dataclass(frozen=True)
class AdversarialConfig:
    """Adversarial training (Madry et al. 2018): images are changed to raise the loss first."""

    epsilon: int = option(4, "largest change of a pixel, in grey levels", low=0, high=127)
    step_size: int = option(2, "of a signed step, in grey levels", low=1, high=127)
    steps: int = option(3, "signed steps of every batch", low=0)


@dataclasses.dataclass(frozen=True)
class DefenceConfig:
    """Which defence, and the options of each; only the named one's are read."""

    name: Literal["none", "cleanclip", "roclip", "safeclip", "abl", "adversarial"] = option(
        "none", "how training is defended"
    )
    cleanclip: CleanClipConfig = option(CleanClipConfig())
    roclip: RoClipConfig = option(RoClipConfig())
    safeclip: SafeClipConfig = option(SafeClipConfig())
    abl: AblConfig = option(AblConfig())
    adversarial: AdversarialConfig = option(AdversarialConfig())
