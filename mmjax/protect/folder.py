"""A folder of photos: which files are photos, what they are called afterwards, their captions."""

import csv
import os
import re
from collections import Counter
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path, PurePosixPath

from mmjax.core.errors import InputError
from mmjax.data.image_formats import recognise
from mmjax.data.records import clean_text
from mmjax.protect.photos import SUFFIXES, Format

_PICTURES = frozenset(
    (
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp"),
        *(".tif", ".tiff", ".heic", ".heif", ".avif", ".jxl", ".jp2"),
    )
)
"""Files of these names are photos, readable or not; others are if their first bytes say so."""
_CAPTION_FILES = ("captions.csv", "captions.tsv")
_FILE_COLUMNS = ("file", "file_name", "filename", "image", "filepath")
_CAPTION_COLUMNS = ("caption", "text", "title", "description")


def refuse_overlap(folder: Path, out: Path) -> None:
    """Raise InputError unless neither folder lies in the other: originals are never written to."""
    source, target = folder.resolve(), out.resolve()
    if source == target or source in target.parents or target in source.parents:
        raise InputError(
            f"--out={out} and the photos in {folder} lie in one another; choose a folder apart, so "
            "that no original is ever overwritten"
        )


def find_photos(folder: Path) -> tuple[list[str], int]:
    """The photos in a folder and its subfolders, by their sorted relative names.

    Returns:
        The names, with `/` between folders, and how many other files there are. Hidden files and
        folders are passed over.

    Raises:
        InputError: no such folder, or no photo in it.
    """
    if not folder.is_dir():
        raise InputError(
            f"{folder} is no folder; name one that holds photos, or a "
            "set of pairs and --config=protect/NAME"
        )
    photos, others = [], 0
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in files:
            path = Path(place, name)
            if name.startswith(".") or not path.is_file():
                continue
            if path.suffix.lower() in _PICTURES or _looks_like_one(path):
                photos.append(path.relative_to(folder).as_posix())
            else:
                others += 1
    if not photos:
        raise InputError(f"{folder} holds no photos ({others} other files)")
    return sorted(photos), others


def _looks_like_one(path: Path) -> bool:
    try:
        with open(path, "rb") as file:
            return recognise(file.read(512)).is_read
    except OSError:
        return False


def taken_names(photos: Sequence[str]) -> set[str]:
    """What no changed name may be: a photo's own name, or one that several would be changed to."""
    stems = Counter(PurePosixPath(name).with_suffix("").as_posix() for name in photos)
    shared = [stem for stem, count in stems.items() if count > 1]
    return {*photos, *(stem + suffixes[0] for stem in shared for suffixes in SUFFIXES.values())}


def output_name(name: str, written: Format, taken: AbstractSet[str]) -> str:
    """The name of the protected file: the photo's own where it fits the format.

    Args:
        name: of the photo, relative.
        written: the format of the protected file.
        taken: see `taken_names`; a changed name that is among them keeps the old suffix too.
    """
    path = PurePosixPath(name)
    if path.suffix.lower() in SUFFIXES[written]:
        return name
    suffix = SUFFIXES[written][0]
    renamed = path.with_suffix(suffix).as_posix()
    if renamed in taken:
        renamed = f"{name}{suffix}"
    while renamed in taken:
        renamed += suffix
    return renamed


def read_captions(folder: Path, file: str, photos: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The captions that were given to photos, by the photos' names.

    From `file`, or from captions.csv or captions.tsv in the folder: a table with a column of file
    names and one of captions, or two columns without a header; a photo may have several. Else, and
    for photos that the table leaves out, from a .txt file beside the photo.

    Raises:
        InputError: `file` cannot be read or is no such table.
    """
    beside = [folder / name for name in _CAPTION_FILES]
    path = Path(file) if file else next((p for p in beside if p.is_file()), None)
    found: dict[str, list[str]] = {}
    if path is not None:
        known = set(photos)
        for name, caption in _table(path):
            if name in known and caption.strip():
                found.setdefault(name, []).append(" ".join(clean_text(caption).split()))
        if file and not found:
            raise InputError(f"{path} names none of the {len(photos)} photos in {folder}")
    for name in photos:
        text = (folder / name).with_suffix(".txt")
        if name not in found and text.is_file():
            caption = clean_text(text.read_text(encoding="utf-8-sig", errors="replace"))
            if caption.strip():
                found[name] = [" ".join(caption.split())]
    return {name: tuple(captions) for name, captions in found.items()}


def _table(path: Path) -> list[tuple[str, str]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} cannot be read as UTF-8 text ({error})") from error
    head = text.split("\n", 1)[0]
    rows = list(csv.reader(text.splitlines(), delimiter="\t" if "\t" in head else ","))
    if not rows:
        return []
    header = [name.strip().lower() for name in rows[0]]
    file = next((header.index(name) for name in _FILE_COLUMNS if name in header), None)
    caption = next((header.index(name) for name in _CAPTION_COLUMNS if name in header), None)
    if file is None or caption is None:
        file, caption = 0, 1
    else:
        rows = rows[1:]
    wide = max(file, caption)
    return [(row[file].strip(), row[caption]) for row in rows if len(row) > wide]


def caption_from(name: str) -> str:
    """A caption made of a file's name: its words, numbers left out; `photo` where there are none.

    `2024-07_Anna at the_lake (3).jpg` gives `Anna at the lake`.
    """
    words = re.findall(r"[^\W\d_]{2,}", PurePosixPath(name).stem)
    telling = [word for word in words if word.lower() not in _CAMERA]
    return " ".join(telling) or "photo"


_CAMERA = frozenset(("img", "dsc", "dscf", "dscn", "pxl", "vid", "mvimg", "wa", "imag", "pict"))
"""What cameras and phones begin file names with."""
