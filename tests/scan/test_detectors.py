"""Every detector under one contract, and each against an oracle of its own."""

import dataclasses
import math

import numpy as np
import pytest
from sklearn.ensemble import IsolationForest
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import NearestNeighbors

from mmjax.core.errors import ConfigError
from mmjax.core.mesh import make_mesh
from mmjax.scan.blocks import EmbeddingBlock
from mmjax.scan.detectors import DETECTORS, NEIGHBOURS, EncodedSet, choose
from mmjax.scan.options import StageConfig
from mmjax.scan.released import released_factor
from mmjax.scan.stages import score
from tests.oracles import neighbours as oracle
from tests.scan import synthetic

N, POISON = 240, 24
SKIPPED = (5, 100)


def encode(**given) -> EncodedSet:
    """Two captions an image, the first of some poisoned; two rows are skipped."""
    image, text, _ = synthetic.pairs(N // 2, seed=3)
    target = synthetic.pairs(N // 2, seed=3, poison=POISON)[1]
    image, text = np.repeat(image, 2, axis=0), np.repeat(text, 2, axis=0)
    text[::2] = target
    blocks = synthetic.blocks(image, text)
    for row in SKIPPED:
        part = blocks[row // 80]
        part.image[row % 80] = part.text[row % 80] = np.nan if row == 5 else 0
    captions = [
        "a photo of a banana" if bad else f"number {i} of {N}" for i, bad in enumerate(truth())
    ]
    losses = np.where(truth(), 0.1, 2.0).astype(np.float32)
    return EncodedSet(blocks, captions, synthetic.identity(), losses=losses, **given)


def truth() -> np.ndarray:
    poisoned = np.zeros(N, bool)
    poisoned[::2] = synthetic.pairs(N // 2, seed=3, poison=POISON)[2]
    return poisoned


@pytest.fixture(scope="module")
def encoded() -> EncodedSet:
    return encode()


@pytest.mark.parametrize("name", DETECTORS)
def test_contract(name: str, encoded: EncodedSet) -> None:
    """float32, a row a pair, NaN for skipped rows only, the same twice."""
    assert DETECTORS[name].lacking(encoded) == ""
    scores = DETECTORS[name].score(encoded)
    assert scores.dtype == np.float32
    assert np.flatnonzero(np.isnan(scores)).tolist() == list(SKIPPED)
    assert np.isfinite(np.delete(scores, SKIPPED)).all()
    np.testing.assert_array_equal(scores, DETECTORS[name].score(encoded))


def test_devices_do_not_matter(encoded: EncodedSet) -> None:
    again = encode(mesh=make_mesh())
    dao = DETECTORS["dao"]
    np.testing.assert_array_equal(dao.score(again), dao.score(encoded))


def test_what_draws_depends_on_the_seed(encoded: EncodedSet) -> None:
    other = dataclasses.replace(encoded, seed=1)
    for name in ("chance", "isolation_forest", "dao_as_released"):
        assert np.any(DETECTORS[name].score(other) != DETECTORS[name].score(encoded)), name


@pytest.mark.parametrize(
    "name", ["cfbd_robust", "cfbd_fine", "cfbd_coarse", "clip_score", "abl", "caption_count"]
)
def test_caption_swaps_stand_out(name: str, encoded: EncodedSet) -> None:
    scores = np.nan_to_num(DETECTORS[name].score(encoded), nan=-1e9)
    assert truth()[np.argsort(-scores)[:10]].all()


def test_stages_are_those_of_the_scan(encoded: EncodedSet) -> None:
    kept = np.delete(np.arange(N), SKIPPED)
    paper = score(encoded.blocks, encoded.mapping, StageConfig(mode="paper", gamma_z=0.5)).scores
    robust = score(encoded.blocks, encoded.mapping).scores
    for name, wanted in (
        ("cfbd_fine", paper.text_correlation),
        ("cfbd_coarse", paper.consistency),
        ("cfbd_robust", robust.poison_score),
        ("clip_score", -robust.sim_original),
    ):
        np.testing.assert_array_equal(DETECTORS[name].score(encoded)[kept], wanted[kept])
    of_paper = dataclasses.replace(encoded, config=StageConfig(mode="paper", gamma_z=0.5))
    np.testing.assert_array_equal(
        DETECTORS["cfbd_robust"].score(of_paper), DETECTORS["cfbd_robust"].score(encoded)
    )


def distinct(encoded: EncodedSet) -> tuple[np.ndarray, np.ndarray]:
    """(distinct images in float64, unit-norm; the one of every scored row), the slow way."""
    image = np.concatenate([b.image for b in encoded.blocks]).astype(np.float64)
    rows: dict[bytes, int] = {}
    of = [
        rows.setdefault(row.tobytes(), len(rows)) for i, row in enumerate(image) if i not in SKIPPED
    ]
    unit = np.array([np.frombuffer(row) for row in rows])
    return unit / np.linalg.norm(unit, axis=1, keepdims=True), np.array(of)


def test_densities_equal_brute_force(encoded: EncodedSet) -> None:
    unit, of = distinct(encoded)
    assert len(unit) == N // 2
    kept = np.delete(np.arange(N), SKIPPED)
    searched = NearestNeighbors(n_neighbors=NEIGHBOURS + 1).fit(unit).kneighbors(unit)[0][:, -1]
    np.testing.assert_allclose(
        DETECTORS["k_distance"].score(encoded)[kept], searched[of], rtol=1e-5
    )
    near = NearestNeighbors(n_neighbors=65).fit(unit).kneighbors(unit)[0][:, 1:]
    lid = -1 / np.mean(np.log(near / near[:, -1:]), axis=1)
    np.testing.assert_allclose(DETECTORS["lid"].score(encoded)[kept], lid[of], rtol=1e-4)
    # the loop is slow: a few rows of the two factors
    slof, dao = (DETECTORS[name].score(encoded)[kept] for name in ("slof", "dao"))
    for row in (0, 77):
        assert slof[row] == pytest.approx(oracle.slof(unit, int(of[row]), NEIGHBOURS), rel=1e-5)
        wanted = math.log(oracle.dao(unit, int(of[row]), NEIGHBOURS))
        assert dao[row] == pytest.approx(wanted, abs=1e-4)


def test_forest_is_scikit_learns(encoded: EncodedSet) -> None:
    unit, of = encoded.images
    forest = IsolationForest(n_estimators=100, random_state=0).fit(unit)
    scores = np.delete(DETECTORS["isolation_forest"].score(encoded), SKIPPED)
    np.testing.assert_allclose(scores, -forest.score_samples(unit)[of], rtol=1e-6)


def test_two_gaussians_equal_scikit_learns(encoded: EncodedSet) -> None:
    kept = np.delete(np.arange(N), SKIPPED)
    image, text = (
        np.concatenate([getattr(b, side) for b in encoded.blocks])[kept].astype(np.float64)
        for side in ("image", "text")
    )
    cosine = np.sum(image * text, axis=1)[:, None]
    middle = (cosine.min() + cosine.max()) / 2
    means = [[cosine[cosine < middle].mean()], [cosine[cosine > middle].mean()]]
    fitted = GaussianMixture(2, means_init=means, tol=1e-9, max_iter=5000, reg_covar=1e-9)
    lower = fitted.fit(cosine).predict_proba(cosine)[:, int(np.argmin(fitted.means_))]
    np.testing.assert_allclose(DETECTORS["safeclip"].score(encoded)[kept], lower, atol=1e-3)


@pytest.mark.parametrize("dimensional", [False, True])
def test_as_released_equals_the_literal_loop(dimensional: bool) -> None:
    rows = np.random.default_rng(0).normal(size=(23, 4)).astype(np.float32)
    got = released_factor(rows, np.random.default_rng(5), k=4, dimensional=dimensional, batch=11)
    order = np.random.default_rng(5).permutation(23)
    for batch in (order[:12], order[12:]):
        wanted = oracle.released(rows[batch], 4, dimensional)
        np.testing.assert_allclose(got[batch], wanted, rtol=1e-4)


def test_as_released_is_not_the_correct_one(encoded: EncodedSet) -> None:
    for name in ("dao", "slof"):
        both = [
            np.delete(DETECTORS[n].score(encoded), SKIPPED) for n in (name, f"{name}_as_released")
        ]
        assert np.corrcoef(*both)[0, 1] < 0.99


def test_loss_isolation_without_losses_says_so(encoded: EncodedSet) -> None:
    without = dataclasses.replace(encoded, losses=None)
    assert "--losses=FILE" in DETECTORS["abl"].lacking(without)
    with pytest.raises(ConfigError, match="--losses=FILE"):
        DETECTORS["abl"].score(without)


def test_unknown_names_are_refused_and_order_is_the_tables() -> None:
    assert list(choose(["dao", "cfbd_fine"])) == ["cfbd_fine", "dao"]
    assert list(choose([])) == list(DETECTORS)
    with pytest.raises(ConfigError, match="known: cfbd_robust"):
        choose(["lof"])


@pytest.mark.parametrize("rows", [0, 1, 3])
def test_tiny_sets_get_scores(rows: int) -> None:
    image, text, _ = synthetic.pairs(3, seed=1)
    block = EmbeddingBlock(image, text, np.arange(3) < rows)
    encoded = EncodedSet([block], ["a"] * 3, synthetic.identity())
    for name, detector in DETECTORS.items():
        if not detector.lacking(encoded):
            assert np.isfinite(detector.score(encoded)).sum() == rows, name
