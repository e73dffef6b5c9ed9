"""Arrays that are mapped from files: read in chunks, their memory given back."""

import mmap

import numpy as np

_CHUNK_ROWS = 8_192
_TINY = 1e-18


def release(rows: np.ndarray) -> None:
    """Let go of the memory that reading a mapped array took; it can be read again."""
    if isinstance(rows.base, mmap.mmap) and not rows.flags.writeable:
        rows.base.madvise(mmap.MADV_DONTNEED)


def row_norms(array: np.ndarray) -> np.ndarray:
    """Euclidean norm of every row, NaN where it holds NaN or infinity."""
    norms = np.empty(len(array))
    wide = np.promote_types(array.dtype, np.float32)
    for start in range(0, len(array), _CHUNK_ROWS):
        with np.errstate(invalid="ignore"):  # a NaN that signals is a NaN
            chunk = np.asarray(array[start : start + _CHUNK_ROWS], wide)
        here = norms[start : start + len(chunk)]
        here[:] = np.sqrt(np.einsum("nd,nd->n", chunk, chunk))
        # a sum of squares may overflow or vanish where no element does
        for row in np.flatnonzero(~np.isfinite(here) | (here < _TINY)):
            largest = np.abs(chunk[row]).max(initial=0)
            if np.isfinite(largest) and largest > 0:
                here[row] = largest * np.linalg.norm((chunk[row] / largest).astype(np.float64))
            else:
                here[row] = np.nan if largest else 0
    release(array)
    return norms
