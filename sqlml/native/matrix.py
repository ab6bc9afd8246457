"""Columns side by side as rows of a float32 matrix, in C (``matrix.c``)."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sqlml.native.library import library

if TYPE_CHECKING:
    from numpy.typing import NDArray


def write_rows(columns: Sequence[NDArray[Any]], places: NDArray[Any], out: NDArray[np.float32]) -> bool:
    """Write columns (m,) of float32 or float64 to rows ``places`` (m,) of ``out`` (·, k); those with -1 have none.

    Numbers beyond float32, infinities too, become its largest.  False, and nothing written, where the library was not built.
    """
    native = library()
    if native is None:
        return False
    m, k = len(places), len(columns)
    if out.dtype != np.float32 or not out.flags.c_contiguous or out.shape[1:] != (k,) or any(len(c) != m for c in columns):
        raise ValueError(f"columns ({m}, {k}) do not fit a matrix of {out.dtype} {out.shape}")
    held = [np.ascontiguousarray(c, np.float32 if c.dtype == np.float32 else np.float64) for c in columns]
    wide = np.array([c.dtype == np.float64 for c in held], np.uint8)
    where = np.ascontiguousarray(places, np.int64)
    if m and not -1 <= where.min() <= where.max() < len(out):
        raise ValueError(f"rows {where.min()} to {where.max()} of a matrix of {len(out)}")
    pointers = (ctypes.c_void_p * k)(*(c.ctypes.data for c in held))
    if native.sqlml_matrix_rows(k, pointers, wide.ctypes.data, m, where.ctypes.data, out.ctypes.data):
        raise MemoryError(f"no room for a tile of rows of {k} columns")
    return True
