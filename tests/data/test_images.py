"""Image decoding: every format and mode, CLIP's geometry to the bit, and nothing but ImageError."""

import contextlib
import io
import os
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mmjax.core.errors import ConfigError, ImageError
from mmjax.core.types import STATUSES
from mmjax.data import images
from mmjax.data.image_formats import recognise
from mmjax.data.image_metadata import drop_jpeg_metadata, drop_png_metadata
from mmjax.data.images import decode, fit_square, read_rgb
from mmjax.data.scenes import make_scene
from tests.oracles import bicubic

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")


def _save(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.fixture(scope="module")
def picture():
    return Image.fromarray(make_scene(3, 1, 96).image[:80])


@pytest.fixture(scope="module")
def files(picture):
    return {kind: _save(picture, kind) for kind in FORMATS}


def _png(width, height, *chunks):
    """A PNG with the given header and chunks, checksums right."""
    parts = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), *chunks]
    body = b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + body


# ---- formats


@pytest.mark.parametrize("kind", ["PNG", "BMP"])
def test_lossless_formats_keep_pixels(picture, files, kind):
    np.testing.assert_array_equal(np.asarray(read_rgb(files[kind])), np.asarray(picture))


@pytest.mark.parametrize("kind", FORMATS)
def test_equal_to_pillow(files, kind):
    wanted = np.asarray(Image.open(io.BytesIO(files[kind])).convert("RGB"))
    for library in ("auto", "pillow", "simplejpeg"):
        np.testing.assert_array_equal(np.asarray(read_rgb(files[kind], library=library)), wanted)


@pytest.mark.parametrize(
    "options",
    [
        {"quality": 30},
        {"quality": 95, "subsampling": 0},
        {"subsampling": 1},
        {"progressive": True},
        {"optimize": True, "restart_marker_blocks": 2},
    ],
)
@pytest.mark.parametrize("grey", [False, True])
def test_simplejpeg_equals_pillow(picture, options, grey):
    odd = picture.crop((0, 0, 77, 53))
    data = _save(odd.convert("L") if grey else odd, "JPEG", **options)
    one, other = (np.asarray(read_rgb(data, library=name)) for name in ("pillow", "simplejpeg"))
    np.testing.assert_array_equal(one, other)


def test_cmyk_jpeg_is_converted_by_both_libraries():
    data = _save(Image.new("CMYK", (32, 32), (0, 200, 100, 50)), "JPEG", quality=95)
    wanted = np.array([255, 55, 155]) * (205 / 255)
    for library in ("pillow", "simplejpeg"):
        pixels = decode(data, 8, library=library)
        np.testing.assert_allclose(pixels[4, 4], wanted, atol=4)


def test_rgb_coded_jpeg_is_read(picture):
    data = _save(picture, "JPEG", keep_rgb=True, quality=100)
    difference = np.asarray(read_rgb(data)).astype(int) - np.asarray(picture)
    assert np.abs(difference).max() <= 3


def test_transparency_lies_on_white():
    clear = Image.new("RGBA", (8, 8), (200, 0, 0, 0))
    clear.putpixel((0, 0), (200, 0, 0, 255))
    clear.putpixel((1, 0), (200, 0, 0, 128))
    for kind in ("PNG", "WEBP"):
        options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
        pixels = np.asarray(read_rgb(_save(clear, kind, **options)))
        assert pixels[0, 0].tolist() == [200, 0, 0]
        np.testing.assert_allclose(pixels[0, 1], [227, 127, 127], atol=1)
        assert pixels[4, 4].tolist() == [255, 255, 255]


def test_grey_with_alpha_and_with_a_clear_shade():
    data = _save(Image.merge("LA", [Image.new("L", (4, 4), 10), Image.new("L", (4, 4), 0)]), "PNG")
    assert np.asarray(read_rgb(data)).min() == 255
    data = _save(Image.new("L", (4, 4), 10), "PNG", transparency=10)
    assert np.asarray(read_rgb(data)).min() == 255
    data = _save(Image.new("RGB", (4, 4), (1, 2, 3)), "PNG", transparency=(1, 2, 3))
    assert np.asarray(read_rgb(data)).min() == 255


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_palette_with_a_clear_entry(kind):
    image = Image.new("P", (6, 6), 0)
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((2, 2), 1)
    pixels = np.asarray(read_rgb(_save(image, kind, transparency=0)))
    assert pixels[0, 0].tolist() == [255, 255, 255]
    assert pixels[2, 2].tolist() == [0, 0, 255]


def test_sixteen_bit_grey_is_scaled():
    levels = np.array([[0, 255, 256, 32768], [40000, 65280, 65534, 65535]], np.uint16)
    pixels = np.asarray(read_rgb(_save(Image.fromarray(levels), "PNG")))
    np.testing.assert_array_equal(pixels[..., 0], levels >> 8)
    np.testing.assert_array_equal(pixels[..., 0], pixels[..., 2])


def test_one_bit_images():
    image = Image.new("1", (9, 9), 1)
    image.putpixel((4, 4), 0)
    for kind in ("PNG", "BMP", "GIF"):
        pixels = np.asarray(read_rgb(_save(image, kind)))
        assert pixels[0, 0].tolist() == [255, 255, 255]
        assert pixels[4, 4].tolist() == [0, 0, 0]


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_animations_give_their_first_frame(kind):
    frames = [Image.new("RGB", (10, 10), colour) for colour in ("red", "lime", "blue")]
    data = _save(frames[0], kind, save_all=True, append_images=frames[1:])
    np.testing.assert_allclose(np.asarray(read_rgb(data))[5, 5], [255, 0, 0], atol=3)


def test_orientation_is_not_applied(picture):
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = read_rgb(_save(picture, "JPEG", exif=exif))
    assert turned.size == picture.size
    np.testing.assert_array_equal(np.asarray(turned), np.asarray(read_rgb(_save(picture, "JPEG"))))


def test_broken_metadata_does_not_matter(picture):
    plain = _save(picture, "JPEG")
    junk = b"Exif\x00\x00MM\x00*\xff\xff\xff\xff" + bytes(range(256))
    mpf = b"MPF\x00MM\x00*\x00\x00\x00\x08\xff\xff"
    marked = plain[:2]
    for marker, body in (
        (b"\xff\xe1", junk),
        (b"\xff\xe2", mpf),
        (b"\xff\xed", b"Photoshop 3.0\x00"),
    ):
        marked += marker + struct.pack(">H", len(body) + 2) + body
    marked += plain[2:]
    for library in ("pillow", "simplejpeg"):
        one, other = (read_rgb(data, library=library) for data in (plain, marked))
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


def test_broken_png_chunks_do_not_matter(picture, files):
    plain = files["PNG"]
    after_header = plain.index(b"IDAT") - 4
    bad_animation = _png(1, 1, (b"acTL", bytes(8)))[33:]
    junk = [(name, b"k\x00\x00junk") for name in (b"iCCP", b"eXIf", b"zTXt")]
    bad_profile = _png(1, 1, *junk)[33:]
    marked = plain[:after_header] + bad_animation + bad_profile + plain[after_header:]
    np.testing.assert_array_equal(np.asarray(read_rgb(marked)), np.asarray(picture))


def test_a_file_without_metadata_is_left_alone(files):
    assert drop_png_metadata(files["PNG"]) == files["PNG"]
    assert drop_jpeg_metadata(files["JPEG"]) == files["JPEG"]


@settings(deadline=None)
@given(st.binary(max_size=80))
def test_dropping_metadata_of_junk_keeps_its_end(data):
    png = b"\x89PNG\r\n\x1a\n"
    for drop, head in ((drop_jpeg_metadata, b"\xff\xd8"), (drop_png_metadata, png)):
        result = drop(head + data)
        assert result.startswith(head)
        assert len(result) <= len(head + data)


# ---- refusals


def _status(data, **options):
    with pytest.raises(ImageError) as caught:
        decode(data, 16, **options)
    assert caught.value.status in STATUSES
    return caught.value.status, str(caught.value)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("library", ["pillow", "simplejpeg"])
def test_truncated_files_say_so(files, kind, share, library):
    data = files[kind]
    assert _status(data[: int(share * len(data))], library=library)[0] == "truncated_image"


def test_a_flipped_byte_is_no_truncation(files):
    data = bytearray(files["PNG"])
    place = data.index(b"IDAT") + 20
    data[place : place + 40] = b"\xff" * 40
    assert _status(bytes(data))[0] == "undecodable_image"


@pytest.mark.parametrize("library", ["pillow", "simplejpeg"])
def test_a_jpeg_of_endless_scans_is_refused(picture, library):
    data = _save(picture.convert("L"), "JPEG", progressive=True)
    end = data.rindex(b"\xff\xd9")
    last = data.rindex(b"\xff\xda")
    status, message = _status(data[:end] + data[last:end] * 200 + data[end:], library=library)
    assert status == "undecodable_image"
    assert "scans" in message
    comment = b"\xff\xfe" + struct.pack(">H", 402) + b"\xff\xda" * 200
    assert decode(data[:2] + comment + data[2:], 16, library=library).shape == (16, 16, 3)


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"II*\x00\x08\x00\x00\x00", "TIFF"),
        (b"%!PS-Adobe-3.0 EPSF-3.0", "EPS"),
        (b"\n<svg xmlns='http://www.w3.org/2000/svg'>", "SVG"),
        (b"<?xml version='1.0'?>\n<!-- made -->\n<svg>", "SVG"),
        (b"\x00\x00\x00\x1cftypavif\x00\x00", "AVIF"),
        (b"\x00\x00\x00\x18ftypheic\x00\x00", "HEIC"),
        (b"\xff\x0a\xfa\x1f", "JPEG XL"),
        (b"P6\n2 2\n255\n", "PNM"),
        (b"%PDF-1.7", "PDF"),
    ],
)
def test_other_formats_are_named(head, name):
    status, message = _status(head + bytes(64))
    assert status == "unsupported_image"
    assert message.startswith(f"{name} is not read; convert it to JPEG")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html><body>404", "web page"),
        (b"\n <HTML>", "web page"),
        (b"hello world", "68 65 6c 6c"),
        (b"BM but only text", "BMP of 16 bytes"),
    ],
)
def test_what_is_no_image(data, message):
    status, text = _status(data)
    assert status == "undecodable_image"
    assert message in text


def test_the_name_of_a_file_means_nothing(files):
    assert recognise(files["JPEG"]).name == "JPEG"
    assert not recognise(b"II*\x00").is_read
    assert recognise(b"") == ("",)


def _bombs():
    side = 20_000
    gif = b"GIF89a" + struct.pack("<HH", 60_000, 60_000) + b"\x80\x00\x00" + bytes(6)
    gif += b"," + struct.pack("<HHHH", 0, 0, 60_000, 60_000) + b"\x00\x02\x02\x4c\x01\x00;"
    bmp = b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, side, side, 1, 24, *[0] * 6)
    jpeg = bytearray(_save(Image.new("RGB", (8, 8)), "JPEG"))
    start = jpeg.index(b"\xff\xc0") + 5
    jpeg[start : start + 4] = struct.pack(">HH", side, side)
    webp = b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8X" + struct.pack("<I", 10)
    webp += bytes(4) + (16_382).to_bytes(3, "little") * 2
    rows = (b"IDAT", zlib.compress(bytes(1000)))
    return {
        "PNG": _png(side, side, rows),
        "GIF": gif,
        "BMP": bmp,
        "JPEG": bytes(jpeg),
        "WebP": webp,
    }


@pytest.mark.parametrize("name", ["PNG", "GIF", "BMP", "JPEG"])
@pytest.mark.parametrize("library", ["pillow", "simplejpeg"])
def test_bombs_are_refused_by_their_header(name, library):
    status, message = _status(_bombs()[name], library=library)
    assert status == "oversized_image"
    assert "--max_image_pixels=25000000" in message


def test_a_webp_of_a_huge_canvas_is_refused():
    huge = _save(Image.new("RGB", (8000, 4000)), "WEBP", lossless=True, method=0)
    assert _status(huge)[0] == "oversized_image"
    assert _status(_bombs()["WebP"])[0] in (
        "oversized_image",
        "truncated_image",
        "undecodable_image",
    )


def test_max_pixels_is_inclusive(files):
    assert decode(files["PNG"], 8, max_pixels=96 * 80).shape == (8, 8, 3)
    assert _status(files["PNG"], max_pixels=96 * 80 - 1)[0] == "oversized_image"
    assert _status(_png(0, 7, (b"IEND", b"")))[0] == "undecodable_image"


def test_simplejpeg_missing(monkeypatch, files):
    monkeypatch.setattr(images, "have_simplejpeg", lambda: False)
    with pytest.raises(ConfigError, match="mmjax\\[fast\\]"):
        decode(files["JPEG"], 8, library="simplejpeg")
    assert decode(files["JPEG"], 8).shape == (8, 8, 3)


@settings(max_examples=150, deadline=None)
@given(
    changes=st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 255)), max_size=4),
    cut=st.integers(0, 40),
)
def test_libraries_agree_on_damaged_jpegs(files, changes, cut):
    content = bytearray(files["JPEG"])
    for place, value in changes:
        content[place % len(content)] = value
    outcomes = []
    for library in ("pillow", "simplejpeg"):
        try:
            pixels = decode(bytes(content[: len(content) - cut]), 16, library=library)
            outcomes.append(pixels.tobytes())
        except ImageError as error:
            outcomes.append((error.status, str(error)))
    assert outcomes[0] == outcomes[1]


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_mutated_files_raise_nothing_but_image_errors(files, data):
    content = bytearray(files[data.draw(st.sampled_from(FORMATS))])
    places = st.integers(0, min(400, len(content) - 1)) | st.integers(0, len(content) - 1)
    for place, value in data.draw(st.lists(st.tuples(places, st.integers(0, 255)), max_size=8)):
        content[place] = value
    content = content[: data.draw(st.just(len(content)) | st.integers(0, len(content)))]
    library = data.draw(st.sampled_from(["pillow", "simplejpeg"]))
    with contextlib.suppress(ImageError):
        pixels = decode(bytes(content), 16, library=library, max_pixels=1_000_000)
        assert pixels.shape == (16, 16, 3)


@settings(max_examples=100, deadline=None)
@given(data=st.binary(max_size=300), kind=st.sampled_from(FORMATS))
def test_junk_after_a_right_beginning(files, data, kind):
    head = files[kind][:16]
    with pytest.raises(ImageError):
        decode(head + data, 16, max_pixels=1_000_000)


# ---- geometry


def _torchvision(image, size):
    """Resize(size, BICUBIC) and CenterCrop(size) as torchvision.transforms does them on PIL."""
    width, height = image.size
    short, long = (width, height) if width <= height else (height, width)
    new_short, new_long = size, int(size * long / short)
    new_width, new_height = (new_short, new_long) if width <= height else (new_long, new_short)
    resized = image.resize((new_width, new_height), Image.Resampling.BICUBIC)
    top, left = round((new_height - size) / 2.0), round((new_width - size) / 2.0)
    return np.asarray(resized.crop((left, top, left + size, top + size)))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_geometry_is_torchvisions(width, height, size, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    difference = np.abs(fit_square(image, size).astype(int) - _torchvision(image, size))
    strip = max(width, height) > 64 * min(width, height)
    assert difference.max() <= (1 if strip else 0)


@pytest.mark.parametrize("shape", [(40, 60), (61, 33), (17, 17), (5, 90)])
@pytest.mark.parametrize("size", [24, 33])
def test_geometry_and_kernel_equal_the_loop(shape, size):
    """Two roundings to 8 bits, of sums that Pillow holds in 22-bit fixed point: one level apart."""
    pixels = np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)
    difference = np.abs(
        fit_square(Image.fromarray(pixels), size) - bicubic.fit_square(pixels, size)
    )
    assert difference.max() <= 1
    assert difference.mean() < 0.01


def test_same_size_keeps_pixels(picture):
    square = picture.crop((0, 0, 64, 64))
    np.testing.assert_array_equal(fit_square(square, 64), np.asarray(square))


@pytest.mark.parametrize("shape", [(1, 1), (1, 10_000), (10_000, 1), (3, 5000)])
def test_strips_are_cheap_and_near(shape):
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    result = decode(_save(image, "PNG"), 32)
    assert np.abs(result.astype(int) - _torchvision(image, 32)).max() <= 1


def test_a_strip_takes_little_memory():
    """A 1 x 20,000,000 strip would need 3 TB if it were resized as a whole."""
    code = (
        "import re; from PIL import Image; from mmjax.data.images import fit_square;"
        "fit_square(Image.new('RGB', (20_000_000, 1)), 224);"
        # not ru_maxrss: a child starts with its parent's
        "print(re.search(r'VmHWM:\\s+(\\d+) kB', open('/proc/self/status').read())[1])"
    )
    command = [sys.executable, "-c", code]
    env = os.environ | {"PYTHONPATH": "."}
    peak = subprocess.run(command, check=True, env=env, capture_output=True, text=True).stdout
    assert int(peak) < 600_000


@pytest.mark.real
def test_both_libraries_agree_on_photos(data_root):
    photos = sorted((data_root / "flickr8k").rglob("*.jpg"))[:60]
    photos += sorted((data_root / "imagenet1k_sample").rglob("*.jp*g"))[:60]
    assert photos
    for photo in photos:
        data = photo.read_bytes()
        wanted = _torchvision(Image.open(io.BytesIO(data)).convert("RGB"), 64)
        for library in ("pillow", "simplejpeg"):
            np.testing.assert_array_equal(decode(data, 64, library=library), wanted)
