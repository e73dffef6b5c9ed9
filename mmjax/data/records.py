"""Rows and their parts: clean captions, safely read image files, pairs with a settled status."""

import os
import re
import stat
from pathlib import Path
from typing import NamedTuple

from mmjax.core.types import Pair

_UNSAFE_TEXT = re.compile("[\x00\ud800-\udfff]")
_SCHEME = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]+:")


class Row(NamedTuple):
    """A row of a table-like source before its image is read; `image` is bytes or a path."""

    key: str
    caption: bytes | str | None
    image: bytes | str | None
    status: str = "ok"
    message: str = ""


def clean_text(text: str) -> str:
    """Replaces NUL and lone surrogates, which neither Parquet nor HTML can hold, by U+FFFD."""
    return _UNSAFE_TEXT.sub("�", text)


def _decode(data: bytes) -> tuple[str, bool]:
    """Returns the text and whether it was plain UTF-8 (with or without its byte order mark)."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", errors="replace"), False
    zeros = data.count(0)
    if zeros and 0.4 * len(data) <= zeros <= 0.6 * len(data):  # UTF-16 without its mark
        order = "le" if data[1::2].count(0) > data[::2].count(0) else "be"
        return data.decode(f"utf-16-{order}", errors="replace"), False
    try:
        return data.decode("utf-8-sig"), True
    except UnicodeDecodeError:
        return data.decode("utf-8-sig", errors="replace"), False


def clean_caption(value: bytes | str | None) -> tuple[str | None, tuple[str, ...]]:
    """Returns the caption as storable text, None where it is absent or blank, and its flags."""
    if value is None:
        return None, ()
    text, plain = (value, True) if isinstance(value, str) else _decode(value)
    cleaned = clean_text(text.removeprefix("\ufeff")).strip()
    plain = plain and _UNSAFE_TEXT.search(text) is None
    return cleaned or None, () if plain or not cleaned else ("caption_encoding",)


def is_remote(location: str) -> bool:
    """Whether a location names a pipe, a URL or a bucket instead of a local path."""
    return bool(_SCHEME.match(location)) and not os.path.lexists(location)


def locate_image(root: Path, name: str, *, allow_absolute: bool) -> Row:
    """Resolves an image name of a table to a `Row` that has only its path or its refusal."""
    if not name.strip():
        return Row("", None, None, "missing_image", "the image's name is empty")
    if re.match(r"^[A-Za-z][A-Za-z0-9+.-]+://|^pipe:", name):
        return Row(
            "", None, None, "missing_image", f"{name[:200]} is not a local file; not fetched"
        )
    if os.path.isabs(name):
        if not allow_absolute:
            return Row("", None, None, "unsafe_member", f"{name[:200]} is an absolute path")
    elif ".." in re.split(r"[/\\]", name):
        return Row("", None, None, "unsafe_member", f"{name[:200]} may leave the data folder")
    return Row("", None, str(root / name))


def read_plain_file(path: str, limit: int) -> tuple[bytes | None, str, str]:
    """Reads a regular file of at most `limit` bytes; returns (bytes or None, status, message)."""
    try:
        found = os.stat(path)
        if not stat.S_ISREG(found.st_mode):  # opening a pipe would wait for its writer
            return None, "missing_image", f"{path} is not a plain file"
        if found.st_size > limit:
            message = f"{path} has {found.st_size} bytes, --max_member_bytes is {limit}"
            return None, "oversized_member", message
        with open(path, "rb") as file:
            return file.read(limit), "ok", ""
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        reason = error.strerror if isinstance(error, OSError) else "no valid file name"
        return None, "missing_image", f"{path}: {reason}"


def make_pair(row: Row, limit: int) -> Pair:
    """Reads a row's image and settles its status."""
    caption, flags = clean_caption(row.caption)
    key = clean_text(row.key)
    if row.status != "ok":
        return Pair(key, None, caption, row.status, clean_text(row.message), flags)
    image, status, message = row.image, "ok", ""
    if isinstance(image, str):
        image, status, message = read_plain_file(image, limit)
    elif not image:
        image, status, message = None, "missing_image", "the row holds no image"
    elif len(image) > limit:
        message = f"the image has {len(image)} bytes, --max_member_bytes is {limit}"
        image, status = None, "oversized_member"
    if status == "ok" and caption is None:
        status, message = "missing_caption", "no caption, or an empty one"
    return Pair(key, image, caption, status, clean_text(message), flags)
