"""WaNet against a loop over pixels, and what tells its two variants apart."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.ops.stamps import image_keys, pattern_key
from mmjax.ops.triggers import TRIGGERS
from mmjax.ops.warps import wanet
from tests.oracles import triggers as oracle


def keys(n: int) -> jax.Array:
    return image_keys(jax.random.key(0), jnp.arange(n, dtype=jnp.uint32))


@pytest.mark.parametrize(("grid", "strength"), [(0, 1.0), (4, 0.5), (4, 6.0)])
@pytest.mark.parametrize("shape", [(20, 20, 3), (12, 17, 3)])
def test_wanet_equals_the_loop(grid: int, strength: float, shape: tuple[int, int, int]) -> None:
    images = np.random.default_rng(0).random((2, *shape), dtype=np.float32)
    noise = jax.random.uniform(
        pattern_key("wanet", 0), (grid or shape[0], grid or shape[1], 2), minval=-1, maxval=1
    )
    stamped, mask = wanet(images, keys(2), grid=grid, strength=strength)
    assert np.all(mask)
    for image, result in zip(images, np.asarray(stamped), strict=True):
        wanted = oracle.wanet(image.astype(np.float64), np.asarray(noise, np.float64), strength)
        np.testing.assert_allclose(result, wanted, atol=1e-5)


def test_it_is_the_backward_map() -> None:
    """The value at p comes from p + d(p): on a ramp, stamped minus clean is the displacement."""
    ramp = np.broadcast_to(
        np.arange(33, dtype=np.float32)[None, None, :, None] / 32, (1, 33, 33, 1)
    )
    noise = np.asarray(
        jax.random.uniform(pattern_key("wanet", 0), (4, 4, 2), minval=-1, maxval=1), np.float64
    )
    field = oracle.enlarge(noise / np.abs(noise).mean(), 33, 33)[:, :, 0] * 32 / 66
    stamped = np.asarray(wanet(ramp, keys(1), grid=4, strength=1.0).images)[0, :, :, 0]
    moved = (stamped - ramp[0, :, :, 0]) * 32
    np.testing.assert_allclose(moved[:, 3:-3], field[:, 3:-3], atol=1e-4)


def test_the_variants_differ_in_smoothness() -> None:
    """On a ramp neighbours move together in the smooth variant, and independently per pixel."""
    ramp = np.broadcast_to(
        np.arange(96, dtype=np.float32)[None, None, :, None] / 95, (1, 96, 96, 3)
    )
    roughness = {}
    for name in ("wanet", "wanet_smooth"):
        stamped = TRIGGERS[name].apply(ramp, keys(1), **TRIGGERS[name].defaults).images
        moved = (np.asarray(stamped)[0, 4:-4, 4:-4, 0] - ramp[0, 4:-4, 4:-4, 0]) * 95
        roughness[name] = np.abs(np.diff(moved, axis=0)).mean() / np.abs(moved).mean()
        assert np.abs(moved).max() < 1.5
    assert roughness["wanet"] > 1
    assert roughness["wanet_smooth"] < 0.1


def test_strength_zero_changes_nothing_and_the_seed_decides() -> None:
    images = np.random.default_rng(0).random((1, 16, 16, 3), dtype=np.float32)
    np.testing.assert_allclose(wanet(images, keys(1), strength=0.0).images, images, atol=1e-6)
    first, other = (wanet(images, keys(1), pattern_seed=s).images for s in (0, 1))
    assert np.any(np.asarray(first) != np.asarray(other))
