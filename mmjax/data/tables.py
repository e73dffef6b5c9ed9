"""Tables of pairs: CSV and TSV files of image paths and captions, Parquet files."""

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
from pyarrow import compute, csv

from mmjax.core.errors import InputError
from mmjax.data.records import Row, is_remote, locate_image
from mmjax.data.shards import Source, SourceOptions, Table, select_splits, table_source

IMAGE_COLUMNS = (
    "filepath", "file_name", "filename", "image_path", "image", "file", "img", "path", "jpg", "png"
)  # fmt: skip
CAPTION_COLUMNS = ("title", "caption", "text", "sentence", "captions", "description", "txt")
URL_COLUMNS = ("url", "image_url", "URL")
_COLUMNS = tuple(f"f{number}" for number in range(1000))  # the names that pyarrow makes up
_BLOCK_BYTES = 16 * 2**20


def find_column(names: Sequence[str], wanted: str, common: Sequence[str]) -> str | None:
    """The column to read: the one asked for, else the first common name, whatever its case."""
    if wanted:
        return wanted if wanted in names else None
    lowered = {name.strip().lower(): name for name in reversed(names)}
    return next((lowered[name] for name in common if name in lowered), None)


def refuse_urls(location: str, input_format: str, columns: str) -> InputError:
    """The error for a table of links, with the command that downloads them."""
    quoted = shlex.quote(location)
    return InputError(
        f"{location} lists image URLs, not images; mmjax fetches nothing. Download them first: "
        f"img2dataset --url_list={quoted} --input_format={input_format} {columns} "
        "--output_format=webdataset --output_folder=shards"
    )


def _read_csv(path: Path, separator: str) -> tuple[list[str], pa.Table, list[str]]:
    """Reads all columns as bytes; returns the names, the table and the malformed lines."""
    data = path.read_bytes()
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        data = data.decode("utf-16", errors="replace").encode()
    header = data.removeprefix(b"\xef\xbb\xbf").split(b"\n", 1)[0]
    delimiter = separator or ("\t" if b"\t" in header else ",")
    table, malformed = _parse_csv(data, delimiter, quoted=True)
    if delimiter == "\t" and _swallowed(table):
        table, malformed = _parse_csv(data, delimiter, quoted=False)
    names = [
        column[0].as_py().decode("utf-8", errors="replace").strip() for column in table.columns
    ]
    return names, table.slice(1), malformed


def _parse_csv(data: bytes, delimiter: str, *, quoted: bool) -> tuple[pa.Table, list[str]]:
    malformed: list[str] = []
    utf8 = _is_utf8(data)
    if not utf8:  # pyarrow tells of malformed lines only in UTF-8
        data = data.removeprefix(b"\xef\xbb\xbf").decode("latin-1").encode()

    def keep(row: csv.InvalidRow) -> str:
        malformed.append(
            f"a line has {row.actual_columns} columns instead of {row.expected_columns}: "
            f"{row.text[:100]}"
        )
        return "skip"

    table = csv.read_csv(
        pa.BufferReader(data),
        read_options=csv.ReadOptions(
            use_threads=False, block_size=_BLOCK_BYTES, autogenerate_column_names=True
        ),
        parse_options=csv.ParseOptions(
            delimiter=delimiter,
            quote_char='"' if quoted else False,
            newlines_in_values=quoted,
            invalid_row_handler=keep,
        ),
        convert_options=csv.ConvertOptions(
            check_utf8=False, column_types=dict.fromkeys(_COLUMNS, pa.large_binary())
        ),
    )
    return table if utf8 else _undone(table), malformed


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _undone(table: pa.Table) -> pa.Table:
    """The bytes as they were before they were written as UTF-8, one character a byte."""
    columns = [
        pa.array([cell and cell.decode().encode("latin-1") for cell in column.to_pylist()])
        for column in table.columns
    ]
    cast = [column.cast(pa.large_binary()) for column in columns]
    return pa.table(cast, names=table.column_names)


def _swallowed(table: pa.Table) -> bool:
    """Whether a lone quote swallowed the lines after it: a cell of a TSV holds a line and a TAB."""
    options = compute.MatchSubstringOptions(r"(?s)\n.*\t|\t.*\n")
    return any(
        compute.call_function(
            "any", [compute.call_function("match_substring_regex", [column], options)]
        ).as_py()
        for column in table.columns
    )


def _refuse_links(path: Path, names: Sequence[str], first: Sequence[str]) -> None:
    """Refuses a table whose images are URLs: CC-3M's own, or any other.

    Raises:
        InputError: with the img2dataset command to run first.
    """
    format_name = "tsv" if path.suffix.lower() == ".tsv" else "csv"
    if any(re.match(r"https?://", name) for name in names):  # no header: CC-3M as published
        raise InputError(
            f"{path} looks like CC-3M's own list (caption TAB URL, no header): links, not images, "
            "and mmjax fetches nothing. Download them first: "
            f"sed '1i caption\\turl' {shlex.quote(str(path))} > cc3m.tsv && img2dataset "
            "--url_list=cc3m.tsv --input_format=tsv --url_col=url --caption_col=caption "
            "--output_format=webdataset --output_folder=cc3m"
        )
    links = [n for n, value in zip(names, first, strict=False) if re.match(r"https?://", value)]
    url = find_column(names, "", URL_COLUMNS) or (links[0] if links else None)
    if url is not None:
        caption = find_column(names, "", CAPTION_COLUMNS) or "caption"
        columns = f"--url_col={shlex.quote(url)} --caption_col={shlex.quote(caption)}"
        raise refuse_urls(str(path), format_name, columns)


def csv_table(path: Path, options: SourceOptions, *, allow_absolute: bool) -> Table:
    """The rows of a CSV file; lines with too many or too few columns are rows at its end.

    Raises:
        InputError: no CSV, no known columns, a list of URLs.
    """
    try:
        names, table, malformed = _read_csv(path, options.separator)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror})") from error
    except pa.ArrowInvalid as error:
        raise InputError(f"{path} is no readable CSV or TSV file ({error})") from error
    first = [
        (column[0].as_py() if len(column) else b"").decode("utf-8", errors="replace")
        for column in table.columns
    ]
    image = find_column(names, options.image_column, IMAGE_COLUMNS)
    caption = find_column(names, options.caption_column, CAPTION_COLUMNS)
    if image is None:
        _refuse_links(path, names, first)
    if image is None or caption is None:
        raise unknown_columns(str(path), names)
    images = table.column(names.index(image)).combine_chunks()
    captions = table.column(names.index(caption)).combine_chunks()
    if len(images) and all(
        is_remote(value.as_py().decode("utf-8", errors="replace")) for value in images[:10]
    ):
        _refuse_links(path, names, first)
    root = Path(options.image_root) if options.image_root else path.parent

    def row(number: int) -> Row:
        if number >= len(images):
            message = malformed[number - len(images)]
            return Row(f"line#{number}", None, None, "missing_image", message)
        name = images[number].as_py().decode("utf-8", errors="surrogateescape")
        found = locate_image(root, name, allow_absolute=allow_absolute)
        return found._replace(key=f"{name}#{number}", caption=captions[number].as_py())

    return Table(len(images) + len(malformed), row)


def unknown_columns(location: str, names: Sequence[str]) -> InputError:
    """The error for a table that has no image column or no caption column."""
    return InputError(
        f"{location} has columns {', '.join(names)[:300]}; an image column (one of "
        f"{', '.join(IMAGE_COLUMNS)}) and a caption column ({', '.join(CAPTION_COLUMNS)}) are "
        "wanted; name them with --columns=IMAGE,CAPTION"
    )


def open_csv(location: str, options: SourceOptions) -> Source:
    """A CSV or TSV file with a header (open_clip: TAB, `filepath`, `title`; synonyms are known).

    Relative image paths are relative to the file and may not leave its folder; absolute ones are
    the user's own and allowed. The key is the path, `#` and the number of the row.

    Raises:
        InputError: no CSV, no known columns, a list of URLs, no rows, or a split asked for.
    """
    table = csv_table(Path(location), options, allow_absolute=True)
    select_splits(options.split, {}, location)
    return table_source("csv", location, table, options)
