"""The direction of wrong pairs' images, and that none is found where there is none."""

import numpy as np
import pytest

from mmjax.scan.image_view import LARGEST, RIDGE, SURE, image_log_ratios
from tests.scan import synthetic

N, D = 900, 24


def made(seed=0, stamped=60, shift=0.0, per_image=3):
    """(image, image_of, wrong): `stamped` pairs are likely wrong; their images are shifted."""
    rng = np.random.default_rng(seed)
    images = rng.normal(size=(N // per_image, D))
    image_of = np.arange(N) // per_image
    wrong = rng.uniform(0, 0.02, N)
    chosen = np.arange(0, stamped * per_image, per_image)
    wrong[chosen] = rng.uniform(0.3, 1, stamped)
    image = images[image_of]
    image[chosen, 0] += shift
    image_of[chosen] = N + np.arange(stamped)  # a stamped image is another image
    image = image / np.linalg.norm(image, axis=1, keepdims=True)
    image_of = np.unique(image_of, return_inverse=True)[1]
    return image.astype(np.float32), image_of, wrong, chosen


def ratios(image, image_of, wrong, *, shards=1, chunk=256, scored=None):
    scored = np.arange(len(image)) if scored is None else scored
    blocks = synthetic.blocks(image, image, shards, np.float32)
    mean = image[scored].mean(axis=0)
    return image_log_ratios(blocks, scored, image_of, mean, wrong, chunk)


def test_equals_a_regression_that_leaves_every_image_out() -> None:
    image, image_of, wrong, _ = made(shift=2.0)
    x = image.astype(np.float64) - image.mean(axis=0).astype(np.float64)
    share = np.array([wrong[image_of == i].mean() for i in image_of]) - wrong.mean()
    ridge = RIDGE * np.trace(x.T @ x) / D * np.eye(D)
    value = np.empty(N)
    for i in np.unique(image_of):
        rest, own = image_of != i, image_of == i
        weights = np.linalg.solve(x[rest].T @ x[rest] + ridge, x[rest].T @ share[rest])
        value[own] = x[own] @ weights
    low, high = (np.average(value, weights=w) for w in (1 - wrong, wrong))
    deviation = np.sqrt(np.average((value - low) ** 2, weights=1 - wrong))
    shift = high - low - SURE * deviation / np.sqrt(wrong.sum())
    wanted = np.clip(shift / deviation**2 * (value - low - shift / 2), -LARGEST, LARGEST)
    np.testing.assert_allclose(ratios(image, image_of, wrong), wanted, atol=2e-3)


@pytest.mark.parametrize("seed", range(3))
def test_a_trigger_that_shows_tells_stamped_images(seed) -> None:
    image, image_of, wrong, chosen = made(seed, shift=8.0)
    found = ratios(image, image_of, wrong)
    others = np.delete(found, chosen)
    assert np.mean(found[chosen] > 1) > 0.9
    assert np.mean(others > 1) < 0.05


@pytest.mark.parametrize("seed", range(5))
def test_without_a_trigger_there_is_nothing_to_see(seed) -> None:
    assert np.abs(ratios(*made(seed)[:3])).max() < 0.5


def test_shards_chunks_and_skipped_rows_do_not_matter() -> None:
    image, image_of, wrong, _ = made(shift=3.0)
    first = ratios(image, image_of, wrong)
    np.testing.assert_allclose(
        ratios(image, image_of, wrong, shards=4, chunk=100), first, atol=1e-4
    )
    kept = np.flatnonzero(np.arange(N) % 7 > 0)
    some = ratios(image, image_of[kept], wrong[kept], scored=kept)
    alone = ratios(image[kept], image_of[kept], wrong[kept])
    np.testing.assert_allclose(some, alone, atol=1e-4)
