"""Drops what a JPEG or PNG holds besides its pixels, so that no EXIF, XMP or ICC is ever parsed."""

from typing import Final

_JPEG_START_OF_SCAN: Final = 0xDA
_JPEG_DROPPED: Final = frozenset({*range(0xE1, 0xEE), 0xEF, 0xFE})
"""APP1 to APP13, APP15 and comments. APP0 (JFIF) and APP14 (Adobe) say how colours are coded."""

_PNG_SIGNATURE: Final = 8
_PNG_KEPT: Final = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})


def drop_jpeg_metadata(data: bytes) -> bytes:
    """The same JPEG without metadata segments; from the first surprise on, all as it is."""
    kept, place = [data[:2]], 2
    while place + 4 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker == 0xFF:  # a fill byte
            place += 1
            continue
        end = place + 2 + int.from_bytes(data[place + 2 : place + 4], "big")
        if marker == _JPEG_START_OF_SCAN or marker < 0xC0 or end > len(data):
            break
        if marker not in _JPEG_DROPPED:
            kept.append(data[place:end])
        place = end
    return b"".join([*kept, data[place:]])


def drop_png_metadata(data: bytes) -> bytes:
    """The same PNG, its first frame only, without chunks that pixels do not need."""
    kept, place = [data[:_PNG_SIGNATURE]], _PNG_SIGNATURE
    while place + 12 <= len(data):
        end = place + 12 + int.from_bytes(data[place : place + 4], "big")
        if end > len(data):
            break
        if data[place + 4 : place + 8] in _PNG_KEPT:
            kept.append(data[place:end])
        place = end
    return b"".join([*kept, data[place:]])
