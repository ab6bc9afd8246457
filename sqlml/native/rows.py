"""Rows of PostgreSQL's protocol in C: Arrow arrays in, the messages' bytes out, values as text on the way (``rows.c``)."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from sqlml.native.library import library

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Form(IntEnum):
    """How a column's values are written: as they are, as text, or as numbers with the first byte first."""

    BYTES = 0
    INT16 = 1
    INT32 = 2
    INT64 = 3
    DOUBLE = 4
    DATE = 5
    MICROSECONDS = 6
    BIG16 = 7
    BIG32 = 8
    BIG64 = 9
    BOOL = 10
    FLOAT = 11


_WIDEST = {
    Form.BYTES: 0, Form.INT16: 6, Form.INT32: 11, Form.INT64: 20, Form.DOUBLE: 24, Form.DATE: 10, Form.MICROSECONDS: 26,
    Form.BIG16: 2, Form.BIG32: 4, Form.BIG64: 8, Form.BOOL: 1, Form.FLOAT: 16,
}  # fmt: skip
"""The most bytes that a value comes to; of BYTES there are those that the array has."""
_COLUMN = np.dtype([("kind", "i8"), ("offset", "i8"), ("validity", "u8"), ("values", "u8"), ("ends", "u8")])
_SPARE = 32
"""Bytes behind the last message: digits are moved about within them."""
_POWERS = range(-292, 325)


@dataclass(frozen=True)
class Line:
    """How a row is a line of text: without a ``quote`` in the text format of COPY, with one as CSV.  Letters of one byte."""

    delimiter: str
    null: str
    quote: str = ""
    escape: str = ""

    def can_hold_numbers(self) -> bool:
        """Whether no number and no moment has anything special in it, or can be taken for NULL."""
        special = {self.delimiter, self.quote, self.escape}
        return not special & set(_PLAIN) and not (self.null and set(self.null) <= set(_PLAIN))


_PLAIN = "0123456789+-.:e InfityNaf"
_ESCAPES = {"\\": "\\", "\b": "b", "\f": "f", "\n": "n", "\r": "r", "\t": "t", "\v": "v"}
_LINE = np.dtype(
    [("delimiter", "i4"), ("quote", "i4"), ("escape", "i4"), ("null_size", "i4"), ("null", "u8"), ("special", "u1", 256)]
)


def has_rows() -> bool:
    """Whether the library is there and knows of rows."""
    return _functions() is not None


def row_messages(letter: bytes, columns: Sequence[tuple[Form, pa.Array]], rows: int) -> memoryview | int:
    """The messages of rows, one after the other; or the number of the column that has a day or a moment which is not of the
    years 1 to 9999, whose texts must come as ``BYTES``.

    An array lies as its form says: strings or binary with offsets of 32 bits for BYTES, int64 or anything of 8 bytes for BIG64.
    """
    found = _checked_functions()
    given, texts = _given(columns, rows)
    out = np.empty(rows * (7 + 4 * len(columns) + _width(columns)) + texts + _SPARE, np.uint8)
    powers = _powers()
    return _taken(out, found.sqlml_rows(letter, rows, len(columns), given.ctypes.data, powers.ctypes.data, out.ctypes.data))


def line_messages(columns: Sequence[tuple[Form, pa.Array]], rows: int, line: Line) -> memoryview | int:
    """Rows as CopyData messages with a line each; else as ``row_messages``."""
    found = _checked_functions()
    given, texts = _given(columns, rows)
    null = np.frombuffer(line.null.encode() or b"\0", np.uint8)
    wide = _width(columns) + len(columns) * (3 + len(line.null.encode()))  # quotes, a delimiter
    out = np.empty(rows * (6 + wide) + 2 * texts + _SPARE, np.uint8)
    form, powers = _line(line, null), _powers()
    return _taken(
        out,
        found.sqlml_lines(rows, len(columns), given.ctypes.data, powers.ctypes.data, form.ctypes.data, out.ctypes.data),
    )


def _line(line: Line, null: NDArray[np.uint8]) -> NDArray[Any]:
    found = np.zeros(1, _LINE)
    size = len(line.null.encode())
    found[["delimiter", "quote", "escape", "null_size", "null"]] = (
        ord(line.delimiter), ord(line.quote or "\0"), ord(line.escape or "\0"), size, null.ctypes.data,
    )  # fmt: skip
    special = found["special"][0]
    if line.quote:
        for letter in (line.delimiter, line.quote, "\n", "\r"):
            special[ord(letter)] = 1
    else:
        for letter, behind in {**_ESCAPES, line.delimiter: _ESCAPES.get(line.delimiter, line.delimiter)}.items():
            special[ord(letter)] = ord(behind)
    return found


def _given(columns: Sequence[tuple[Form, pa.Array]], rows: int) -> tuple[NDArray[Any], int]:
    """The columns as C reads them, and how many bytes the strings have."""
    given = np.zeros(len(columns), _COLUMN)
    texts = 0
    for number, (form, array) in enumerate(columns):
        if len(array) != rows:
            raise ValueError(f"column {number} has {len(array)} values, not {rows}")
        buffers = array.buffers()
        ends = buffers[1].address if form is Form.BYTES and buffers[1] is not None else 0
        values = buffers[-1].address if buffers[-1] is not None else 0
        validity = buffers[0].address if array.null_count and buffers[0] is not None else 0
        given[number] = (form, array.offset, validity, values, ends)
        if form is Form.BYTES and rows:
            offsets: NDArray[np.int32] = np.frombuffer(buffers[1], np.int32)
            texts += int(offsets[array.offset + rows]) - int(offsets[array.offset])
    return given, texts


def _width(columns: Sequence[tuple[Form, pa.Array]]) -> int:
    return sum(_WIDEST[form] for form, _ in columns)


def _taken(out: NDArray[np.uint8], size: int) -> memoryview | int:
    return -1 - size if size < 0 else out.data[:size]


def _checked_functions() -> Any:
    found = _functions()
    if found is None:
        raise RuntimeError("the native library is not there")
    return found


@cache
def _functions() -> Any:
    """The library with its two functions declared; None without it, and of one that was built before it had them."""
    found = library() if sys.byteorder == "little" else None  # the protocol's order is made by turning bytes
    if not hasattr(found, "sqlml_rows") or not hasattr(found, "sqlml_lines"):
        return None
    pointer = ctypes.c_void_p
    assert found is not None
    found.sqlml_rows.restype = found.sqlml_lines.restype = ctypes.c_int64
    found.sqlml_rows.argtypes = [ctypes.c_char, ctypes.c_int64, ctypes.c_int32, pointer, pointer, pointer]
    found.sqlml_lines.argtypes = [ctypes.c_int64, ctypes.c_int32, pointer, pointer, pointer, pointer]
    return found


@cache
def _powers() -> NDArray[np.uint64]:
    """128 bits of each power of ten, rounded up, the higher half first."""
    found = []
    for power in _POWERS:
        shift = ((power * 1741647) >> 19) - 127  # floor(log2(10 ** power)), so that the first bit is set
        if power >= 0:
            value = 10**power << -shift if shift < 0 else -(-(10**power) >> shift)
        else:
            value = -(-(1 << -shift) // 10**-power)
        found += [value >> 64, value & (2**64 - 1)]
    return np.array(found, np.uint64)
