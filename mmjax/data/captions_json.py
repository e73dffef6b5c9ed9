"""JSON files of captions: COCO's annotations, Karpathy's splits, JSON lines."""

import functools
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmjax.core.errors import InputError
from mmjax.data.records import Row, locate_image
from mmjax.data.shards import Source, SourceOptions, Table, select_splits, table_source
from mmjax.data.tables import CAPTION_COLUMNS, IMAGE_COLUMNS, find_column, unknown_columns

_IMAGE_FOLDERS = (
    "", "images", "train2017", "val2017", "train2014", "val2014", "Images",
    "flickr30k-images", "flickr30k_images", "Flickr8k_Dataset", "Flicker8k_Dataset",
)  # fmt: skip
_TRIED_NAMES = 300


def read_json(path: Path) -> Any:
    """Parses a whole JSON file.

    Raises:
        InputError: it cannot be read or is no JSON.
    """
    try:
        return json.loads(path.read_bytes().decode("utf-8-sig", errors="replace"))
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is no valid JSON ({error})") from error


def json_kind(path: Path) -> str:
    """Tells "coco" from "karpathy" by a JSON file's content, "" for another file."""
    if path.suffix.lower() != ".json" or not path.is_file():
        return ""
    return _kind_of(path, path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=1)
def _kind_of(path: Path, mtime_ns: int) -> str:
    del mtime_ns
    value = read_json(path)
    images = value.get("images") if isinstance(value, dict) else None
    if not isinstance(images, list):
        return ""
    if "annotations" in value:
        return "coco"
    return "karpathy" if images and "sentences" in _mapping(images[0]) else ""


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: object, what: str, path: Path) -> list[Any]:
    if not isinstance(value, list):
        raise InputError(f"{path} has no list {what!r}; it is no such annotation file")
    return value


def image_root(path: Path, names: Sequence[str], options: SourceOptions) -> Path:
    """The folder that an annotation file's image names are relative to.

    Without `options.image_root` the usual folders beside the file and beside its parent are tried,
    and the one that holds most of 300 evenly spread names is taken.

    Raises:
        InputError: none of them holds any of the images.
    """
    if options.image_root:
        return Path(options.image_root)
    tried = [base / name for base in (path.parent, path.parent.parent) for name in _IMAGE_FOLDERS]
    sample = [n for n in names[:: max(1, len(names) // _TRIED_NAMES)] if n]
    hits = [sum((root / name).is_file() for name in sample) for root in tried]
    if not names or not max(hits):
        shown = ", ".join(str(root) for root in tried[:4])
        raise InputError(
            f"none of the images of {path} is found (the first is "
            f"{names[0] if names else 'absent'}; tried {shown} ...); "
            "name their folder with --image_root"
        )
    return tried[hits.index(max(hits))]


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def open_coco(location: str, options: SourceOptions) -> Source:
    """COCO captions (`images`, `annotations`): one row a caption, key "IMAGE_ID#ANNOTATION_ID".

    Images without an annotation and annotations without an image are rows too.

    Raises:
        InputError: no COCO JSON, none of its images found, or a split asked for.
    """
    path = Path(location)
    select_splits(options.split, {}, location)
    value = _mapping(read_json(path))
    images = [_mapping(image) for image in _list(value.get("images"), "images", path)]
    annotations = _list(value.get("annotations"), "annotations", path)
    names = {str(image.get("id")): str(image.get("file_name") or "") for image in images}
    root = image_root(path, list(names.values()), options)
    rows: list[Row] = []
    captioned: set[str] = set()
    for annotation in map(_mapping, annotations):
        identity = str(annotation.get("image_id"))
        captioned.add(identity)
        found = locate_image(root, names.get(identity, ""), allow_absolute=False)
        if identity not in names:
            found = Row("", None, None, "missing_image", f"no image has the id {identity}")
        key = f"{identity}#{annotation.get('id')}"
        rows.append(found._replace(key=key, caption=_text(annotation.get("caption"))))
    rows.extend(
        locate_image(root, name, allow_absolute=False)._replace(key=identity)
        for identity, name in names.items()
        if identity not in captioned
    )
    return table_source("coco", location, Table(len(rows), rows.__getitem__), options)


def open_karpathy(location: str, options: SourceOptions) -> Source:
    """Karpathy's JSON (`images` with `sentences`): one row a caption, key "IMAGE_ID#SENTENCE_ID".

    The split `restval` counts as `train`, as every captioning paper since takes it.

    Raises:
        InputError: no such JSON, no such split, none of its images found.
    """
    path = Path(location)
    images = _list(_mapping(read_json(path)).get("images"), "images", path)
    known: Counter[str] = Counter()
    for image in map(_mapping, images):
        known[_split(image)] += max(1, len(_sentences(image)))
    wanted = select_splits(options.split, known, location)
    chosen = [i for i in map(_mapping, images) if not wanted or _split(i) in wanted]
    root = image_root(path, [_image_name(image) for image in chosen], options)
    rows: list[Row] = []
    for image in chosen:
        identity = image.get("cocoid", image.get("imgid", image.get("filename")))
        found = locate_image(root, _image_name(image), allow_absolute=False)
        sentences = _sentences(image)
        rows.extend(
            found._replace(
                key=f"{identity}#{sentence.get('sentid', number)}",
                caption=_text(sentence.get("raw")),
            )
            for number, sentence in enumerate(sentences)
        )
        if not sentences:
            rows.append(found._replace(key=str(identity)))
    return table_source("karpathy", location, Table(len(rows), rows.__getitem__), options)


def _split(image: Mapping[str, Any]) -> str:
    split = str(image.get("split", ""))
    return "train" if split == "restval" else split


def _sentences(image: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    sentences = image.get("sentences")
    return [_mapping(s) for s in sentences] if isinstance(sentences, list) else []


def _image_name(image: Mapping[str, Any]) -> str:
    name = str(image.get("filename") or "")
    return f"{image['filepath']}/{name}" if isinstance(image.get("filepath"), str) else name


def jsonl_table(path: Path, options: SourceOptions) -> Table:
    """The rows of a JSON-lines file; a list of captions gives one row a caption.

    Names that leave the folder are `unsafe_member` rows, lines that are no JSON objects bad rows.

    Raises:
        InputError: the file cannot be read, or its first object lacks the columns asked for.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror})") from error
    root = Path(options.image_root) if options.image_root else path.parent
    lines = data.removeprefix(b"\xef\xbb\xbf").splitlines()
    if options.image_column or options.caption_column:
        _check_columns(path, lines, options)
    rows = [
        row
        for number, line in enumerate(lines)
        if line.strip()
        for row in _line_rows(path, number, line, root, options)
    ]
    return Table(len(rows), rows.__getitem__)


def _check_columns(path: Path, lines: Sequence[bytes], options: SourceOptions) -> None:
    first = next((line for line in lines if line.strip()), b"{}")
    try:
        names = list(_mapping(json.loads(first.decode("utf-8", errors="replace"))))
    except (ValueError, RecursionError):
        return  # a bad line is a row
    image = find_column(names, options.image_column, IMAGE_COLUMNS)
    caption = find_column(names, options.caption_column, CAPTION_COLUMNS)
    if image is None or caption is None:
        raise unknown_columns(str(path), names)


def _line_rows(
    path: Path, number: int, line: bytes, root: Path, options: SourceOptions
) -> Iterator[Row]:
    try:
        value = json.loads(line.decode("utf-8", errors="replace"))
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        message = f"line {number + 1} of {path.name} is no JSON object"
        yield Row(f"line#{number}", None, None, "missing_image", message)
        return
    image = find_column(list(value), options.image_column, IMAGE_COLUMNS)
    caption = find_column(list(value), options.caption_column, CAPTION_COLUMNS)
    name = value.get(image) if image else None
    found = locate_image(root, name if isinstance(name, str) else "", allow_absolute=False)
    captions = value.get(caption) if caption else None
    captions = captions if isinstance(captions, list) and captions else [captions]
    for position, text in enumerate(captions):
        suffix = f"#{position}" if len(captions) > 1 else ""
        key = f"{name if isinstance(name, str) else 'line'}#{number}{suffix}"
        yield found._replace(key=key, caption=_text(text))
