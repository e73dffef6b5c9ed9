"""JPEG against a loop and against Pillow, and its gradient."""

import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from mmjax.ops.jpeg import Subsampling, jpeg
from tests.oracles import jpeg as oracle


def picture(height: int, width: int, noise: float = 25) -> np.ndarray:
    """Colours that change smoothly, under noise."""
    y, x = np.mgrid[:height, :width]
    planes = [127 + 120 * np.sin(x / 7 + y / 11), 127 + 100 * np.cos(y / 5), 60 + 3 * x]
    noisy = np.stack(planes, -1) + np.random.default_rng(0).normal(0, noise, (height, width, 3))
    return np.clip(np.round(noisy), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("quality", [90, 30])
@pytest.mark.parametrize("subsampling", ["4:2:0", "4:4:4"])
def test_equal_to_the_loop(quality: int, subsampling: Subsampling) -> None:
    """Neither side is a multiple of a block's; 13 is not even."""
    images = np.stack([picture(18, 13), picture(18, 13)[::-1]])
    found = np.asarray(jpeg(jnp.float32(images), quality, subsampling=subsampling))
    np.testing.assert_array_equal(found, np.round(found))
    for image, result in zip(images, found, strict=True):
        wanted = oracle.jpeg(image, quality, halve=subsampling == "4:2:0")
        # a number half-way between two whole ones may go either way in float32: by one grey level
        assert np.abs(result - wanted).max() <= 2
        assert np.mean(result != wanted) < 0.005


@pytest.mark.parametrize("noise", [0, 25])
@pytest.mark.parametrize("quality", [90, 75, 50])
@pytest.mark.parametrize("subsampling", ["4:2:0", "4:4:4"])
def test_close_to_pillow(quality: int, subsampling: Subsampling, noise: float) -> None:
    """Half a grey level on average, and nine in ten of what JPEG itself changes is explained.

    The rest is libjpeg's fixed-point cosine transform, which now and then rounds a coefficient to
    the other side: all 64 pixels of a block then move by up to half a step.
    """
    image = picture(37, 46, noise)
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality, subsampling=subsampling)
    wanted = np.asarray(Image.open(file)).astype(float)
    found = np.asarray(jpeg(jnp.float32(image)[None], quality, subsampling=subsampling))[0]
    off = np.abs(found - wanted)
    assert off.mean() < 0.5
    assert off.mean() < 0.1 * np.abs(image - wanted).mean()


def test_quality_may_be_drawn() -> None:
    """Traced and given as a number are the same; vmap takes one for each image."""
    images = jnp.float32(picture(16, 16))[None]
    fixed = [np.asarray(jpeg(images, quality)) for quality in (90, 30)]
    drawn = jax.vmap(jpeg, in_axes=(None, 0))(images, jnp.asarray([90, 30]))
    np.testing.assert_array_equal(drawn, np.stack(fixed))
    assert np.abs(fixed[0] - fixed[1]).mean() > 5


def test_the_gradient_is_straight_through() -> None:
    """That of JPEG without its roundings: in 4:4:4 the identity, where nothing is clipped."""
    image = jnp.full((1, 16, 16, 3), 100.0) + jnp.arange(16.0)[None, None, :, None]
    weight = jnp.asarray(np.random.default_rng(0).normal(size=image.shape), jnp.float32)

    def slope(subsampling: Subsampling):
        return jax.grad(lambda x: jnp.sum(weight * jpeg(x, 50, subsampling=subsampling)))(image)

    # the colour matrices are each other's inverse to 1e-5
    np.testing.assert_allclose(slope("4:4:4"), weight, atol=1e-4)
    # chroma shares its gradient among neighbours; a grey change of a pixel is luma alone
    halved = slope("4:2:0")
    np.testing.assert_allclose(jnp.sum(halved, axis=3), jnp.sum(weight, axis=3), atol=1e-4)
    assert not np.allclose(halved, weight, atol=0.1)
