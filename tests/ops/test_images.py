"""Enlarging and warping against loops."""

import numpy as np
import pytest

from mmjax.ops.images import displace, enlarge
from tests.oracles import triggers as oracle


@pytest.mark.parametrize(
    ("k", "l", "height", "width"), [(4, 4, 19, 19), (2, 5, 9, 14), (6, 6, 6, 6)]
)
def test_enlarge(k: int, l: int, height: int, width: int) -> None:
    grid = np.random.default_rng(0).random((k, l, 2), dtype=np.float32)
    found = np.asarray(enlarge(grid, height, width))
    np.testing.assert_allclose(found, oracle.enlarge(grid, height, width), atol=1e-5)
    np.testing.assert_allclose(
        found[[0, 0, -1, -1], [0, -1, 0, -1]], grid[[0, 0, -1, -1], [0, -1, 0, -1]]
    )


def test_displace() -> None:
    rng = np.random.default_rng(0)
    images = rng.random((2, 7, 5, 3), dtype=np.float32)
    down, across = rng.uniform(-4, 4, (2, 7, 5)).astype(np.float32)
    down[0], across[1] = 0, 1  # whole pixels
    rows = np.clip(np.arange(7)[:, None] + down, 0, 6)
    columns = np.clip(np.arange(5)[None, :] + across, 0, 4)
    grid = np.stack([columns / 4 * 2 - 1, rows / 6 * 2 - 1], axis=-1)
    found = np.asarray(displace(images, down, across))
    for image, result in zip(images, found, strict=True):
        np.testing.assert_allclose(result, oracle.grid_sample(image, grid), atol=1e-5)
    still = np.zeros((7, 5), np.float32)
    np.testing.assert_array_equal(displace(images, still, still), images)
    beyond = np.asarray(displace(images, still - 9, still + 9))
    corner = images[:, 0, -1][:, None, None]
    np.testing.assert_array_equal(beyond, np.broadcast_to(corner, beyond.shape))
