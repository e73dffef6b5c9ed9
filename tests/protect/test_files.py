"""One photo's file and name: turned, at the ends of its range, without a caption."""

import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from mmjax.protect.canvas import TURNS
from mmjax.protect.folder import caption_from, output_name, taken_names
from mmjax.protect.photos import add_noise, read_photo, room, write_photo


def test_views_are_turned_as_viewers_turn_photos():
    square = np.arange(3 * 3 * 3, dtype=np.uint8).reshape(3, 3, 3)
    for orientation, turn in enumerate(TURNS, 1):
        image = Image.fromarray(square)
        exif = Image.Exif()
        exif[0x0112] = orientation
        out = io.BytesIO()
        image.save(out, "PNG", exif=exif)
        shown = np.asarray(ImageOps.exif_transpose(Image.open(out)))
        np.testing.assert_array_equal(np.asarray(turn(square[None]))[0], shown)


def test_noise_is_written_and_read_exactly_at_the_ends_of_the_range():
    pixels = np.array([[[0, 255, 128]], [[3, 250, 7]]], np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    photo = read_photo(out.getvalue(), max_pixels=100)
    low, high = room(photo, 8)
    for noise in (low, high):
        read = read_photo(write_photo(add_noise(photo, noise), "PNG", 95), max_pixels=100)
        np.testing.assert_array_equal(read.pixels.astype(int), pixels.astype(int) + noise)
    assert (low + 8 >= 0).all()
    assert low[0, 0].tolist() == [0, -8, -8]
    assert high[0, 0].tolist() == [8, 0, 8]


@pytest.mark.parametrize(
    ("name", "caption"),
    [
        ("2024-07_Anna at the_lake (3).jpg", "Anna at the lake"),
        ("IMG_1234.JPG", "photo"),
        ("sub/été à Paris.png", "été Paris"),
    ],
)
def test_captions_from_file_names(name, caption):
    assert caption_from(name) == caption


def test_no_two_photos_are_given_one_name():
    photos = ["a.webp", "a.bmp", "a.bmp.png", "b/a.gif", "c.gif", "c.png", "d", "d.webp", "e.WEBP"]
    taken = taken_names(photos)
    names = {name: output_name(name, "PNG", taken) for name in photos}
    assert len(set(names.values())) == len(photos)
    assert names["a.bmp.png"] == "a.bmp.png"
    assert names["c.png"] == "c.png"
    assert names["b/a.gif"] == "b/a.png"
    assert names["e.WEBP"] == "e.png"
