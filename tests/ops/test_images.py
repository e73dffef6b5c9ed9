"""Enlarging, cropping, resizing and warping against loops, and what rounding passes on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from mmjax.ops.images import (
    crop_resize,
    displace,
    enlarge,
    resize,
    round_through,
    to_bytes_through,
)
from tests.oracles import bicubic
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


@pytest.mark.parametrize(("height", "width"), [(5, 9), (30, 21), (13, 17)])
def test_crop_and_resize(height: int, width: int) -> None:
    """Smaller, larger and equal, of the whole and of parts with broken edges, one an image."""
    images = np.random.default_rng(0).uniform(0, 255, (3, 13, 17, 2)).astype(np.float32)
    boxes = np.asarray([[0, 0, 13, 17], [2.3, 1.25, 11.5, 9.0], [4, 6, 6, 15]], np.float32)
    found = np.asarray(crop_resize(images, boxes, height, width))
    for image, (top, left, bottom, right), result in zip(images, boxes, found, strict=True):
        rows = bicubic.weights(13, height, float(top), float(bottom))
        columns = bicubic.weights(17, width, float(left), float(right))
        wanted = np.einsum("ph,hwc,qw->pqc", rows, image.astype(np.float64), columns)
        np.testing.assert_allclose(result, wanted, atol=255 * 1e-5)
        of_pillow = np.asarray(
            Image.fromarray(image[:, :, 0]).resize(
                (width, height), Image.Resampling.BICUBIC, box=(left, top, right, bottom)
            )
        )
        np.testing.assert_allclose(result[:, :, 0], of_pillow, atol=255 * 1e-5)
    np.testing.assert_allclose(resize(images, height, width)[0], found[0], atol=255 * 1e-6)


def test_a_crop_in_whole_pixels_is_the_pixels() -> None:
    images = np.random.default_rng(0).random((1, 9, 8, 3), dtype=np.float32)
    part = crop_resize(images, jnp.asarray([[2.0, 1.0, 7.0, 5.0]]), 5, 4)
    np.testing.assert_allclose(part, images[:, 2:7, 1:5], atol=1e-6)
    slope = jax.grad(lambda x: jnp.sum(crop_resize(x, jnp.asarray([[2.0, 1.0, 7.0, 5.0]]), 5, 4)))
    wanted = np.zeros((1, 9, 8, 3))
    wanted[:, 2:7, 1:5] = 1
    np.testing.assert_allclose(slope(jnp.asarray(images)), wanted, atol=1e-6)


def test_rounding_passes_the_gradient_on() -> None:
    values = jnp.asarray([-300.2, -0.3, 0.3, 0.7, 1.5, 2.5, 254.6, 256.4])
    np.testing.assert_array_equal(round_through(values), np.round(values))
    np.testing.assert_array_equal(to_bytes_through(values), [0, 0, 0, 1, 2, 2, 255, 255])
    slope = jax.grad(lambda x: jnp.sum(round_through(x) * jnp.arange(8.0)))(values)
    np.testing.assert_array_equal(slope, np.arange(8))
    slope = jax.grad(lambda x: jnp.sum(to_bytes_through(x)))(values)
    np.testing.assert_array_equal(slope, [0, 0, 1, 1, 1, 1, 1, 0])
