"""Which pairs around a confirmed core are poison: the odds given likeness z and gap c.

Two classes: benign pairs (right or merely wrong ones), and poison. Given its class, a pair's z and
c are taken as independent, but for benign pairs c may depend on z: a topic that the model reads
badly has larger gaps. So with the share pi of poison

    odds(z, c) = pi f1(z) f1(c) / ((1 - pi) f0(z) f0(c | z)).

`f0(c | z)` comes from the clean reference: the gaps of its captions that are at least as close to
the core, as quantiles, in the scanned set's own scale; where there are few, from the scanned set.
`f0(z)`, `f1` and `pi` come from the scanned set by EM, started from the misaligned part of the
core's group. `f1` is Student's t (3 degrees of freedom) in z and in c; as some templates read
unlike the rest and some poison matches its image by chance, a twentieth of it is uniform (in z
from 0 up, in c from the median up). Beyond its mean f1 does not fall, and below its mode f0(c | z)
does not: a larger z or c never speaks for a pair.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32
from scipy.ndimage import gaussian_filter1d
from scipy.special import expit
from scipy.stats import t as student

from mmjax.scan.calibration import PRIOR, CleanPairs

STRAY = 0.05
_BINS = 256
_SMOOTH = 3.0
_STEPS = 200


class Poison(NamedTuple):
    """Poison: its share of the set, and mean and standard deviation of its z and of its c."""

    share: float
    z: tuple[float, float]
    c: tuple[float, float]


class Axis(NamedTuple):
    """`_BINS` bins between two ends."""

    low: float
    high: float

    def bin(self, at: np.ndarray) -> np.ndarray:
        """The bins of some points; points outside fall into the outermost."""
        place = (at - self.low) / (self.high - self.low) * _BINS
        return np.clip(place.astype(np.int64), 0, _BINS - 1)


_Z = Axis(-1.0, 1.0)


def log_odds(
    z: Float32[np.ndarray, " n"],
    c: Float32[np.ndarray, " n"],
    start: Bool[np.ndarray, " n"],
    clean: CleanPairs,
) -> Float[np.ndarray, " n"]:
    """Natural logarithm of odds(z, c) of every pair.

    Where EM dissolves the class (fewer than half of `start` are left in it: z and c do not tell
    the two apart), the odds of its first step stand.

    Args:
        z: likeness to the core.
        c: signed gap (s_g - s_o)+.
        start: pairs that are poison to begin with; at least one.
        clean: z and gap quantile of the clean reference's captions.
    """
    f0_c = _benign_gaps(z, c, start, clean)
    middle, top = float(np.median(c)), float(c.max())
    stray_z, stray_c = (z > 0).astype(np.float64), (c > middle) / max(top - middle, 1e-6)
    narrow_z, narrow_c = 0.02, 0.1 * max(float(np.std(c)), 1e-6)
    weight = start.astype(np.float64)
    poison = _moments(z, c, weight, narrow_z, narrow_c)
    logarithm = first = np.zeros(z.size)
    for step in range(_STEPS):
        f0_z = _density(z, 1 - weight)
        f1_z = _poison(z, poison.z, stray_z)
        logarithm = np.log(poison.share / (1 - poison.share))
        logarithm = logarithm + np.log(np.maximum(f1_z, 1e-300))
        logarithm -= np.log(f0_z)
        logarithm += np.log(np.maximum(_poison(c, poison.c, stray_c), 1e-300)) - np.log(f0_c)
        first = first if step else logarithm
        weight = expit(logarithm)
        before, poison = poison, _moments(z, c, weight, narrow_z, narrow_c)
        if abs(poison.share - before.share) < 1e-4 * before.share:
            break
    dissolved = float(weight.sum()) < 0.5 * float(start.sum())
    return first if dissolved else logarithm


def _poison(values: np.ndarray, moments: tuple[float, float], stray: np.ndarray) -> np.ndarray:
    """f1 at the values; a t of 3 degrees has heavier tails, hence the narrower scale."""
    mean, deviation = moments
    body = student.pdf(np.minimum(values, mean), 3, mean, 0.75 * deviation)
    return (1 - STRAY) * body + STRAY * stray


def _moments(
    z: np.ndarray, c: np.ndarray, weight: np.ndarray, narrow_z: float, narrow_c: float
) -> Poison:
    """The class of poison from every pair's share in it."""
    mass = max(float(weight.sum()), 1e-9)
    ends = []
    for values, least in ((z, narrow_z), (c, narrow_c)):
        mean = float(weight @ values) / mass
        deviation = float(np.sqrt(weight @ (values - mean) ** 2 / mass))
        ends.append((mean, max(deviation, least)))
    return Poison(min(mass / z.size, 0.5), ends[0], ends[1])


def _benign_gaps(z: np.ndarray, c: np.ndarray, start: np.ndarray, clean: CleanPairs) -> np.ndarray:
    """f0(c | z) of every pair, level below its mode.

    For a bin of z the reference's captions of at least that z count, as quantiles of `rest`.
    """
    rest = c[~start] if np.any(~start) else c
    axis = Axis(min(float(c.min()), 0.0), max(float(c.max()), 1e-6))
    usual = np.bincount(axis.bin(rest), minlength=_BINS) / rest.size
    counts = np.zeros((_BINS, _BINS))
    if clean.z.size:
        gaps = np.quantile(rest, clean.quantile)
        np.add.at(counts, (_Z.bin(clean.z), axis.bin(gaps)), 1.0)
        counts = counts[::-1].cumsum(axis=0)[::-1]
    density = _smoothed(counts + PRIOR * usual[None, :], (axis.high - axis.low) / _BINS)
    falling = np.maximum.accumulate(density[:, ::-1], axis=1)[:, ::-1]
    return falling[_Z.bin(z), axis.bin(c)]


def _density(z: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """f0(z) at the values: a smoothed histogram of the weights."""
    bins = _Z.bin(z)
    counts = np.bincount(bins, weights=weight, minlength=_BINS)
    return _smoothed(counts, 2 / _BINS)[bins]


def _smoothed(counts: np.ndarray, width: float) -> np.ndarray:
    """Counts to densities, never quite zero: one pair's worth is spread over all bins."""
    smooth = gaussian_filter1d(counts, _SMOOTH, axis=-1, mode="nearest") + 1 / _BINS
    return smooth / smooth.sum(axis=-1, keepdims=True) / width
