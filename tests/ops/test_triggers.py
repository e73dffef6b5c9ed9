"""Contract test over every entry of TRIGGERS."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from mmjax.ops.stamps import image_keys
from mmjax.ops.triggers import TRIGGERS

SIZE = 24
SMALL: dict[str, dict[str, Any]] = {
    "badnets": {"patch_size": 3},
    "badnets_fixed": {"patch_size": 3},
    "badnets_stripes": {"patch_size": 3},
    "blended_triangles": {"width": 3},
    "blended_text": {"text": "I"},
}
"""Parameters for images of 8 pixels, where the defaults do not fit."""
DRAWN = {"badnets", "badnets_fixed", "badnets_stripes"}
"""Triggers that an image's key changes; the others are the same on every image."""


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
    assert np.any(np.asarray(other) != np.asarray(stamped)) == (name in DRAWN)

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
    small = {**TRIGGERS[name].defaults, **SMALL.get(name, {})}
    stamped, mask = TRIGGERS[name].apply(images, keys(2, seed=seed), **small)
    np.testing.assert_array_equal(np.asarray(stamped)[~mask], images[~np.asarray(mask)])
    assert stamped.min() >= 0
    assert stamped.max() <= 1
    if "patch_size" in small:
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


def test_what_is_not_on_every_image_says_which_pattern_it_shows() -> None:
    for trigger in TRIGGERS.values():
        assert trigger.source
        assert "pattern" not in trigger.defaults or "pattern_seed" in trigger.defaults
