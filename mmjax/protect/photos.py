"""One photo's file: what has to stay as it is, and the file with the noise in it."""

import io
import struct
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Int8, UInt8, UInt16
from PIL import Image

from mmjax.data.images import read_rgb

Format = Literal["JPEG", "PNG"]

SUFFIXES = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png",),
}
_ORIENTATION = 0x0112  # the EXIF tag
_READ = ("JPEG", "PNG", "WEBP", "GIF", "BMP")


class Photo(NamedTuple):
    """A decoded photo, as it is stored (not turned).

    Fields:
        pixels: colours; grey in all three channels where `grey`.
        alpha: opacity, None where there is none.
        deep: the 16-bit values of a grey photo that has them.
        grey: whether the file has one channel of colour.
        format: of the file it came from.
        orientation: EXIF's, 1 to 8.
        profile: ICC profile of the colours.
        notes: what the protected file cannot keep.
    """

    pixels: UInt8[np.ndarray, "h w 3"]
    alpha: UInt8[np.ndarray, "h w"] | None
    deep: UInt16[np.ndarray, "h w"] | None
    grey: bool
    format: str
    orientation: int
    profile: bytes | None
    notes: tuple[str, ...]


def read_photo(data: bytes, *, max_pixels: int) -> Photo:
    """Decode a photo.

    Args:
        data: the file.
        max_pixels: larger ones are refused.

    Raises:
        ImageError: it cannot be read; `status` says why.
    """
    whole = read_rgb(data, max_pixels=max_pixels, library="pillow")  # refuses what is damaged
    with Image.open(io.BytesIO(data), formats=_READ) as image:
        mode, profile = image.mode, image.info.get("icc_profile")
        notes = []
        if getattr(image, "n_frames", 1) > 1:
            notes.append("only the first of several pictures in the file is kept")
        if mode == "CMYK":
            notes.append("CMYK became RGB")
            profile = None
        if mode == "P":
            notes.append("the palette became full colour")
        alpha = deep = None
        pixels = np.asarray(whole)
        if mode.startswith("I"):
            deep = np.asarray(image).astype(np.uint16)
        elif image.has_transparency_data:
            clear = np.asarray(image.convert("RGBA"))
            pixels, alpha = clear[..., :3], clear[..., 3]
        grey = mode in ("1", "L", "LA", "La") or deep is not None
        name = "JPEG" if image.format == "MPO" else image.format or ""
        turned, orientation = _orientation(image)
    if not turned:
        notes.append("its EXIF data are damaged; the orientation is not kept")
    return Photo(pixels, alpha, deep, grey, name, orientation, profile, tuple(notes))


def _orientation(image: Image.Image) -> tuple[bool, int]:
    """Whether the EXIF data can be read, and the orientation, 1 where there is none."""
    try:
        found = image.getexif().get(_ORIENTATION, 1)
    except (OSError, SyntaxError, ValueError, KeyError, TypeError, IndexError, struct.error):
        return False, 1
    return True, found if isinstance(found, int) and 1 <= found <= 8 else 1


def room(photo: Photo, epsilon: int) -> tuple[np.ndarray, np.ndarray]:
    """The least and the greatest noise, int8 [h, w, 3], within the budget and 0 to 255."""
    pixels = photo.pixels.astype(np.int16)
    low, high = np.maximum(-pixels, -epsilon), np.minimum(255 - pixels, epsilon)
    return low.astype(np.int8), high.astype(np.int8)


def add_noise(photo: Photo, noise: Int8[np.ndarray, "h w 3"]) -> Photo:
    """The photo with noise that leaves neither 0 to 255 (`room`); alpha stays."""
    pixels = (photo.pixels.astype(np.int16) + noise).astype(np.uint8)
    deep = photo.deep
    if deep is not None:  # readers of 8 bits take the high byte
        deep = (deep.astype(np.int32) + 256 * noise[..., 0].astype(np.int32)).astype(np.uint16)
    return photo._replace(pixels=pixels, deep=deep)


def write_photo(photo: Photo, name: Format, quality: int) -> bytes:
    """The photo as a file, with its orientation and colour profile and no other metadata.

    EXIF data may hold a small copy of the photo as it was, and the place where it was taken.

    Args:
        photo: what to write; one with alpha or 16 bits wants PNG.
        name: of the format.
        quality: of JPEG.
    """
    if photo.deep is not None:
        image = Image.fromarray(photo.deep)
    else:
        colours = photo.pixels[..., :1] if photo.grey else photo.pixels
        planes = colours if photo.alpha is None else np.dstack([colours, photo.alpha])
        mode = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[planes.shape[2]]
        size = (planes.shape[1], planes.shape[0])
        image = Image.frombytes(mode, size, np.ascontiguousarray(planes).tobytes())
    options: dict[str, object] = {"compress_level": 3} if name == "PNG" else {"quality": quality}
    if photo.profile:
        options["icc_profile"] = photo.profile
    if photo.orientation != 1:
        exif = Image.Exif()
        exif[_ORIENTATION] = photo.orientation
        options["exif"] = exif
    out = io.BytesIO()
    image.save(out, name, **options)
    return out.getvalue()


def format_of(photo: Photo, wanted: str) -> Format:
    """The format that a photo is written in: `same`, `png` or `jpeg` as far as it can be."""
    if photo.alpha is not None or photo.deep is not None or wanted == "png":
        return "PNG"
    return "JPEG" if wanted == "jpeg" or photo.format == "JPEG" else "PNG"
