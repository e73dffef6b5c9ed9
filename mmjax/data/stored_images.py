"""Images that memory cannot hold, decoded anew whenever rows of them are asked for."""

import functools
import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int, UInt8

from mmjax.core.errors import ImageError, InputError
from mmjax.data.images import decode
from mmjax.data.shards import Source

_OPEN_SHARDS = 256
"""Shards whose index is kept; the longest unused is forgotten."""


@runtime_checkable
class Images(Protocol):
    """Images of one size: a NumPy array uint8 [n, s, s, 3], or what gives its rows like one."""

    @property
    def shape(self) -> tuple[int, ...]: ...  # noqa: D102

    def __len__(self) -> int: ...

    def __getitem__(
        self, rows: slice | Int[np.ndarray, " b"], /
    ) -> UInt8[np.ndarray, "b s s 3"]: ...


class StoredImages:
    """The distinct images of a source, read and decoded by a pool of threads with every access.

    Attributes:
      shape: [n, s, s, 3], as if they were an array.
      fingerprint: sha256, in hex, of all files and of s.
    """

    def __init__(
        self,
        source: Source,
        places: Sequence[tuple[int, int]],
        digests: Sequence[str],
        image_size: int,
        *,
        workers: int,
        max_pixels: int,
    ):
        """Remembers where the images are; reads nothing.

        Args:
            source: of the pairs.
            places: for every image the number of its shard and its row there.
            digests: sha256 of its file, in hex.
            image_size: s, pixels of a side; resized and cropped as CLIP does.
            workers: threads that read and decode.
            max_pixels: of an image at most.
        """
        self.shape = (len(places), image_size, image_size, 3)
        self.fingerprint = hashlib.sha256(repr((image_size, *digests)).encode()).hexdigest()
        self._places, self._shards, self._max_pixels = places, source.shards, max_pixels
        self._open = functools.lru_cache(_OPEN_SHARDS)(
            lambda number: source.open_shard(source.shards[number])
        )
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="mmjax-decode")

    def __len__(self) -> int:
        """Returns how many images there are."""
        return len(self._places)

    def __getitem__(self, rows: slice | Int[np.ndarray, " b"]) -> UInt8[np.ndarray, "b s s 3"]:
        """Decodes images.

        Raises:
            InputError: one is not what it was when the source was read.
        """
        chosen = np.arange(len(self))[rows].tolist()
        return np.stack(list(self._pool.map(self._decode, chosen)))

    def _decode(self, row: int) -> UInt8[np.ndarray, "s s 3"]:
        number, ordinal = self._places[row]
        try:
            data = self._open(number)[ordinal].image
            if data is not None:
                return decode(data, self.shape[1], max_pixels=self._max_pixels)
            why = "it is gone"
        except (ImageError, IndexError) as error:
            why = str(error)
        raise InputError(
            f"the image in row {ordinal} of {self._shards[number].path} was readable when training "
            f"began and is not any more ({why}); restore the set as it was and run again"
        )
