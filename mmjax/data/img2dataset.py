"""What img2dataset writes: tars with sidecars, folders of files, Parquet with bytes."""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
from pyarrow import parquet

from mmjax.core.errors import InputError
from mmjax.core.types import Pair
from mmjax.data.parquets import failed_downloads, open_parquet, parquet_files, texts
from mmjax.data.records import Row, make_pair, read_plain_file
from mmjax.data.shards import Shard, Source, SourceOptions, rows_fingerprint, select_splits
from mmjax.data.tars import TarView, json_caption, open_tar, split_name
from mmjax.data.webdataset import open_webdataset, tar_files, unique_names


def is_img2dataset(path: Path) -> bool:
    """Whether a folder is img2dataset's output: tars or folders of files, with sidecars."""
    if not path.is_dir():
        return False
    sidecars = [*path.glob("*_stats.json"), *path.glob("*.parquet")]
    stems = {
        sidecar.name.removesuffix("_stats.json").removesuffix(".parquet") for sidecar in sidecars
    }
    return any((path / f"{stem}.tar").is_file() or (path / stem).is_dir() for stem in stems)


def is_folder_of_files(path: Path) -> bool:
    """Whether a folder, or its first subfolder, holds images beside captions of the same names."""
    if not path.is_dir():
        return False
    folders = [path, *sorted(p for p in path.iterdir() if p.is_dir())[:1]]
    return any(_has_pairs(folder) for folder in folders)


def _has_pairs(folder: Path) -> bool:
    texts = [p for _, p in zip(range(5), folder.glob("*.txt"), strict=False)]
    images = SourceOptions().image_key.split(";")
    return any(text.with_suffix(f".{kind}").is_file() for text in texts for kind in images)


def open_img2dataset(paths: Sequence[str], options: SourceOptions) -> Source:
    """img2dataset's `webdataset`, `files` or `parquet` output.

    Of a pair that its sidecar Parquet lists and its tar does not hold, the tar is right: pairs that
    were never downloaded are counted in the view's `notes`, those said to be there in `warnings`.

    Raises:
        InputError: the paths hold none of the three.
    """
    if any(os.path.isfile(path) or tar_files(path) for path in paths):
        source = open_webdataset(paths, options)

        def open_shard(shard: Shard) -> TarView:
            view = open_tar(shard.path, options)
            compare_sidecar(view, shard.path)
            return view

        return source._replace(kind="img2dataset", open_shard=open_shard)
    if len(paths) == 1 and is_folder_of_files(Path(paths[0])):
        return open_files(paths[0], options)
    if any(parquet_files(path) for path in paths):
        return open_parquet(paths, options)._replace(kind="img2dataset")
    raise InputError(
        f"{', '.join(paths)[:200]} holds none of img2dataset's outputs that are read (webdataset, "
        "files, parquet); run img2dataset with --output_format=webdataset"
    )


def compare_sidecar(view: TarView, path: str) -> None:
    """Adds to a tar's view what its sidecar Parquet says otherwise."""
    sidecar = Path(path).with_suffix(".parquet")
    if not sidecar.is_file():
        return
    try:
        table = parquet.read_table(sidecar, columns=["key", "status"])
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        view.warnings += (f"{sidecar.name} cannot be read ({str(error)[:200]}); the tar is",)
        return
    statuses = dict(zip(*(texts(column) for column in table.columns), strict=True))
    if failed := Counter(str(s) for s in statuses.values() if s != "success"):
        view.notes += (failed_downloads(sidecar.name, failed),)
    present = {Path(group.key).name for group in view.groups}
    lost = sum(status == "success" and key not in present for key, status in statuses.items())
    if lost:
        view.warnings += (
            f"{sidecar.name} lists {lost} downloaded pairs that {view.name} does not hold; "
            "download the shard again",
        )
    if extra := len(present - statuses.keys()):
        view.notes += (f"{view.name} holds {extra} pairs that {sidecar.name} does not list",)


class FilesView:
    """A `ShardView` of a folder of images with `.txt` or `.json` captions of the same names."""

    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __init__(self, folder: str, options: SourceOptions):
        self._folder = folder
        self._options = options
        images, texts = options.image_key.split(";"), options.text_key.split(";")
        self._rows: list[tuple[str, str, str]] = []  # key, image's name, repeated image's name
        self._captions: dict[str, str] = {}
        first: set[str] = set()
        named: list[tuple[int, str, str]] = []
        for name in sorted(entry.name for entry in os.scandir(folder) if not entry.is_dir()):
            key, extension = split_name(name) or ("", "")
            if extension in images:
                named.append((images.index(extension), key, name))
            elif extension in texts or (extension == "json" and key not in self._captions):
                self._captions[key] = name
        for _, key, name in sorted(named):
            self._rows.append((key, name, name if key in first else ""))
            first.add(key)
        self._rows.extend((key, "", "") for key in self._captions.keys() - first)
        self._rows.sort()

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Pair:
        return make_pair(self.row(index), self._options.max_member_bytes)

    def row(self, index: int) -> Row:
        """A row with its caption read and its image named."""
        key, image, repeated = self._rows[index]
        caption: bytes | str | None = None
        if name := self._captions.get(key):
            path = os.path.join(self._folder, name)
            caption, _, _ = read_plain_file(path, self._options.max_member_bytes)
            if caption is not None and name.lower().endswith(".json"):
                caption, _ = json_caption(caption, self._options.json_text_key)
        if repeated:
            message = f"{repeated} is a second image of the key {key}"
            return Row(key, caption, None, "duplicate_key", message)
        if not image:
            return Row(key, caption, None, "missing_image", "a caption without an image")
        return Row(key, caption, os.path.join(self._folder, image))


def open_files(location: str, options: SourceOptions) -> Source:
    """Images with captions beside them, in a folder or its subfolders; each folder is a shard.

    Raises:
        InputError: no pairs in any, or a split asked for.
    """
    select_splits(options.split, {}, location)
    path = Path(location)
    inner = [str(p) for p in sorted(path.iterdir()) if p.is_dir() and not p.name.startswith(".")]
    folders = [folder for folder in (location, *inner) if len(FilesView(folder, options))]
    shards = tuple(
        sorted(Shard(name, f) for name, f in zip(unique_names(folders), folders, strict=True))
    )
    if not shards:
        raise InputError(f"{location} holds no images with captions of the same names")

    def fingerprint(shard: Shard) -> str:
        view = FilesView(shard.path, options)
        return rows_fingerprint(view.row(index) for index in range(len(view)))

    return Source(
        "img2dataset", location, shards, lambda shard: FilesView(shard.path, options), fingerprint
    )
