"""Encoded images to square uint8 pixels, with CLIP's geometry, exactly as Pillow resizes.

Only JPEG, PNG, WebP, GIF and BMP are decoded, told apart by their first bytes. The conversion to
RGB is fixed: transparency lies on white, animations give their first frame, 16-bit grey keeps its
high byte, CMYK is converted without a colour profile. EXIF orientation is not applied, as open_clip
does not apply it: a turned photo is seen as CLIP sees it.
"""

import functools
import importlib.util
import io
import struct
import warnings
import zlib
from collections.abc import Callable
from typing import Final, Literal

import numpy as np
from jaxtyping import UInt8
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    WebPImagePlugin,
)

from mmjax.core.errors import ConfigError, ImageError
from mmjax.data.image_formats import READ, recognise
from mmjax.data.image_metadata import drop_jpeg_metadata, drop_png_metadata

# `max_pixels` decides what is too large; a warning on the user's screen says nothing more
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

Library = Literal["auto", "pillow", "simplejpeg"]

MAX_PIXELS: Final = 25_000_000

_OPENERS: Final[dict[str, Callable[[io.BytesIO], ImageFile.ImageFile]]] = {
    "JPEG": JpegImagePlugin.JpegImageFile,
    "PNG": PngImagePlugin.PngImageFile,
    "WebP": WebPImagePlugin.WebPImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
}
"""Pillow's plugins, called directly: `Image.open` would also try MPO, which parses EXIF."""

_STRIPPERS: Final[dict[str, Callable[[bytes], bytes]]] = {
    "JPEG": drop_jpeg_metadata,
    "PNG": drop_png_metadata,
}

_DAMAGE: Final = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    AttributeError,
    OverflowError,
    MemoryError,
    RuntimeError,
    zlib.error,
    struct.error,
)
"""What Pillow's plugins raise on damaged bytes; none of them is a promise of its API."""

_SCAN: Final = b"\xff\xda"
_MOST_SCANS: Final = 100
"""A progressive JPEG has about ten; each costs a pass over all pixels, whatever the file's size."""

_STRIP: Final = 64
"""Above this ratio of the sides only the part that the crop keeps is resized."""


def decode(
    data: bytes, size: int, *, max_pixels: int = MAX_PIXELS, library: Library = "auto"
) -> UInt8[np.ndarray, "size size 3"]:
    """Decodes an image and brings it to `size` x `size` as CLIP does (see `fit_square`).

    Args:
        data: the encoded file.
        size: pixels of a side of the result.
        max_pixels: images with more are refused on sight of their header.
        library: what decodes JPEG; simplejpeg gives the same pixels faster.

    Raises:
        ImageError: with status `truncated_image`, `undecodable_image`, `unsupported_image` or
            `oversized_image`; nothing else, whatever the bytes.
        ConfigError: simplejpeg is asked for and not installed.
    """
    return fit_square(read_rgb(data, max_pixels=max_pixels, library=library), size)


def read_rgb(
    data: bytes, *, max_pixels: int = MAX_PIXELS, library: Library = "auto"
) -> Image.Image:
    """Decodes an image at its full size to RGB; arguments and errors as `decode`."""
    found = recognise(data)
    if not found.is_read:
        raise _refusal(data, found.name)
    if found.name == "JPEG" and _uses_simplejpeg(library):
        fast = _read_simplejpeg(data, max_pixels)
        if fast is not None:
            return fast
    return _read_pillow(data, found.name, max_pixels)


def fit_square(image: Image.Image, size: int) -> UInt8[np.ndarray, "size size 3"]:
    """Resizes the shorter side to `size` (bicubic, antialiased) and crops the centre.

    Bit-exact to torchvision's `Resize(size, BICUBIC)` and `CenterCrop(size)` on a PIL image: the
    longer side is rounded down, the crop's offset to the nearest even. Strips of more than 64:1
    are resized only where they are kept, which may differ by one level.
    """
    width, height = image.size
    short, long = min(width, height), max(width, height)
    fitted = int(size * long / short)
    offset = round((fitted - size) / 2.0)
    if long > _STRIP * short:
        low, high = offset * long / fitted, (offset + size) * long / fitted
        box = (low, 0, high, height) if width > height else (0, low, width, high)
        square = image.resize((size, size), Image.Resampling.BICUBIC, box)
    else:
        wide = (fitted, size) if width > height else (size, fitted)
        x, y = (offset, 0) if width > height else (0, offset)
        if wide != image.size:
            image = image.resize(wide, Image.Resampling.BICUBIC)
        square = image.crop((x, y, x + size, y + size))
    return np.asarray(square)


def _refusal(data: bytes, name: str) -> ImageError:
    if not data:
        return ImageError("undecodable_image", "the file is empty")
    if name == "HTML":
        return ImageError("undecodable_image", "the file is a web page, not an image")
    if name:
        return ImageError(
            "unsupported_image", f"{name} is not read; convert it to {', '.join(READ)}"
        )
    return ImageError("undecodable_image", f"no image begins with the bytes {data[:8].hex(' ')}")


def _check_pixels(width: int, height: int, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise ImageError("undecodable_image", f"the header says {width} x {height} pixels")
    if width * height > max_pixels:
        raise ImageError(
            "oversized_image",
            f"{width} x {height} pixels are more than --max_image_pixels={max_pixels}",
        )


@functools.cache
def have_simplejpeg() -> bool:
    """Whether simplejpeg is installed, which decodes JPEG faster."""
    return importlib.util.find_spec("simplejpeg") is not None


def _uses_simplejpeg(library: Library) -> bool:
    if library == "simplejpeg" and not have_simplejpeg():
        raise ConfigError("simplejpeg is not installed; pip install 'mmjax[fast]' or use pillow")
    return library != "pillow" and have_simplejpeg()


def _read_simplejpeg(data: bytes, max_pixels: int) -> Image.Image | None:
    """The image, or None where Pillow must decide: CMYK, or anything that libjpeg warns of."""
    import simplejpeg

    if data.count(_SCAN) > _MOST_SCANS:  # some may stand in metadata
        return None
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        if colours not in ("YCbCr", "Gray"):
            return None
        _check_pixels(int(width), int(height), max_pixels)
        return Image.fromarray(simplejpeg.decode_jpeg(data))
    except ValueError:
        return None


def _read_pillow(data: bytes, name: str, max_pixels: int) -> Image.Image:
    content = _STRIPPERS[name](data) if name in _STRIPPERS else data
    if name == "JPEG" and content.count(_SCAN) > _MOST_SCANS:
        raise ImageError("undecodable_image", f"a JPEG of more than {_MOST_SCANS} scans")
    try:
        image = _OPENERS[name](io.BytesIO(content))
        _check_pixels(image.width, image.height, max_pixels)
        image.load()
        return _to_rgb(image)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError("oversized_image", f"{name}: {error}") from error
    except _DAMAGE as error:
        cut = "truncated" in str(error).lower() or _ends_early(data, name)
        status = "truncated_image" if cut else "undecodable_image"
        reason = " ".join(str(error).split())[:200]
        raise ImageError(status, f"{name} of {len(data)} bytes: {reason}") from error


def _ends_early(data: bytes, name: str) -> bool:
    """Whether a file that did not decode lacks its end."""
    if name == "WebP":
        return len(data) < 12 or int.from_bytes(data[4:8], "little") + 8 > len(data)
    if name == "PNG":
        return b"IEND" not in data[-64:]
    if name == "GIF":
        return not data.rstrip(b"\x00").endswith(b";")
    return False


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I"):  # 16-bit grey, which Pillow would clip
        high = np.asarray(image).astype(np.uint32) >> 8
        return Image.fromarray(high.astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        clear = image.convert("RGBA")
        white = Image.new("RGBA", clear.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, clear).convert("RGB")
    return image.convert("RGB")
