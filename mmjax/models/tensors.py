"""Reading named tensors from a safetensors file; anything pickled is refused unread."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open

from mmjax.core.errors import WeightsError

PICKLE_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".pkl")
_PICKLE_STARTS = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
_READ_BYTES = 1 << 22


class Tensors(NamedTuple):
    """An open file: the shape of every tensor, and how to read one."""

    shapes: Mapping[str, tuple[int, ...]]
    read: Callable[[str], np.ndarray]


@contextmanager
def open_tensors(path: Path) -> Iterator[Tensors]:
    """Opens a safetensors file; its header is checked by the library before anything is read.

    Raises:
      WeightsError: no such file, a pickle, truncated or damaged.
    """
    refuse_pickle(path)
    if not path.is_file():
        raise WeightsError(f"no {path.name} in {path.parent}{_pickles_beside(path)}")
    try:
        with safe_open(path, framework="numpy") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            yield Tensors(shapes, file.get_tensor)
    except SafetensorError as error:
        raise WeightsError(
            f"{path} is truncated or not a safetensors file ({error}); download it again"
        ) from error


def refuse_pickle(path: Path) -> None:
    """Raises WeightsError, naming `mmjax convert`, if `path` is a pickle by its name or bytes."""
    if path.suffix in PICKLE_SUFFIXES or (path.is_file() and is_pickle(path)):
        raise WeightsError(
            f"{path} is a pickle, which can run code when loaded; convert it once with "
            f"`mmjax convert {path} --out=FOLDER` and load FOLDER"
        )


def is_pickle(path: Path) -> bool:
    """Whether a file starts as a pickle or as a zip archive of one, which torch writes."""
    with path.open("rb") as file:
        return file.read(4).startswith(_PICKLE_STARTS)


def fingerprint(*paths: Path) -> str:
    """Returns the sha256, in hex, of the files' bytes one after the other."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(_READ_BYTES):
                digest.update(block)
    return digest.hexdigest()


def _pickles_beside(path: Path) -> str:
    if not path.parent.is_dir():
        return ""
    names = sorted(p.name for p in path.parent.iterdir() if p.suffix in PICKLE_SUFFIXES)
    if not names:
        return ""
    return (
        f", only the pickle {names[0]}; convert it once with "
        f"`mmjax convert {path.parent / names[0]} --out=FOLDER` and load FOLDER"
    )
