"""Folders of image files with their captions in a table, in metadata files or beside the images."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from mmjax.core.errors import InputError
from mmjax.data.captions_json import jsonl_table
from mmjax.data.parquets import parquet_table
from mmjax.data.records import Row, locate_image
from mmjax.data.shards import Source, SourceOptions, Table, join_tables, select_splits, table_source
from mmjax.data.tables import csv_table

_HEADER_NAMES = frozenset({"image", "file", "file_name", "filename", "filepath"})


def _tsv_lines(path: Path) -> Iterator[list[bytes]]:
    """Fields of each line of a table without quoting; a first line of column names is skipped."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror})") from error
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        data = data.decode("utf-16", errors="replace").encode()
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n")):
        fields = line.rstrip(b"\r").split(b"\t", 1)
        name = fields[0].decode("utf-8", errors="replace").strip().lower()
        if line.strip() and not (number == 0 and name in _HEADER_NAMES):
            yield fields


def _name(value: bytes) -> str:
    """A file's name as the file system spells it, UTF-8 or not."""
    return value.decode("utf-8", errors="surrogateescape").strip()


def _splits(folder: Path, split: str) -> tuple[dict[str, str], frozenset[str]]:
    """Reads `splits.tsv` (file, split); returns it and the splits wanted."""
    path = folder / "splits.tsv"
    if not path.exists():
        return {}, select_splits(split, {}, str(folder))
    table = {
        _name(fields[0]): _name(fields[1].split(b"\t")[0])
        for fields in _tsv_lines(path)
        if len(fields) > 1
    }
    return table, select_splits(split, Counter(table.values()), str(folder))


def open_captions_tsv(location: str, options: SourceOptions) -> Source:
    """A folder with `captions.tsv` (file TAB caption, one line a caption) and maybe `splits.tsv`.

    Images lie in `images/` or in the folder itself. The key is the file's stem, `#` and the
    caption's number among those of its image (as in Flickr8k.token.txt). Nothing is quoted. With
    `split` given, images that `splits.tsv` does not name are left out.

    Raises:
        InputError: the folder has no such file, no pairs or no such split.
    """
    folder = Path(location)
    root = folder / "images" if (folder / "images").is_dir() else folder
    if options.image_root:
        root = Path(options.image_root)
    table, wanted = _splits(folder, options.split)
    rows: list[Row] = []
    seen: Counter[str] = Counter()
    for fields in _tsv_lines(folder / "captions.tsv"):
        name = _name(fields[0])
        if wanted and table.get(name) not in wanted:
            continue
        key = f"{name.rsplit('.', 1)[0]}#{seen[name]}"
        seen[name] += 1
        found = locate_image(root, name, allow_absolute=False)
        rows.append(found._replace(key=key, caption=fields[1] if len(fields) > 1 else None))
    return table_source("captions_tsv", location, Table(len(rows), rows.__getitem__), options)


def metadata_files(folder: Path) -> list[Path]:
    """Hugging Face's `metadata.jsonl|csv|parquet` of a folder, or of its subfolders (splits)."""
    names = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
    found = [folder / name for name in names if (folder / name).is_file()]
    return found or sorted(path for name in names for path in folder.glob(f"*/{name}"))


def open_jsonl(location: str, options: SourceOptions) -> Source:
    """A JSON-lines file, or a Hugging Face ImageFolder (`file_name` and `text` or `caption`).

    `split` names subfolders of an ImageFolder. A `file_name` that leaves its folder is an
    `unsafe_member` row.

    Raises:
        InputError: no metadata, no known columns, no such split, no rows.
    """
    path = Path(location)
    files = [path] if path.is_file() else metadata_files(path)
    if not files:
        raise InputError(f"{location} holds no metadata.jsonl, metadata.csv or metadata.parquet")
    tables = {file: _metadata_table(file, options) for file in files}
    splits: Counter[str] = Counter()
    for file, table in tables.items():
        if file.parent != path and file != path:
            splits[file.parent.name] += table.length
    wanted = select_splits(options.split, splits, location)
    chosen = [t for file, t in tables.items() if not wanted or file.parent.name in wanted]
    return table_source("jsonl", location, join_tables(chosen), options)


def _metadata_table(path: Path, options: SourceOptions) -> Table:
    if path.suffix == ".csv":
        return csv_table(path, options, allow_absolute=False)
    if path.suffix == ".parquet":
        return parquet_table(path, options, allow_absolute=False)
    return jsonl_table(path, options)
