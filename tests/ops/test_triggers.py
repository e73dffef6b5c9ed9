"""Contract test over every entry of TRIGGERS, and the law of each trigger."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from mmjax.core.errors import ConfigError
from mmjax.ops.triggers import TRIGGERS, badnets, badnets_fixed, image_keys, patch_pixels

SIZE = 24


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).random((8, SIZE, SIZE, 3), dtype=np.float32)


def keys(n: int, seed: int = 0, start: int = 0) -> jax.Array:
    """Fresh keys each time: with key-reuse checking a consumed key cannot be used again."""
    return image_keys(jax.random.key(seed), jnp.arange(start, start + n, dtype=jnp.uint32))


@pytest.mark.parametrize("name", TRIGGERS)
@pytest.mark.usefixtures("keys_checked")
def test_contract(name: str, images: np.ndarray) -> None:
    trigger = TRIGGERS[name]
    stamped, mask = trigger.apply(images, keys(8), **trigger.defaults)

    # only the mask is touched, values stay pixels, the input is left alone, something changes
    np.testing.assert_array_equal(np.asarray(stamped)[~mask], images[~np.asarray(mask)])
    assert stamped.min() >= 0
    assert stamped.max() <= 1
    assert stamped.dtype == jnp.float32
    assert np.all(np.any(np.asarray(stamped) != images, axis=(1, 2, 3)))

    # deterministic by key, and only by the image's own key: a permuted batch is the permutation
    order = np.array([3, 1, 0, 2, 7, 6, 5, 4])
    permuted, _ = trigger.apply(images[order], keys(8)[order], **trigger.defaults)
    np.testing.assert_array_equal(permuted, np.asarray(stamped)[order])
    other, _ = trigger.apply(images, keys(8, seed=1), **trigger.defaults)
    assert np.any(np.asarray(other) != np.asarray(stamped))

    with jax.disable_jit():
        eager, eager_mask = trigger.apply(jnp.asarray(images[:2]), keys(2), **trigger.defaults)
    np.testing.assert_allclose(eager, stamped[:2], atol=1e-6)
    np.testing.assert_array_equal(eager_mask, mask[:2])


@pytest.mark.parametrize("name", TRIGGERS)
@given(
    images=hnp.arrays(np.float32, (2, 8, 8, 3), elements=st.floats(0, 1, width=32)),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=25, deadline=None)
def test_only_the_mask_of_any_image_is_touched(name: str, images: np.ndarray, seed: int) -> None:
    stamped, mask = TRIGGERS[name].apply(images, keys(2, seed=seed), patch_size=3)
    np.testing.assert_array_equal(np.asarray(stamped)[~mask], images[~np.asarray(mask)])
    assert stamped.min() >= 0
    assert stamped.max() <= 1
    assert np.all(np.asarray(mask).sum((1, 2)) == 9)


@pytest.mark.parametrize("name", TRIGGERS)
def test_four_devices_equal_one(name: str, images: np.ndarray) -> None:
    trigger = TRIGGERS[name]
    one, one_mask = trigger.apply(images, keys(8), **trigger.defaults)
    mesh = Mesh(np.array(jax.devices()[:4]), ("data",), axis_types=(AxisType.Auto,))
    split = NamedSharding(mesh, PartitionSpec("data"))
    four, four_mask = trigger.apply(
        jax.device_put(images, split), jax.device_put(keys(8), split), **trigger.defaults
    )
    assert len(four.sharding.device_set) == 4
    np.testing.assert_allclose(four, one, atol=1e-6)
    np.testing.assert_array_equal(four_mask, one_mask)


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


@pytest.mark.parametrize(
    ("size", "pixels"), [(16 / 224, 16), (0.5, 112), (1, 1), (16, 16), (1e-6, 1)]
)
def test_patch_pixels(size: float | int, pixels: int) -> None:
    assert patch_pixels(size, 224, 300) == pixels


@pytest.mark.parametrize("size", [0.0, -1.0, 225.0])
def test_patch_pixels_refuses(size: float) -> None:
    with pytest.raises(ConfigError, match="patch_size"):
        patch_pixels(size, 224, 224)
