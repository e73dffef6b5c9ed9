"""Sets of images with a class each: folders of classes, labels.tsv, tars with `.cls` members."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from mmjax.attacks.templates import prompts_file
from mmjax.core.errors import ConfigError, InputError
from mmjax.data.records import Row, locate_image
from mmjax.data.shards import Source, SourceOptions, Table, table_source
from mmjax.data.sources import open_source
from mmjax.data.webdataset import tar_files

_NAMES_FILE = "classnames.txt"
_SUFFIXES = tuple(f".{kind}" for kind in SourceOptions().image_key.split(";"))


class LabelledSet(NamedTuple):
    """Images of classes; the caption of a row of `source` is the number of its class."""

    source: Source
    classes: tuple[str, ...]


def open_labelled(location: str, classes: str = "") -> LabelledSet:
    """Open a labelled set.

    A folder with `labels.tsv` (file TAB class, a number or a name, more columns are ignored; files
    lie in `images/` or beside it); a folder with a subfolder a class; or WebDataset tars whose
    `.cls` members hold numbers, as CLIP_benchmark's do.

    Classes go by their names, `_` read as a space, or by their numbers; where none of the set's is
    among the names, and there are as many, by their order.

    Args:
        location: of the set.
        classes: a file of names (`read_names`) that gives the numbers their meaning. Empty: the
            set's `classnames.txt`, else the names of the subfolders or in labels.tsv, sorted. A set
            may lack some of the classes.

    Raises:
        InputError: the set is of none of these kinds, or empty.
        ConfigError: the names do not fit it.
    """
    folder = Path(location)
    if not classes and (folder / _NAMES_FILE).is_file():
        classes = str(folder / _NAMES_FILE)
    names = read_names(classes) if classes else ()
    if not folder.exists():
        return _of_tars(location, names)  # a pattern of shards, or an error that says so
    if (folder / "labels.tsv").is_file():
        return _of_rows(location, _listed(folder), names)
    if tar_files(location):
        return _of_tars(location, names)
    return _of_rows(location, _in_folders(folder), names)


def read_names(path: str) -> tuple[str, ...]:
    """Names of classes, in the order of their numbers.

    Args:
        path: a text file with a name a line, a JSON list, or a JSON object with the list under
            `classnames` or `classes`; or `imagenet1k` (`attacks.templates.prompts_file`). A name
            may stand there twice, as in CLIP's list for ImageNet.

    Raises:
        ConfigError: the file cannot be read or holds no such list.
    """
    path = prompts_file(path)
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
        found = [line.strip() for line in text.splitlines() if line.strip()]
        if path.endswith(".json"):
            found = json.loads(text)
            if isinstance(found, dict):
                found = found.get("classnames", found.get("classes"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"the class names in {path} cannot be read: {error}") from error
    if not isinstance(found, list) or not found or not all(isinstance(n, str) for n in found):
        raise ConfigError(f"{path} holds no list of class names; write one a line")
    return tuple(found)


class _Labelled(NamedTuple):
    """An image file and what it is called; numbers and names are told apart later."""

    row: Row
    label: str


def _of_tars(location: str, names: tuple[str, ...]) -> LabelledSet:
    options = SourceOptions(text_key="cls")
    source = open_source(location, input_format="webdataset", options=options)
    if not names:
        raise ConfigError(
            f"the .cls members of {location} are numbers; name the classes with --classes=FILE"
        )
    return LabelledSet(source, names)


def _listed(folder: Path) -> list[_Labelled]:
    """The rows of labels.tsv; a first line whose file does not exist is a heading."""
    root = folder / "images" if (folder / "images").is_dir() else folder
    try:
        lines = (folder / "labels.tsv").read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{folder / 'labels.tsv'} cannot be read: {error}") from error
    rows = [line.split("\t") for line in lines if line.strip()]
    if bad := [row for row in rows if len(row) < 2]:
        raise InputError(f"{folder / 'labels.tsv'} wants file TAB class, got {bad[0][0]!r}")
    if rows and not (root / rows[0][0]).is_file():
        del rows[0]
    return [
        _Labelled(locate_image(root, name, allow_absolute=False)._replace(key=name), _spaced(label))
        for name, label, *_ in rows
    ]


def _in_folders(folder: Path) -> list[_Labelled]:
    found = []
    for part in sorted(p for p in folder.iterdir() if p.is_dir()):
        label = _spaced(part.name)
        for file in sorted(part.rglob("*")):
            if file.suffix.lower() in _SUFFIXES:
                row = Row(str(file.relative_to(folder)), None, str(file))
                found.append(_Labelled(row, label))
    if len({one.label for one in found}) == 1 and (folder / "captions.tsv").is_file():
        raise InputError(
            f"{folder} holds captions, not classes; add --task=retrieval, or name a folder with a "
            "subfolder a class"
        )
    if not found:
        raise InputError(
            f"{folder} holds no labelled images; wanted a subfolder a class, labels.tsv, or tars "
            "with .cls members"
        )
    return found


def _of_rows(location: str, found: Sequence[_Labelled], names: tuple[str, ...]) -> LabelledSet:
    labels = sorted({one.label for one in found})
    names, numbers = _numbers(location, labels, names)
    if len(names) < 2:
        raise InputError(
            f"{location} has the class {', '.join(names)!r} alone, and two at least are wanted; "
            "name them with --classes=FILE"
        )
    rows = [one.row._replace(caption=str(numbers[one.label])) for one in found]
    table = Table(len(rows), rows.__getitem__)
    return LabelledSet(table_source("labelled", location, table, SourceOptions()), names)


def _numbers(
    location: str, labels: Sequence[str], names: tuple[str, ...]
) -> tuple[tuple[str, ...], dict[str, int]]:
    """The classes, and the number of every label: by name, by number, or in sorted order."""
    names = names or tuple(labels)
    known = [_spaced(name) for name in names]
    if set(labels) <= set(known):
        return names, {label: known.index(label) for label in labels}
    if all(re.fullmatch(r"\d+", label) and int(label) < len(names) for label in labels):
        return names, {label: int(label) for label in labels}
    if len(labels) == len(names) and set(labels).isdisjoint(known):
        return names, {label: number for number, label in enumerate(labels)}
    strange = next(label for label in labels if label not in known)
    raise ConfigError(
        f"{location} has {len(labels)} classes and {len(names)} names are given, and none is "
        f"{strange!r}; name the classes as the set does, or give one name a class, none of them "
        "the set's, in the order of the sorted labels"
    )


def _spaced(label: str) -> str:
    return label.strip().replace("_", " ")
