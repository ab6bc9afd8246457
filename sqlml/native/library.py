"""The shared library of this folder's C: found, and its functions declared; None where it was not built."""

from __future__ import annotations

import ctypes
import logging
from functools import cache
from pathlib import Path
from typing import Any

log = logging.getLogger("sqlml.native")

FILE = Path(__file__).with_name("libsqlml.so")
_POINTER = ctypes.c_void_p
_INT = ctypes.c_int32
_LONG = ctypes.c_int64


@cache
def library() -> ctypes.CDLL | None:
    """The library; None where it is not there or cannot be loaded, or was built of older sources, which is told once, at debug
    level.
    """
    try:
        found = ctypes.CDLL(str(FILE))
        _declare(found)
    except OSError as error:
        log.debug("the native loops are not used: %s", error)
        return None
    except AttributeError as error:
        log.debug("the native loops are not used, they are older than this package (build it again): %s", error)
        return None
    return found


def _declare(found: ctypes.CDLL) -> None:
    found.sqlml_instructions.restype = ctypes.c_char_p
    found.sqlml_forest_new.restype = _POINTER
    found.sqlml_forest_new.argtypes = [
        _INT, _POINTER, _POINTER, _INT, _POINTER, _INT, *(_POINTER for _ in range(7)), _LONG, _POINTER
    ]  # fmt: skip
    found.sqlml_forest_free.restype = None
    found.sqlml_forest_free.argtypes = [_POINTER]
    found.sqlml_forest_rows.argtypes = [_POINTER, _POINTER, _LONG, _POINTER]
    found.sqlml_forest_answers.argtypes = [_POINTER, _INT, _INT, _POINTER, _LONG, _POINTER]
    found.sqlml_forest_columns.argtypes = [_POINTER, _POINTER, _LONG, _POINTER]
    found.sqlml_pruned_nodes.restype = _LONG
    found.sqlml_pruned_nodes.argtypes = [_POINTER]
    columns: list[Any] = [_INT, _INT, _INT, *(_POINTER for _ in range(5)), _INT, _POINTER, ctypes.c_char_p, _LONG]
    found.sqlml_slot_of_trees.argtypes = [_POINTER, *columns]
    found.sqlml_slot_of_linear.argtypes = [_INT, *(_POINTER for _ in range(6)), *columns]
    found.sqlml_matrix_rows.argtypes = [_INT, _POINTER, _POINTER, _LONG, _POINTER, _POINTER]
    for name, number in (("float", ctypes.c_float), ("double", ctypes.c_double)):
        figures, between = getattr(found, f"sqlml_figures_{name}"), getattr(found, f"sqlml_between_{name}")
        figures.restype = None
        figures.argtypes = [_POINTER, _LONG, _POINTER]
        between.restype = _LONG
        between.argtypes = [_POINTER, _LONG, number, number, _POINTER, _POINTER]
    found.sqlml_rows_scored.restype = _LONG
    found.sqlml_duckdb_register.argtypes = [_POINTER]
    found.sqlml_link.restype = None
    found.sqlml_link.argtypes = [_INT, _POINTER, _LONG, _INT]


def instructions() -> str | None:
    """``avx512``, ``avx2`` or ``portable``; None without the library."""
    found = library()
    return None if found is None else str(found.sqlml_instructions().decode())
