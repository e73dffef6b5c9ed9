"""Precomputed embeddings in clip-retrieval's layout: img_emb/, text_emb/ and metadata/."""

import re
import tokenize
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float
from pyarrow import parquet

from mmjax.core.errors import InputError
from mmjax.core.files import atomic_path
from mmjax.data.columns import is_plain_text, is_trimmed
from mmjax.data.mapped import row_norms
from mmjax.data.parquets import texts
from mmjax.data.records import clean_caption, clean_text
from mmjax.data.shards import Shard, file_fingerprint

_LAYOUT = (("img_emb", "img_emb", "npy"), ("text_emb", "text_emb", "npy"))
_METADATA = ("metadata", "metadata", "parquet")


class EmbeddingShard(NamedTuple):
    """One part of a set of embeddings; the arrays are memory-mapped and not normalised.

    `statuses` are keys of `core.types.STATUSES`, "ok" where the row can be scored; `norm_error` is
    the largest | |x| - 1 | of those rows.
    """

    name: str
    image: Float[np.ndarray, "n d"]
    text: Float[np.ndarray, "n d"]
    keys: tuple[str, ...]
    captions: tuple[str | None, ...]
    image_paths: tuple[str, ...]
    statuses: tuple[str, ...]
    messages: tuple[str, ...]
    flags: tuple[tuple[str, ...], ...]
    norm_error: float

    @property
    def valid(self) -> Bool[np.ndarray, " n"]:
        """Which rows can be scored."""
        return np.array([status == "ok" for status in self.statuses], dtype=bool)


class EmbeddingSource(NamedTuple):
    """A folder of embeddings: like `Source`, with `EmbeddingShard`s for views.

    `map_shard` gives the memory-mapped images and captions of a shard, unchecked.
    """

    kind: str
    location: str
    shards: tuple[Shard, ...]
    open_shard: Callable[[Shard], EmbeddingShard]
    map_shard: Callable[[Shard], tuple[np.ndarray, np.ndarray]]
    fingerprint: Callable[[Shard], str]
    sizes: Mapping[str, int]
    dimension: int


def is_embeddings(path: Path) -> bool:
    """Whether a folder has clip-retrieval's layout."""
    return (path / "img_emb").is_dir() and (path / "text_emb").is_dir()


def _parts(folder: Path, subfolder: str, stem: str, suffix: str) -> dict[int, Path]:
    """Part number to file."""
    pattern = re.compile(rf"{stem}_(\d+)\.{suffix}")
    files = {p.name: p for p in (folder / subfolder).glob(f"{stem}_*.{suffix}")}
    return {int(m[1]): path for name, path in files.items() if (m := pattern.fullmatch(name))}


def _load(path: Path) -> np.ndarray:
    """Maps a 2-D array of floats; never unpickles.

    Raises:
        InputError: it is damaged, of another shape or type, or holds Python objects.
    """
    try:
        # a shape whose product overflows is an error, not a warning and a smaller map
        with warnings.catch_warnings(), np.errstate(over="raise"):
            warnings.simplefilter("ignore", UserWarning)  # written by Python 2: read all the same
            array = np.lib.format.open_memmap(path, mode="r")
    # NumPy reads a header with Python's own tokenizer, whose errors come through
    except (
        *(OSError, ValueError, EOFError, SyntaxError, tokenize.TokenError),
        *(ArithmeticError, TypeError),
    ) as error:
        raise InputError(
            f"{path} is no readable array of numbers ({str(error)[:200]}); write it again with "
            "numpy.save(..., allow_pickle=False)"
        ) from error
    if array.ndim != 2 or array.dtype.kind != "f":
        raise InputError(
            f"{path} has shape {array.shape} and type {array.dtype}; rows of floats, one row a "
            "pair, are wanted"
        )
    return array


def _metadata(path: Path) -> pa.Table:
    try:
        table = parquet.read_table(path)
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise InputError(f"{path} is no readable Parquet file ({str(error)[:200]})") from error
    if "caption" not in table.column_names:
        raise InputError(
            f"{path} has columns {', '.join(table.column_names)}; caption (and image_path) are "
            "wanted"
        )
    return table


def _check_part(number: int, files: Sequence[Path], dimension: int | None) -> tuple[int, int]:
    """Compares the row counts and widths of a part's three files; returns (rows, width)."""
    image, text = _load(files[0]), _load(files[1])
    try:
        rows = parquet.read_metadata(files[2]).num_rows
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise InputError(f"{files[2]} is no readable Parquet file ({str(error)[:200]})") from error
    if not len(image) == len(text) == rows:
        raise InputError(
            f"part {number}: {files[0]} has {len(image)} rows, {files[1]} {len(text)} and "
            f"{files[2]} {rows}; they must agree, so compute the embeddings again"
        )
    if image.shape[1] != text.shape[1] or dimension not in (None, image.shape[1]):
        raise InputError(
            f"part {number}: {files[0]} has {image.shape[1]} columns and {files[1]} {text.shape[1]}"
            + (f", the parts before it {dimension}" if dimension else "")
            + "; they must come from one model"
        )
    return rows, image.shape[1]


def open_embeddings(folder: str | Path) -> EmbeddingSource:
    """Opens `img_emb/img_emb_N.npy`, `text_emb/text_emb_N.npy`, `metadata/metadata_N.parquet`.

    Parts come in numeric order. The key of a row is its `key`, else its `image_path`, else its
    number. Rows that are not unit-norm are left to the consumer.

    Raises:
        InputError: files are missing, damaged or disagree (with their figures).
    """
    folder = Path(folder)
    found = [_parts(folder, *names) for names in (*_LAYOUT, _METADATA)]
    numbers = sorted(found[0].keys() | found[1].keys() | found[2].keys())
    if not numbers:
        raise InputError(
            f"{folder} holds no embeddings; img_emb/img_emb_0.npy, text_emb/text_emb_0.npy and "
            "metadata/metadata_0.parquet (clip-retrieval inference) are wanted"
        )
    files: dict[str, list[Path]] = {}
    shards: list[Shard] = []
    dimension: int | None = None
    for number in numbers:
        for parts, (subfolder, stem, suffix) in zip(found, (*_LAYOUT, _METADATA), strict=True):
            if number not in parts:
                raise InputError(f"{folder}/{subfolder}/{stem}_{number}.{suffix} is missing")
        name = f"{number:05d}"
        files[name] = [parts[number] for parts in found]
        rows, dimension = _check_part(number, files[name], dimension)
        shards.append(Shard(name, str(files[name][0]), 0, rows))
    if not any(shard.stop for shard in shards):
        raise InputError(f"{folder} holds no rows")
    return EmbeddingSource(
        "embeddings",
        str(folder),
        tuple(shards),
        lambda shard: _open_part(shard.name, files[shard.name]),
        lambda shard: (_load(files[shard.name][0]), _load(files[shard.name][1])),
        lambda shard: "+".join(file_fingerprint(path) for path in files[shard.name]),
        {shard.name: shard.stop or 0 for shard in shards},
        dimension or 0,
    )


def _open_part(name: str, files: Sequence[Path]) -> EmbeddingShard:
    image, text, table = _load(files[0]), _load(files[1]), _metadata(files[2])
    rows = len(image)
    if not len(text) == table.num_rows == rows:
        raise InputError(f"{files[0]} changed while it was read; start again")

    paths = ["" if path is None else path for path in _names(table, "image_path")]
    keys = [
        key if key is not None else path or f"{name}#{row}"
        for row, (key, path) in enumerate(zip(_names(table, "key"), paths, strict=True))
    ]
    captions, flags = _captions(table.column("caption"))
    norms = {"image": row_norms(image), "caption": row_norms(text)}
    bad = {which: ~(found > 0) for which, found in norms.items()}  # NaN is not larger
    missing = np.array([caption is None for caption in captions], bool)
    statuses, messages = ["ok"] * rows, [""] * rows
    for row in np.flatnonzero(missing):
        statuses[row], messages[row] = "missing_caption", "no caption, or an empty one"
    for row in np.flatnonzero(bad["image"] | bad["caption"]):
        which = " and ".join(what for what, found in bad.items() if found[row])
        statuses[row] = "nonfinite_embedding"
        messages[row] = f"the embedding of the {which} holds NaN, infinity or only zeros"
    usable = ~(missing | bad["image"] | bad["caption"])
    errors = [np.abs(found[usable] - 1).max(initial=0) for found in norms.values()]
    return EmbeddingShard(
        name,
        image,
        text,
        tuple(keys),
        captions,
        tuple(paths),
        tuple(statuses),
        tuple(messages),
        flags,
        float(max(errors)),
    )


def _names(table: pa.Table, wanted: str) -> list[str | None]:
    """A column as text that can be stored; all None where there is no such column."""
    if wanted not in table.column_names:
        return [None] * table.num_rows
    column = table.column(wanted)
    if is_plain_text(column):
        return column.to_pylist()
    return [None if value is None else clean_text(str(value)) for value in texts(column)]


def _captions(
    column: pa.ChunkedArray,
) -> tuple[tuple[str | None, ...], tuple[tuple[str, ...], ...]]:
    """Captions as they are stored, and their flags."""
    if is_plain_text(column) and is_trimmed(column):
        return tuple(value or None for value in column.to_pylist()), ((),) * len(column)
    values = (value if isinstance(value, str | bytes) else None for value in texts(column))
    cleaned = [clean_caption(value) for value in values]
    captions, flags = zip(*cleaned, strict=True) if cleaned else ((), ())
    return captions, flags


def write_embeddings(
    folder: str | Path,
    image: Float[np.ndarray, "n d"],
    text: Float[np.ndarray, "n d"],
    *,
    captions: Sequence[str | None],
    image_paths: Sequence[str],
    rows_per_part: int = 100_000,
    first_part: int = 0,
) -> list[Path]:
    """Writes clip-retrieval's layout from arrays, parts from `first_part` on; returns the files.

    Raises:
        InputError: the numbers of rows differ.
    """
    counts = {len(image), len(text), len(captions), len(image_paths)}
    if len(counts) != 1:
        raise InputError(
            f"{len(image)} image rows, {len(text)} text rows, {len(captions)} captions and "
            f"{len(image_paths)} paths; they must agree"
        )
    folder = Path(folder)
    written: list[Path] = []
    for number, start in enumerate(range(0, max(1, len(image)), rows_per_part), first_part):
        span = slice(start, start + rows_per_part)
        for (subfolder, stem, suffix), array in zip(_LAYOUT, (image, text), strict=True):
            path = folder / subfolder / f"{stem}_{number}.{suffix}"
            with atomic_path(path) as temporary, open(temporary, "wb") as file:
                np.save(file, np.ascontiguousarray(array[span]), allow_pickle=False)
            written.append(path)
        path = folder / "metadata" / f"metadata_{number}.parquet"
        columns = {"image_path": list(image_paths[span]), "caption": list(captions[span])}
        schema = pa.schema([("image_path", pa.string()), ("caption", pa.string())])
        with atomic_path(path) as temporary:
            parquet.write_table(pa.table(columns, schema=schema), temporary)
        written.append(path)
    return written
