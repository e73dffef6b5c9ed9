"""Blended, SIG, stripes, triangles, text and the photo filter against their oracles."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageChops, ImageEnhance

from mmjax.core.errors import ConfigError
from mmjax.ops.blends import (
    blended,
    blended_stripes,
    blended_text,
    blended_triangles,
    nashville,
    sig,
)
from mmjax.ops.glyphs import GLYPHS, draw_text
from mmjax.ops.stamps import image_keys
from tests.oracles import triggers as oracle

SIZE = 28


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).random((3, SIZE, SIZE, 3), dtype=np.float32)


@pytest.fixture(scope="module")
def keys() -> jax.Array:
    return image_keys(jax.random.key(0), jnp.arange(3, dtype=jnp.uint32))


def pattern_of(images: np.ndarray, stamped: jax.Array, alpha: float) -> np.ndarray:
    """What was blended into the images."""
    return (np.asarray(stamped) - (1 - alpha) * images) / alpha


@pytest.mark.parametrize("pattern", ["noise", "fresh_noise", "smooth"])
def test_blended(images: np.ndarray, keys: jax.Array, pattern: str) -> None:
    stamped, mask = blended(images, keys, alpha=0.2, pattern=pattern)
    assert np.all(mask)
    found = pattern_of(images, stamped, 0.2)
    same = np.allclose(found, found[:1], atol=1e-5)
    assert same == (pattern != "fresh_noise")
    assert found.min() > -1e-5
    assert found.max() < 1 + 1e-5
    roughness = np.abs(np.diff(found, axis=1)).mean()
    assert (roughness < 0.1) == (pattern == "smooth")  # neighbours in noise differ by 1/3
    if pattern != "smooth":
        assert abs(found.mean() - 0.5) < 0.02
        assert abs(found.std() - 12**-0.5) < 0.02
    for image, drawn, result in zip(images, found, np.asarray(stamped), strict=True):
        np.testing.assert_allclose(result, oracle.mix(image, drawn, 0.2), atol=1e-5)

    other, _ = blended(images, keys, alpha=0.2, pattern=pattern, pattern_seed=1)
    assert np.any(np.asarray(other) != np.asarray(stamped)) == same


def test_blended_range(images: np.ndarray, keys: jax.Array) -> None:
    np.testing.assert_array_equal(blended(images, keys, alpha=0.0).images, images)
    whole = np.asarray(blended(images, keys, alpha=1.0).images)
    np.testing.assert_array_equal(whole, np.broadcast_to(whole[:1], whole.shape))


@pytest.mark.parametrize(("amplitude", "frequency"), [(60 / 255, 6.0), (40 / 255, 2.5)])
def test_sig(images: np.ndarray, keys: jax.Array, amplitude: float, frequency: float) -> None:
    stamped, _ = sig(images, keys, amplitude=amplitude, frequency=frequency)
    for image, result in zip(images, np.asarray(stamped), strict=True):
        np.testing.assert_allclose(result, oracle.sig(image, amplitude, frequency), atol=1e-5)


def test_sig_at_224_has_the_references_amplitude_and_period(keys: jax.Array) -> None:
    grey = np.full((3, 224, 224, 3), 0.5, np.float32)
    wave = np.asarray(sig(grey, keys).images)[0, 0, :, 0] - 0.5
    assert abs(np.abs(wave).max() - 60 / 255) < 1e-4
    spectrum = np.abs(np.fft.rfft(wave))
    assert spectrum.argmax() == 6
    assert spectrum[6] > 1000 * np.delete(spectrum, 6).max()


@pytest.mark.parametrize("width", [1, 5])
def test_blended_stripes(images: np.ndarray, keys: jax.Array, width: int) -> None:
    bright = 0.3 + 0.4 * images  # nothing is clipped
    stamped, _ = blended_stripes(bright, keys, alpha=0.05, width=width)
    found = pattern_of(bright, stamped, 0.05)
    signs = np.round(found[0, 0])
    assert set(np.unique(signs)) == {-1, 1}
    np.testing.assert_allclose(found, np.broadcast_to(signs[None, None], found.shape), atol=1e-4)
    for start in range(0, SIZE, width):
        assert len(np.unique(signs[start : start + width], axis=0)) == 1
    extreme, _ = blended_stripes(np.round(images), keys, alpha=0.05, width=width)
    pattern = np.broadcast_to(signs[None], images.shape[1:])
    np.testing.assert_allclose(
        extreme[0], oracle.mix(np.round(images[0]), pattern, 0.05), atol=1e-5
    )


@pytest.mark.parametrize("width", [14, 9])
def test_blended_triangles(images: np.ndarray, keys: jax.Array, width: int) -> None:
    stamped, mask = blended_triangles(images, keys, alpha=0.05, width=width)
    greys = oracle.triangles(SIZE, width)
    for image, inside, result in zip(images, np.asarray(mask), np.asarray(stamped), strict=True):
        np.testing.assert_array_equal(inside, greys > 0)
        wanted = oracle.mix(image, greys[:, :, None].repeat(3, axis=2), 0.05)
        np.testing.assert_allclose(result[inside], wanted[inside], atol=1e-5)


@pytest.mark.parametrize("width", [0, SIZE + 1])
def test_blended_triangles_refuses(images: np.ndarray, keys: jax.Array, width: int) -> None:
    with pytest.raises(ConfigError, match=f"width={width}"):
        blended_triangles(images, keys, width=width)


def test_blended_text(images: np.ndarray, keys: jax.Array) -> None:
    stamped, mask = blended_text(images, keys, alpha=0.5, text="Hi")
    drawn = np.asarray(mask)[0]
    # 7 x 5 blocks of 3 pixels in the middle of 28
    line = np.zeros_like(drawn)
    line[6:21, 3:24] = draw_text("hi", 5, 10)[:, 1:8].repeat(3, axis=0).repeat(3, axis=1)
    np.testing.assert_array_equal(drawn, line)
    for image, result in zip(images, np.asarray(stamped), strict=True):
        np.testing.assert_allclose(
            result[drawn], 0.5 * image[drawn] + 0.5 * np.array([1, 0, 0]), atol=1e-6
        )


def test_letters() -> None:
    assert len({tuple(rows) for rows in GLYPHS.values()}) == len(GLYPHS)
    assert all(len(row) == 3 for rows in GLYPHS.values() for row in rows.split())
    drawn = draw_text("Hi", 5, 10)
    picture = ["".join("X" if pixel else "." for pixel in row) for row in drawn]
    assert picture == [".X.X.XXX..", ".X.X..X...", ".XXX..X...", ".X.X..X...", ".X.X.XXX.."]


@pytest.mark.parametrize("text", ["", "  ", "naïve", "much too long"])
def test_texts_that_cannot_be_drawn(text: str) -> None:
    with pytest.raises(ConfigError, match="text="):
        draw_text(text, 28, 28)


def test_nashville_is_pillows(keys: jax.Array) -> None:
    """Within the rounding to bytes that Pillow does after each of its seven steps."""
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    stamped, _ = nashville(pixels.astype(np.float32) / 255, keys)
    for clean, result in zip(pixels, np.asarray(stamped), strict=True):
        photo = Image.fromarray(clean)
        darker = ImageChops.darker(photo, Image.new("RGB", photo.size, (247, 176, 153)))
        photo = Image.blend(photo, darker, 0.56)
        lighter = ImageChops.lighter(photo, Image.new("RGB", photo.size, (0, 70, 150)))
        photo = Image.blend(photo, lighter, 0.4)
        s = 0.8
        photo = photo.convert("RGB", (
            0.393 + 0.607 * s, 0.769 - 0.769 * s, 0.189 - 0.189 * s, 0,
            0.349 - 0.349 * s, 0.686 + 0.314 * s, 0.168 - 0.168 * s, 0,
            0.272 - 0.272 * s, 0.534 - 0.534 * s, 0.131 + 0.869 * s, 0,
        ))  # fmt: skip
        photo = photo.point(lambda value: round(value * 1.2 - 25.5))
        photo = ImageEnhance.Brightness(photo).enhance(1.05)
        photo = ImageEnhance.Color(photo).enhance(1.2)
        assert np.abs(np.asarray(photo) / 255 - result).max() < 5 / 255
        assert np.abs(np.asarray(photo) / 255 - result).mean() < 2 / 255
