"""Image formats by their first bytes: those that are read, and those that are only recognised."""

import re
from typing import Final, NamedTuple

READ: Final[tuple[str, ...]] = ("JPEG", "PNG", "WebP", "GIF", "BMP")

_PREFIXES: Final[tuple[tuple[bytes, str], ...]] = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
    (b"II+\x00", "TIFF"),
    (b"MM\x00+", "TIFF"),
    (b"%!PS", "EPS"),
    (b"\xc5\xd0\xd3\xc6", "EPS"),
    (b"%PDF-", "PDF"),
    (b"8BPS", "PSD"),
    (b"\x00\x00\x01\x00", "ICO"),
    (b"\x00\x00\x00\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\x00\x00\x00\x0cJXL \r\n\x87\n", "JPEG XL"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\x76\x2f\x31\x01", "OpenEXR"),
)
_BRANDS: Final[dict[bytes, str]] = {
    b"avif": "AVIF",
    b"avis": "AVIF",
    b"heic": "HEIC",
    b"heix": "HEIC",
    b"hevc": "HEIC",
    b"mif1": "HEIC",
    b"msf1": "HEIC",
}
"""Major brands of ISO media files, which begin with a size and `ftyp`."""

_SVG: Final = re.compile(rb"\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*(<!doctype svg|<svg)", re.I | re.S)
_HTML: Final = re.compile(rb"\s*<(!doctype html|html|head|body|\?xml)", re.I)
_PORTABLE: Final = re.compile(rb"P[1-7]\s")
_HEAD: Final = 512


class Format(NamedTuple):
    """What a file is by its first bytes; "" when they are those of nothing known."""

    name: str

    @property
    def is_read(self) -> bool:
        """Whether `images.decode` reads the format."""
        return self.name in READ


def recognise(data: bytes) -> Format:
    """Names a file's format from its first 512 bytes; never looks at a file name."""
    head = data[:_HEAD]
    for prefix, name in _PREFIXES:
        if head.startswith(prefix):
            return Format(name)
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return Format("WebP")
    if head[4:8] == b"ftyp" and head[8:12] in _BRANDS:
        return Format(_BRANDS[head[8:12]])
    if _PORTABLE.match(head):
        return Format("PNM")
    if _SVG.match(head):
        return Format("SVG")
    return Format("HTML" if _HTML.match(head) else "")
