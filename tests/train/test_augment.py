import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.train.augment import augment, resampling
from mmjax.train.config import AugmentConfig

IMAGES = np.random.default_rng(0).integers(0, 256, (16, 8, 8, 3)).astype(np.uint8)


def views(**options):
    return np.asarray(augment(jnp.asarray(IMAGES), AugmentConfig(**options), key=jax.random.key(0)))


def test_defaults_change_nothing():
    np.testing.assert_array_equal(views(), IMAGES)


def test_resampling_is_bilinear():
    row = np.float32([0, 10, 20, 30])
    weights = resampling(jnp.float32([0, 1, 4]), jnp.float32([4, 2, -4]), 4)
    np.testing.assert_allclose(weights.sum(axis=2), 1, rtol=1e-6)
    same, inner, mirrored = np.asarray(weights @ row)
    np.testing.assert_allclose(same, row)
    # output centres of the span [1, 3) lie at pixel positions .75, 1.25, 1.75, 2.25
    np.testing.assert_allclose(inner, [7.5, 12.5, 17.5, 22.5], rtol=1e-6)
    np.testing.assert_allclose(mirrored, row[::-1])


@pytest.mark.usefixtures("keys_checked")
def test_flip_mirrors_about_half_and_touches_nothing_else():
    seen = views(flip=True)
    kept = [np.array_equal(a, b) for a, b in zip(seen, IMAGES, strict=True)]
    mirrored = [np.array_equal(a, b[:, ::-1]) for a, b in zip(seen, IMAGES, strict=True)]
    assert all(a or b for a, b in zip(kept, mirrored, strict=True))
    assert any(kept)
    assert any(mirrored)


@pytest.mark.usefixtures("keys_checked")
def test_crops_stay_inside_and_keep_colours_in_range():
    ramp = np.tile(np.arange(8, dtype=np.uint8)[None, :, None, None] * 30, (64, 1, 8, 3))
    config = AugmentConfig(crop_area=0.25)
    seen = np.asarray(augment(jnp.asarray(ramp), config, key=jax.random.key(0))).astype(int)
    rows = seen[:, :, 0, 0]
    assert (np.diff(rows, axis=1) >= 0).all()
    spans = rows[:, -1] - rows[:, 0]
    assert spans.min() >= 210 * 0.5 - 40  # a quarter of the area is half of the side
    assert spans.min() < 160 < spans.max()
    np.testing.assert_array_equal(
        seen[:, :, :1], np.broadcast_to(seen[:, :, :1], seen.shape)[:, :, :1]
    )


def test_aspect_makes_height_and_width_differ():
    y, x = np.meshgrid(np.arange(8), np.arange(8), indexing="ij")
    grid = np.stack([30 * y, 30 * x, 0 * x], axis=-1).astype(np.uint8)
    many = jnp.asarray(np.tile(grid[None], (32, 1, 1, 1)))
    square = np.asarray(augment(many, AugmentConfig(crop_area=0.3), key=jax.random.key(0))).astype(
        int
    )
    wide = AugmentConfig(crop_area=0.3, crop_aspect=2.0)
    oblong = np.asarray(augment(many, wide, key=jax.random.key(0))).astype(int)

    def span(seen, axis):
        along = seen[:, :, 0, 0] if axis == 0 else seen[:, 0, :, 1]
        return along[:, 6] - along[:, 1]

    assert np.abs(span(square, 0) - span(square, 1)).max() < 45
    assert np.abs(span(oblong, 0) - span(oblong, 1)).max() > 60


@pytest.mark.usefixtures("keys_checked")
def test_colour_changes_pixels_but_not_places():
    grey = jnp.full((8, 4, 4, 3), 100, jnp.uint8)
    seen = np.asarray(augment(grey, AugmentConfig(colour=0.4), key=jax.random.key(0))).astype(int)
    assert all(len(np.unique(image)) == 1 for image in seen)
    assert len(np.unique(seen[:, 0, 0, 0])) > 4
    assert seen.min() >= 59
    assert seen.max() <= 141


@pytest.mark.parametrize("devices", [1, 4])
def test_views_depend_on_the_key_alone(devices):
    from mmjax.core.mesh import MeshConfig, make_mesh
    from mmjax.learn.sharding import put_batch

    config = AugmentConfig(crop_area=0.5, crop_aspect=1.5, flip=True, colour=0.2)
    jitted = jax.jit(lambda images, key: augment(images, config, key=key))
    placed = put_batch(IMAGES, make_mesh(MeshConfig(data=devices)))
    eager = np.asarray(augment(jnp.asarray(IMAGES), config, key=jax.random.key(0))).astype(int)
    # fused arithmetic may round a pixel the other way
    assert np.abs(np.asarray(jitted(placed, jax.random.key(0))).astype(int) - eager).max() <= 1
    other = np.asarray(jitted(placed, jax.random.key(1))).astype(int)
    assert np.abs(other - eager).max() > 50
