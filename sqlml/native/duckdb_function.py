"""``__sqlml_trees`` and ``__sqlml_linear``: models as functions inside DuckDB, where it lets C in (``duckdb_function.c``).

``register`` before a database is opened; what is opened afterwards has the functions.  A slot is a model and how its columns are
read: it stays as long as the process, since running queries may look into it.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib
import logging
import os
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from sqlml.native.library import library

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sqlml.native.trees import TreeKernel

log = logging.getLogger("sqlml.native")

TREES = "__sqlml_trees"
LINEAR = "__sqlml_linear"
BEST = -1
"""The output that is the number of the likeliest class."""
SWITCH = "SQLML_NATIVE"
"""An environment variable; ``0``: models are called by Arrow alone."""
_MODULE = "_duckdb"
_SYMBOLS = (
    "register_static_extension", "connect", "disconnect", "create_scalar_function", "destroy_scalar_function",
    "scalar_function_set_name", "scalar_function_add_parameter", "scalar_function_set_varargs",
    "scalar_function_set_return_type", "scalar_function_set_special_handling", "scalar_function_set_function",
    "scalar_function_set_bind",
    "register_scalar_function", "scalar_function_set_error", "create_logical_type", "destroy_logical_type", "get_type_id",
    "data_chunk_get_size", "data_chunk_get_column_count", "data_chunk_get_vector", "vector_get_data", "vector_get_validity",
    "vector_get_column_type", "scalar_function_bind_get_argument_count", "scalar_function_bind_get_argument",
    "scalar_function_bind_set_error", "scalar_function_get_client_context", "destroy_client_context", "expression_is_foldable",
    "expression_fold", "expression_return_type", "destroy_expression", "is_null_value", "get_int32", "destroy_value",
    "destroy_error_data",
)  # fmt: skip
"""As the C has them, in that order."""
PARTS = ("value", "code", "days", "year", "month", "day", "weekday", "hour", "minute", "seconds")
FORMS = ("number", "text", "date", "time", "timestamp")


@dataclass(frozen=True)
class SlotInput:
    """A column: its form, what is made of it, a text's categories in the order of their codes, and whether it is looked at."""

    form: str
    parts: tuple[str, ...]
    categories: tuple[str, ...]
    used: bool


@cache
def register() -> bool:
    """Let DuckDB's databases have the function; False, told once at debug level, where that cannot be."""
    found = library()
    if found is None or os.environ.get(SWITCH) == "0":
        return False
    module = sys.modules.get(_MODULE) or importlib.import_module(_MODULE)
    try:
        duckdb = ctypes.CDLL(str(module.__file__), mode=getattr(os, "RTLD_NOLOAD", 0) | getattr(os, "RTLD_LAZY", 0))
        addresses = [ctypes.cast(getattr(duckdb, f"duckdb_{name}"), ctypes.c_void_p).value for name in _SYMBOLS]
    except (OSError, AttributeError) as error:
        log.debug("models are called by Arrow, since DuckDB takes no function of C: %s", error)
        return False
    refused = found.sqlml_duckdb_register((ctypes.c_void_p * len(addresses))(*addresses))
    if refused:
        log.debug("models are called by Arrow, since DuckDB refused a function of C")
    return not refused


def rows_scored() -> int:
    """How many rows ensembles of trees have scored inside DuckDB in this process; a row whose call is repeated counts once."""
    found = library()
    return 0 if found is None else int(found.sqlml_rows_scored())


_lock = threading.Lock()
_slots: dict[bytes, int] = {}
_kept: list[TreeKernel] = []


@dataclass(frozen=True)
class LinearFunctions:
    """``weight`` (outputs, features), ``intercept`` (outputs,); ``mean`` and ``inverse`` (features,): what is subtracted from a
    number, and what it is multiplied by after that.  The features of an input stand side by side from ``feature`` (inputs,) on;
    ``flag`` (inputs,) is the one that says it is missing, or -1.
    """

    weight: NDArray[np.float64]
    intercept: NDArray[np.float64]
    mean: NDArray[np.float64]
    inverse: NDArray[np.float64]
    feature: NDArray[np.int32]
    flag: NDArray[np.int32]


def slot_of_trees(kernel: TreeKernel, link: int, inputs: Sequence[SlotInput]) -> int | None:
    """The slot of an ensemble whose features are the parts of the inputs, in order; the same ensemble has one slot.  None: no
    more can be held.
    """
    columns = _Columns(kernel.outputs, link, inputs)

    def make(found: ctypes.CDLL) -> int:
        _kept.append(kernel)
        return int(found.sqlml_slot_of_trees(kernel.handle, *columns.arguments))

    return _slot(columns.digest(kernel.digest), make)


def slot_of_linear(functions: LinearFunctions, link: int, inputs: Sequence[SlotInput]) -> int | None:
    """The same of linear functions."""
    columns = _Columns(len(functions.intercept), link, inputs)
    given = (functions.weight, functions.intercept, functions.mean, functions.inverse, functions.feature, functions.flag)
    arrays = [np.ascontiguousarray(array) for array in given]
    features = functions.weight.shape[1]

    def make(found: ctypes.CDLL) -> int:
        return int(found.sqlml_slot_of_linear(features, *(array.ctypes.data for array in arrays), *columns.arguments))

    return _slot(columns.digest(b"".join(array.tobytes() for array in arrays)), make)


def _slot(key: bytes, make: Callable[[ctypes.CDLL], int]) -> int | None:
    found = library()
    if found is None:
        return None
    with _lock:
        if key not in _slots:
            slot = make(found)
            if slot < 0:
                return None
            _slots[key] = slot
        return _slots[key]


class _Columns:
    """The inputs as the C takes them."""

    def __init__(self, outputs: int, link: int, inputs: Sequence[SlotInput]) -> None:
        texts = [text.encode() for column in inputs for text in column.categories]
        self._numbers: list[NDArray[Any]] = [
            np.array([FORMS.index(column.form) for column in inputs], np.int32),
            np.array([len(column.parts) for column in inputs], np.int32),
            np.array([column.used for column in inputs], np.int32),
            np.array([len(column.categories) for column in inputs], np.int32),
            np.array([PARTS.index(part) for column in inputs for part in column.parts], np.int32),
            np.cumsum([len(text) for text in texts], dtype=np.int64),
        ]
        self._text = b"".join(texts)
        self._counts = (outputs, link, len(inputs))

    @property
    def arguments(self) -> tuple[Any, ...]:
        *columns, parts, ends = self._numbers
        places = [array.ctypes.data for array in columns]
        return (*self._counts, *places, parts.ctypes.data, len(parts), ends.ctypes.data, self._text, len(self._text))

    def digest(self, model: bytes) -> bytes:
        found = hashlib.sha256(repr((self._counts, len(model))).encode() + model)
        for array in self._numbers:
            found.update(len(array).to_bytes(8, "little") + array.tobytes())
        found.update(self._text)
        return found.digest()
