import io

import numpy as np
import pytest
from PIL import Image

from mmjax.scan.report_images import (
    THUMBNAIL_SIDE,
    encode_png,
    mean_images,
    shared_area,
    squash,
    thumbnail,
)
from tests.scan.report_runs import png


def noise(generator: np.random.Generator, n: int, side: int = 32) -> np.ndarray:
    return generator.integers(0, 256, (n, side, side, 3)).astype(np.uint8)


def pixels_of(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


def test_means_and_spread_are_those_of_the_definition():
    generator = np.random.default_rng(0)
    flagged, benign = noise(generator, 5), noise(generator, 9)
    means = mean_images(flagged, benign)
    np.testing.assert_allclose(means.flagged, flagged.mean(0), rtol=1e-5)
    np.testing.assert_allclose(means.benign, benign.mean(0), rtol=1e-5)
    delta = flagged.mean(0) - benign.mean(0)
    t = delta / np.sqrt(benign.var(0) * (1 / 5 + 1 / 9))
    squared_t = (t**2).mean(-1, keepdims=True)
    faded = delta * squared_t / (squared_t + 16)
    np.testing.assert_allclose(
        means.difference, np.clip(128 + means.gain * faded, 0, 255), rtol=1e-4
    )
    ratio = flagged.var(0).mean(-1) / benign.var(0).mean(-1)
    np.testing.assert_allclose(means.spread[10, 10], ratio[9:12, 9:12].mean(), rtol=1e-4)


@pytest.mark.parametrize(
    ("rows", "columns", "place"),
    [
        (slice(-6, None), slice(-6, None), "the lower right corner"),
        (slice(0, 6), slice(0, 6), "the upper left corner"),
        (slice(13, 19), slice(13, 19), "the middle"),
        (slice(13, 19), slice(0, 6), "the left edge"),
        (slice(0, 6), slice(None), "the upper edge"),
    ],
)
def test_a_fixed_patch_is_found_and_named(rows, columns, place):
    generator = np.random.default_rng(1)
    flagged, benign = noise(generator, 20), noise(generator, 100)
    flagged[:, rows, columns] = flagged[0, rows, columns]
    area = shared_area(mean_images(flagged, benign))
    assert area.place == place
    assert 0.01 < area.share < 0.3


def test_no_patch_no_place():
    generator = np.random.default_rng(2)
    assert shared_area(mean_images(noise(generator, 30), noise(generator, 100))) is None


def test_few_pictures_claim_no_place():
    generator = np.random.default_rng(3)
    flagged = np.repeat(noise(generator, 1), 9, axis=0)
    assert shared_area(mean_images(flagged, noise(generator, 100))) is None


def test_margins_that_everyone_has_are_no_mark():
    generator = np.random.default_rng(4)
    flagged, benign = noise(generator, 20), noise(generator, 100)
    flagged[:, :8], benign[:, :8] = 255, 255
    assert shared_area(mean_images(flagged, benign)) is None


def test_the_same_picture_everywhere_is_the_whole_picture():
    generator = np.random.default_rng(5)
    flagged = np.repeat(noise(generator, 1), 12, axis=0)
    assert shared_area(mean_images(flagged, noise(generator, 50))).place == "the whole picture"


def test_an_empty_side_has_no_means():
    nothing = np.zeros((0, 32, 32, 3), np.uint8)
    assert mean_images(nothing, noise(np.random.default_rng(0), 3)) is None


def test_thumbnails_keep_the_corners_and_fit():
    pixels = np.zeros((400, 900, 3), np.uint8)
    pixels[-80:, -80:] = 255
    small = pixels_of(thumbnail(png(pixels)))
    assert small.shape == (71, THUMBNAIL_SIDE, 3)
    assert small[-1, -1].min() > 250
    assert small[0, 0].max() < 5


def test_small_images_are_not_enlarged():
    assert pixels_of(thumbnail(png(np.zeros((10, 12, 3), np.uint8)))).shape == (10, 12, 3)


@pytest.mark.parametrize("mode", ["L", "P", "LA", "RGBA", "CMYK", "1", "I;16"])
def test_every_mode_becomes_rgb(mode):
    buffer = io.BytesIO()
    kind = "JPEG" if mode == "CMYK" else "PNG"
    Image.new(mode, (8, 8)).save(buffer, kind)
    assert pixels_of(thumbnail(buffer.getvalue())).shape == (8, 8, 3)
    assert squash(buffer.getvalue(), 16).shape == (16, 16, 3)


def test_transparent_pixels_are_white():
    buffer = io.BytesIO()
    Image.new("RGBA", (8, 8), (255, 0, 0, 0)).save(buffer, "PNG")
    assert pixels_of(thumbnail(buffer.getvalue())).min() == 255


def test_junk_and_bombs_have_no_picture():
    assert thumbnail(b"") is None
    assert thumbnail(b"<html>not found</html>") is None
    whole = png(np.zeros((64, 64, 3), np.uint8))
    assert thumbnail(whole[: len(whole) // 2]) is None
    width = (100_000).to_bytes(4, "big")  # in the header, where it costs the sender nothing
    assert thumbnail(whole[:16] + width + whole[20:]) is None


def test_png_bytes_are_deterministic():
    pixels = noise(np.random.default_rng(6), 1)[0]
    assert encode_png(pixels) == encode_png(pixels.copy())
