"""Detectors of poisoned pairs, all from one encoding pass (facts/cfbd.md 5).

Each takes an `EncodedSet` and gives every pair a suspicion score, high = bad. What several need
(the scan's stages, the distinct images, their neighbours) is computed once and kept.

The density detectors (DAO, SLOF, k-distance, LID, isolation forest) look at images, as those of
Huang et al. (ICLR 2025) do by default, but at the whole set instead of one batch and at each
distinct image once: five captions of a photo would otherwise be its own nearest neighbours, and a
stamped copy an outlier for having none. LID and the isolation forest take outliers for bad.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Bool, Float, Float32, Int, Int64

from mmjax.core import keys
from mmjax.core.errors import ConfigError
from mmjax.ops.gmm import fit_mixture, posterior
from mmjax.ops.neighbours import nearest
from mmjax.ops.outliers import dimensional_factor, local_dimension, simplified_factor
from mmjax.scan import stages
from mmjax.scan.blocks import EmbeddingBlock
from mmjax.scan.duplicates import near_duplicates
from mmjax.scan.groups import fingerprints
from mmjax.scan.mapping import Mapping
from mmjax.scan.options import StageConfig
from mmjax.scan.released import released_factor

NEIGHBOURS, NEIGHBOURS_OF_LID, TREES = 16, 64, 100
"""Of the reference code (facts/cfbd.md 5)."""
_GATHERED_ROWS = 1024


class Images(NamedTuple):
    """The distinct images of the scored pairs, unit-norm, and which of them each scored pair has.

    Images are the same when their embeddings are, bit by bit: an image is encoded once.
    """

    unit: Float32[np.ndarray, "m d"]
    of: Int64[np.ndarray, " s"]


class Nearest(NamedTuple):
    """Distances of every distinct image to its nearest others, ascending, and their rows."""

    distances: Float32[np.ndarray, "m k"]
    rows: Int[np.ndarray, "m k"]


@dataclasses.dataclass(frozen=True)
class EncodedSet:
    """What one encoding pass leaves, and what detectors share.

    Attributes:
      blocks: the embeddings, a block a shard.
      captions: of every row.
      mapping: F.
      config: how the scan scored.
      losses: recorded mean training loss of every row, for ABL; None where nobody trained.
      seed: of what is drawn at random.
      mesh: devices for the neighbour search.
    """

    blocks: Sequence[EmbeddingBlock]
    captions: Sequence[str]
    mapping: Mapping
    config: StageConfig = dataclasses.field(default_factory=StageConfig)
    losses: Float[np.ndarray, " n"] | None = None
    seed: int = 0
    mesh: Mesh | None = None

    @functools.cached_property
    def robust(self) -> stages.StageResult:
        """The scan in robust mode, with its own threshold."""
        config = self.config
        if config.mode == "paper":
            config = dataclasses.replace(config, mode="robust", gamma_z="auto")
        return stages.score(self.blocks, self.mapping, config, mesh=self.mesh)

    @functools.cached_property
    def paper(self) -> stages.StageResult:
        """The scan in paper mode; its threshold is no part of a score."""
        config = dataclasses.replace(self.config, mode="paper", gamma_z=0.0)
        return stages.score(self.blocks, self.mapping, config)

    @functools.cached_property
    def scored(self) -> Bool[np.ndarray, " n"]:
        """Rows that have a score."""
        return self.robust.scores.coarse != stages.COARSE.index("")

    @functools.cached_property
    def images(self) -> Images:
        """See `Images`."""
        image = np.concatenate([block.image for block in self.blocks])[self.scored]
        _, first, of = np.unique(fingerprints(image), return_index=True, return_inverse=True)
        unit = image[first].astype(np.float32)
        # float16 rows are unit-norm to 1e-3 only, too little for distances between twins
        unit /= np.linalg.norm(unit, axis=1, keepdims=True)
        return Images(unit, of.astype(np.int64))

    @functools.cached_property
    def nearest_images(self) -> Nearest:
        """The neighbours that every density detector needs; found by cosine, measured exactly."""
        unit = self.images.unit
        k = min(NEIGHBOURS_OF_LID, unit.shape[0] - 1)
        if k < 1:
            return Nearest(np.zeros((unit.shape[0], 0), np.float32), np.zeros((0, 0), np.int32))
        own = np.arange(unit.shape[0])
        rows = np.asarray(nearest(unit, unit, own, k=k, mesh=self.mesh).rows)
        distances = np.empty(rows.shape, np.float32)
        for low in range(0, unit.shape[0], _GATHERED_ROWS):
            here = slice(low, low + _GATHERED_ROWS)
            # from cosines, distances between twins would drown in rounding
            distances[here] = np.linalg.norm(unit[rows[here]] - unit[here, None, :], axis=2)
        order = np.argsort(distances, axis=1, kind="stable")
        return Nearest(*(np.take_along_axis(x, order, axis=1) for x in (distances, rows)))

    def spread(self, values: Float[np.ndarray, " s"]) -> Float32[np.ndarray, " n"]:
        """Scores of the scored rows as scores of all, NaN elsewhere."""
        scores = np.full(self.scored.shape, np.nan, np.float32)
        scores[self.scored] = values
        return scores


Score = Callable[[EncodedSet], Float32[np.ndarray, " n"]]


class Detector(NamedTuple):
    """`score(encoded)`: one score a row, high = bad, NaN for a row without one.

    `lacking(encoded)` says what it needs and is not there; empty when it can run.
    """

    score: Score
    title: str
    lacking: Callable[[EncodedSet], str] = lambda encoded: ""


def consistency(encoded: EncodedSet) -> Float32[np.ndarray, " n"]:
    """The consistency c = |s_g - s_o| (CFBD Eq. 4)."""
    return encoded.spread(encoded.robust.scores.consistency[encoded.scored])


def mean_correlation(encoded: EncodedSet) -> Float32[np.ndarray, " n"]:
    """The correlation z with the mean of D_p, to the letter (CFBD Eq. 6)."""
    return encoded.spread(encoded.paper.scores.text_correlation[encoded.scored])


def robust_score(encoded: EncodedSet) -> Float32[np.ndarray, " n"]:
    """`poison_score` of robust mode."""
    return encoded.spread(encoded.robust.scores.poison_score[encoded.scored])


def clip_score(encoded: EncodedSet) -> Float32[np.ndarray, " n"]:
    """-s_o: how little image and caption agree."""
    return encoded.spread(-encoded.robust.scores.sim_original[encoded.scored])


def two_gaussians(encoded: EncodedSet) -> Float32[np.ndarray, " n"]:
    """1 - posterior of the higher of two Gaussians over <I, T> (SafeCLIP, facts/cfbd.md 2.4)."""
    with np.errstate(invalid="ignore"):  # rows that are not scored may hold anything
        cosine = np.concatenate(
            [np.sum(b.image.astype(np.float32) * b.text, axis=1) for b in encoded.blocks]
        )[encoded.scored]
    if not cosine.size:
        return encoded.spread(cosine)
    mixture = fit_mixture(cosine, components=2)
    parameters = (mixture.means, mixture.variances, mixture.weights)
    # components come in order of their means: the last one is the better matched
    safe = posterior(jnp.asarray(cosine), *(jnp.asarray(p, jnp.float32) for p in parameters))
    return encoded.spread(1 - np.asarray(safe)[:, -1])


def k_distance(encoded: EncodedSet) -> Float32[np.ndarray, " n"]:
    """Distance to the k-th nearest image."""
    return _density(encoded, lambda distances, rows: distances[:, -1], NEIGHBOURS)


def dimension(encoded: EncodedSet) -> Float32[np.ndarray, " n"]:
    """LID of the image (`ops.outliers`)."""
    return _density(encoded, lambda distances, rows: local_dimension(distances), NEIGHBOURS_OF_LID)


def slof(encoded: EncodedSet, *, as_released: bool = False) -> Float32[np.ndarray, " n"]:
    """SLOF of the image (`ops.outliers`); as released, see `scan.released`."""
    if as_released:
        return _released(encoded, dimensional=False)
    return _density(encoded, simplified_factor, NEIGHBOURS)


def dao(encoded: EncodedSet, *, as_released: bool = False) -> Float32[np.ndarray, " n"]:
    """DAO of the image, its logarithm (`ops.outliers`); as released, see `scan.released`."""
    if as_released:
        return _released(encoded, dimensional=True)
    return _density(encoded, dimensional_factor, NEIGHBOURS)


def isolation_forest(encoded: EncodedSet) -> Float32[np.ndarray, " n"]:
    """How few random cuts isolate the image (Liu et al. 2008), in [0, 1]; scikit-learn's."""
    from sklearn.ensemble import IsolationForest

    unit, of = encoded.images
    if not unit.size:
        return encoded.spread(np.zeros(0, np.float32))
    forest = IsolationForest(n_estimators=TREES, random_state=encoded.seed).fit(unit)
    return encoded.spread(-forest.score_samples(unit)[of])


def loss_isolation(encoded: EncodedSet) -> Float32[np.ndarray, " n"]:
    """-mean recorded loss: poison is learned first (ABL for CLIP, facts/cfbd.md 2.5)."""
    if encoded.losses is None:
        raise ConfigError(_without_losses(encoded))
    return encoded.spread(-encoded.losses[encoded.scored])


def caption_count(encoded: EncodedSet) -> Float32[np.ndarray, " n"]:
    """How many other scored captions are near-duplicates of this one (`scan.duplicates`)."""
    captions = list(itertools.compress(encoded.captions, encoded.scored))
    return encoded.spread(near_duplicates(captions).astype(np.float32))


def chance(encoded: EncodedSet) -> Float32[np.ndarray, " n"]:
    """Uniform noise."""
    rng = keys.host(encoded.seed, "detectors", "chance")
    return encoded.spread(rng.random(encoded.scored.size, dtype=np.float32)[encoded.scored])


def _density(
    encoded: EncodedSet, factor: Callable[..., object], k: int
) -> Float32[np.ndarray, " n"]:
    """A factor of the k nearest images; 0 for all where there is but one image."""
    distances, rows = encoded.nearest_images
    if not rows.size:
        return encoded.spread(np.zeros(encoded.images.of.shape, np.float32))
    values = np.asarray(factor(jnp.asarray(distances[:, :k]), jnp.asarray(rows[:, :k])))
    return encoded.spread(values[encoded.images.of])


def _released(encoded: EncodedSet, *, dimensional: bool) -> Float32[np.ndarray, " n"]:
    unit, of = encoded.images
    rng = keys.host(encoded.seed, "detectors", "batches")
    factor = released_factor(unit[of], rng, k=NEIGHBOURS, dimensional=dimensional)
    return encoded.spread(factor)


def _without_losses(encoded: EncodedSet) -> str:
    if encoded.losses is None:
        return "loss isolation (ABL) wants the losses of a training run; give --losses=FILE"
    return ""


DETECTORS: dict[str, Detector] = {
    "cfbd_robust": Detector(robust_score, "CFBD, robust mode"),
    "cfbd_fine": Detector(mean_correlation, "CFBD, fine stage (mean z)"),
    "cfbd_coarse": Detector(consistency, "CFBD, coarse stage (c)"),
    "clip_score": Detector(clip_score, "−s_o alone"),
    "safeclip": Detector(two_gaussians, "SafeCLIP's two Gaussians"),
    "dao": Detector(dao, "DAO"),
    "dao_as_released": Detector(functools.partial(dao, as_released=True), "DAO as released"),
    "slof": Detector(slof, "SLOF"),
    "slof_as_released": Detector(functools.partial(slof, as_released=True), "SLOF as released"),
    "k_distance": Detector(k_distance, "k-distance"),
    "lid": Detector(dimension, "LID"),
    "isolation_forest": Detector(isolation_forest, "isolation forest"),
    "abl": Detector(loss_isolation, "ABL, loss isolation", _without_losses),
    "caption_count": Detector(caption_count, "near-duplicate captions"),
    "chance": Detector(chance, "chance"),
}
"""Every detector, by name."""


def choose(names: Collection[str]) -> dict[str, Detector]:
    """The named detectors in the table's order; all without names.

    Raises:
        ConfigError: a name is unknown.
    """
    unknown = [name for name in names if name not in DETECTORS]
    if unknown:
        raise ConfigError(f"unknown detector {unknown[0]!r}; known: {', '.join(DETECTORS)}")
    return {name: detector for name, detector in DETECTORS.items() if name in names or not names}
