"""Arrays that are mapped from files: read in chunks, their memory given back."""

import mmap
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np

_CHUNK_ROWS = 8_192
_TINY = 1e-18


def release(rows: np.ndarray) -> None:
    """Let go of the memory that reading a mapped array took; it can be read again."""
    if isinstance(rows.base, mmap.mmap) and not rows.flags.writeable:
        rows.base.madvise(mmap.MADV_DONTNEED)


def row_norms(array: np.ndarray) -> np.ndarray:
    """Euclidean norm of every row, NaN where it holds NaN or infinity."""
    starts = range(0, len(array), _CHUNK_ROWS)
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
        parts = threads.map(lambda start: _norms(array[start : start + _CHUNK_ROWS]), starts)
        norms = np.concatenate([np.empty(0), *parts])
    release(array)
    return norms


def _norms(rows: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):  # a NaN that signals is a NaN
        chunk = np.asarray(rows, np.promote_types(rows.dtype, np.float32))
    norms = np.sqrt(np.einsum("nd,nd->n", chunk, chunk)).astype(np.float64)
    # a sum of squares may overflow or vanish where no element does
    for row in np.flatnonzero(~np.isfinite(norms) | (norms < _TINY)):
        largest = np.abs(chunk[row]).max(initial=0)
        if np.isfinite(largest) and largest > 0:
            norms[row] = largest * np.linalg.norm((chunk[row] / largest).astype(np.float64))
        else:
            norms[row] = np.nan if largest else 0
    return norms
