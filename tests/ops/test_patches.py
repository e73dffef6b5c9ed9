"""The law of each patch: where it lies and what it shows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.core.errors import ConfigError
from mmjax.ops.patches import added, badnets, badnets_fixed, badnets_stripes, pasted
from mmjax.ops.stamps import image_keys, patch_pixels


def keys(n: int) -> jax.Array:
    return image_keys(jax.random.key(0), jnp.arange(n, dtype=jnp.uint32))


def test_patch_covers_every_place_uniformly() -> None:
    blank = np.full((1024, 6, 6, 3), 0.5, np.float32)
    _, mask = badnets_fixed(blank, keys(1024), patch_size=3)
    mask = np.asarray(mask)
    assert np.all(mask.sum((1, 2)) == 9)
    tops, lefts = mask.any(2).argmax(1), mask.any(1).argmax(1)
    counts = np.bincount(tops * 4 + lefts, minlength=16)
    assert counts.size == 16  # corners 0..3 in each direction: the whole patch always fits
    assert np.sum((counts - 64) ** 2 / 64) < 37.7  # chi-square, 15 degrees of freedom, p = .001


def test_random_patch_is_image_mean_plus_unit_noise_clipped() -> None:
    image = np.zeros((512, 16, 16, 3), np.float32) + np.array([0.5, 0.2, 0.9], np.float32)
    stamped, mask = badnets(image, keys(512), patch_size=8, location="centre")
    values = np.asarray(stamped)[np.asarray(mask)]
    # P(mean + n <= 0) and P(mean + n >= 1) of a unit normal; 512 * 64 draws a channel
    for channel, (low, high) in enumerate([(0.3085, 0.3085), (0.4207, 0.2119), (0.1841, 0.4602)]):
        assert abs(np.mean(values[:, channel] == 0) - low) < 0.01
        assert abs(np.mean(values[:, channel] == 1) - high) < 0.01
    np.testing.assert_array_equal(np.flatnonzero(np.asarray(mask)[0].any(0)), range(4, 12))
    assert np.any(values[:64] != values[64:128])  # fresh noise for every image


def test_fixed_patch_is_dots() -> None:
    stamped, mask = badnets_fixed(
        np.full((1, 8, 8, 3), 0.5, np.float32), keys(1), patch_size=4, location="centre"
    )
    expected = np.full((8, 8), 0.5, np.float32)
    expected[2:6, 2:6] = 0
    for y in (2, 4):
        for x in (2, 4):
            expected[y, x] = 1
    for channel in range(3):
        np.testing.assert_array_equal(np.asarray(stamped)[0, :, :, channel], expected)
    assert int(mask.sum()) == 16


def test_stripes_are_full_columns_of_extreme_colours_the_same_on_every_image() -> None:
    grey = np.full((6, 20, 20, 3), 0.5, np.float32)
    stamped, mask = badnets_stripes(grey, keys(6), patch_size=12)
    patches = np.asarray(stamped)[np.asarray(mask)].reshape(6, 12, 12, 3)
    np.testing.assert_array_equal(patches, np.broadcast_to(patches[:1, :1], patches.shape))
    assert set(np.unique(patches)) == {0, 1}
    assert len(np.unique(patches[0, 0], axis=0)) > 2  # colours, not black and white alone
    other, _ = badnets_stripes(grey, keys(6), patch_size=12, pattern_seed=1)
    assert np.any(np.asarray(other)[np.asarray(mask)] != patches.reshape(-1, 3))


@pytest.mark.parametrize(
    ("size", "pixels"), [(16 / 224, 16), (0.5, 112), (1, 1), (16, 16), (1e-6, 1)]
)
def test_patch_pixels(size: float | int, pixels: int) -> None:
    assert patch_pixels(size, 224, 300) == pixels


@pytest.mark.parametrize("size", [0.0, -1.0, 225.0])
def test_patch_pixels_refuses(size: float) -> None:
    with pytest.raises(ConfigError, match="patch_size"):
        patch_pixels(size, 224, 224)


def test_a_given_patch_is_pasted_and_clipped() -> None:
    images = np.random.default_rng(0).random((3, 9, 11, 3)).astype(np.float32)
    patch = np.random.default_rng(1).normal(0.5, 1, (4, 4, 3)).astype(np.float32)
    expected = images.copy()
    expected[:, 2:6, 3:7] = np.clip(patch, 0, 1)
    stamped, mask = pasted(images, keys(3), patch)
    np.testing.assert_array_equal(stamped, expected)
    assert np.all(np.asarray(mask)[:, 2:6, 3:7])
    assert mask.sum() == 3 * 16
    places = np.asarray(pasted(images, keys(3), patch, location="random").mask)
    assert len(np.unique(places, axis=0)) == 3
    with pytest.raises(ConfigError, match="patch_size=4 wants a patch of 4 px"):
        pasted(images[:, :3], keys(3), patch)


def test_a_given_patch_is_added_in_the_lower_right_corner() -> None:
    images = np.random.default_rng(0).random((3, 9, 11, 3)).astype(np.float32)
    patch = np.random.default_rng(1).uniform(-0.5, 0.5, (4, 4, 3)).astype(np.float32)
    expected = images.copy()
    expected[:, 5:, 7:] = np.clip(images[:, 5:, 7:] + patch, 0, 1)
    stamped, mask = added(images, keys(3), patch)
    np.testing.assert_allclose(stamped, expected, atol=1e-7)
    assert np.all(np.asarray(mask)[:, 5:, 7:])
    assert mask.sum() == 3 * 16
