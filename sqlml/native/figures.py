"""What is told of columns of numbers, in C (``figures.c``): no value is copied but those near the middle."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sqlml.native.library import library

if TYPE_CHECKING:
    from numpy.typing import NDArray

_PART = 1 << 16
"""Values that are looked through at a time: those that are found have as much room."""


class _Figures(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int64) for name in ("known", "absent", "infinite")),
        *((name, ctypes.c_double) for name in ("low", "high", "mean", "squares")),
    )


@dataclass(frozen=True)
class NumberFigures:
    """Of the finite numbers: how many, the least, the largest, the mean, and the sum of the squared distances from it.

    ``absent`` are NaN, ``infinite`` the rest.  ``low`` and ``high`` are infinite where there are no finite ones.
    """

    known: int
    absent: int
    infinite: int
    low: float
    high: float
    mean: float
    squares: float


def number_figures(pieces: Sequence[NDArray[Any]]) -> NumberFigures | None:
    """The figures of all pieces together: float32 or float64 (n,) each, all of one type.  None without the library."""
    native = library()
    if native is None:
        return None
    found = _Figures(low=np.inf, high=-np.inf)
    for piece in map(_checked, pieces):
        figures = native.sqlml_figures_float if piece.dtype == np.float32 else native.sqlml_figures_double
        figures(piece.ctypes.data, len(piece), ctypes.byref(found))
    return NumberFigures(*(getattr(found, name) for name, *_ in _Figures._fields_))


def numbers_between(pieces: Sequence[NDArray[Any]], low: float, high: float) -> tuple[NDArray[Any], int] | None:
    """The values from ``low`` to ``high``, and how many finite ones are less; pieces as above, not none.  None without the
    library.
    """
    native = library()
    if native is None:
        return None
    below, found = ctypes.c_int64(0), []
    room = np.empty(_PART, pieces[0].dtype)
    for piece in map(_checked, pieces):
        between = native.sqlml_between_float if piece.dtype == np.float32 else native.sqlml_between_double
        for first in range(0, len(piece), _PART):
            part = piece[first : first + _PART]
            count = between(part.ctypes.data, len(part), low, high, room.ctypes.data, ctypes.byref(below))
            found.append(room[:count].copy())
    return np.concatenate(found), below.value


def _checked(piece: NDArray[Any]) -> NDArray[Any]:
    if piece.dtype not in (np.float32, np.float64) or piece.ndim != 1:
        raise ValueError(f"expected floats (n,), got {piece.dtype} {piece.shape}")
    return np.ascontiguousarray(piece)
