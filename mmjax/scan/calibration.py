"""What is usual for a topic: the gap c of clean captions near a core (facts/cfbd.md 8).

A model that reads some topics badly gives *all* their pairs a large c, poisoned or not. The clean
reference that F was fitted on tells how large: its captions near a core of seeds are the core's
clean twins. Gaps are compared as quantiles of their own set, so that a reference which the model
has learned by heart (a smaller gap throughout) still serves.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Float32, Shaped

from mmjax.ops.correlation import centre

SAMPLE = 20_000
"""Captions of the reference that a mapping keeps, drawn at random."""
PRIOR = 20.0
"""Captions that the general rate counts for: a topic of few clean twins is taken as usual."""


class Calibration(NamedTuple):
    """Clean captions: unit-norm embeddings (float16) and s_g - s_o of their pairs."""

    text: Shaped[np.ndarray, "m d"]
    gap: Float32[np.ndarray, " m"]


class CleanPairs(NamedTuple):
    """The reference against a core: likeness z, and the gap as a quantile of all its gaps."""

    z: Float[np.ndarray, " m"]
    quantile: Float[np.ndarray, " m"]


class Twins(NamedTuple):
    """The clean captions near a core.

    `captions` of them; `rate` is the share of clean pairs of this topic whose c is above the
    quantile asked for, pulled towards the general rate when there are few.
    """

    captions: int
    rate: float


def clean_pairs(
    calibration: Calibration | None,
    mean: Float32[np.ndarray, " d"],
    offset: Float32[np.ndarray, " d"],
) -> CleanPairs:
    """Likeness z and gap quantile of the reference's captions; none without a calibration.

    Args:
        calibration: None counts as a reference without captions.
        mean: the core's mean caption, centred.
        offset: what captions are centred by.
    """
    if calibration is None or not calibration.gap.size:
        return CleanPairs(np.zeros(0), np.zeros(0))
    centred = np.asarray(centre(jnp.asarray(calibration.text, jnp.float32), jnp.asarray(offset)))
    order = np.sort(calibration.gap)
    below = np.searchsorted(order, calibration.gap, side="right")
    return CleanPairs((centred @ mean).astype(np.float64), below / order.size)


def clean_twins(clean: CleanPairs, gamma_z: float, high: float) -> Twins:
    """The reference's captions with z > gamma_z against a core.

    Args:
        clean: the reference against the core.
        gamma_z: where the core's group ends.
        high: the quantile of c above which a pair counts as misaligned, e.g. 0.95.
    """
    general = 1.0 - high
    near = clean.z > gamma_z
    count = int(near.sum())
    hits = float(np.sum(clean.quantile[near] > high))
    return Twins(count, (hits + PRIOR * general) / (count + PRIOR))
