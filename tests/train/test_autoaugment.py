import numpy as np
import pytest
from PIL import Image

from mmjax.train.autoaugment import OPERATIONS, POLICY, autoaugment
from tests.oracles import autoaugment as oracle

IMAGES = np.random.default_rng(0).integers(20, 200, (60, 32, 32, 3), np.uint8)


def rngs(count, seed=0):
    return [np.random.default_rng([seed, row]) for row in range(count)]


@pytest.mark.parametrize(
    ("name", "magnitude", "turned", "wanted", "tolerance"),
    [
        ("solarize", 5, False, lambda x: oracle.solarize(x, 255 * 4 / 9), 0),
        ("posterize", 8, False, lambda x: oracle.posterize(x, 4), 0),
        ("posterize", 5, False, lambda x: oracle.posterize(x, 6), 0),
        ("invert", 0, False, lambda x: 255 - x, 0),
        ("autocontrast", 0, False, oracle.autocontrast, 1),
        ("equalize", 0, False, oracle.equalize, 0),
        ("colour", 8, False, lambda x: oracle.colour(x, 1.8), 2),
        ("colour", 8, True, lambda x: oracle.colour(x, 0.2), 2),
        ("contrast", 8, False, lambda x: oracle.contrast(x, 1.8), 2),
    ],
)
def test_colours_are_the_oracles(name, magnitude, turned, wanted, tolerance):
    """Pillow rounds greys and blends to whole numbers: that is the tolerance."""
    made = OPERATIONS[name](Image.fromarray(IMAGES[0]), magnitude, turned)
    difference = np.abs(np.asarray(made).astype(int) - wanted(IMAGES[0].astype(int)))
    assert difference.max() <= tolerance


def test_shapes_move_by_the_magnitude():
    row, column = np.mgrid[:33, :33] - 16
    disc = np.uint8(255 * ((row - 10) ** 2 + column**2 < 9))[..., None].repeat(3, axis=2)

    def centre(image):
        weight = np.asarray(image)[..., 0].astype(float)
        return np.array([(weight * row).sum(), (weight * column).sum()]) / weight.sum()

    turned = centre(OPERATIONS["rotate"](Image.fromarray(disc), 9, False))
    angle = np.deg2rad(30)
    np.testing.assert_allclose(turned, [10 * np.cos(angle), 10 * np.sin(angle)], atol=0.3)
    other = centre(OPERATIONS["rotate"](Image.fromarray(disc), 9, True))
    np.testing.assert_allclose(other, turned * [1, -1], atol=0.1)
    sheared = centre(OPERATIONS["shear"](Image.fromarray(disc), 9, False))
    np.testing.assert_allclose(sheared, [10, -0.3 * 26.5], atol=0.3)
    np.testing.assert_allclose(
        centre(OPERATIONS["shear"](Image.fromarray(disc), 3, True)), [10, 0.1 * 26.5], atol=0.3
    )


def test_sharpness_changes_what_is_not_flat():
    flat = Image.fromarray(np.full((8, 8, 3), 77, np.uint8))
    assert np.asarray(OPERATIONS["sharpness"](flat, 7, False)).tolist() == np.asarray(flat).tolist()
    noisy = Image.fromarray(IMAGES[0])
    sharper, softer = (np.asarray(OPERATIONS["sharpness"](noisy, 7, t)) for t in (False, True))
    assert softer.astype(float).std() < IMAGES[0].astype(float).std() < sharper.astype(float).std()


def test_the_policy_is_the_published_one():
    assert len(POLICY) == 25
    used = {step.name for pair in POLICY for step in pair}
    assert used == set(OPERATIONS)
    # expected number of operations on an image, from the table's probabilities
    assert sum(step.probability for pair in POLICY for step in pair) == pytest.approx(31.0)


def test_a_generator_alone_decides_about_its_image():
    made = autoaugment(IMAGES, rngs(60), workers=3)
    np.testing.assert_array_equal(made, autoaugment(IMAGES, rngs(60)))
    np.testing.assert_array_equal(made[5:7], autoaugment(IMAGES[5:7], rngs(60)[5:7]))
    assert not np.array_equal(made, autoaugment(IMAGES, rngs(60, seed=1)))
    changed = (made != IMAGES).any(axis=(1, 2, 3)).mean()
    assert 0.7 < changed < 1
