"""A slice as messages by C: what numbers and moments it writes itself, and what comes to it as bytes by ``cells``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sqlml.native.rows import Form, Line, line_messages, row_messages
from sqlml.wire.cells import canonical, encode
from sqlml.wire.types import WireType

if TYPE_CHECKING:
    import pyarrow as pa

_TEXT = {
    "bool": Form.BOOL, "int2": Form.INT16, "int4": Form.INT32, "int8": Form.INT64, "oid": Form.INT64, "float4": Form.FLOAT,
    "float8": Form.DOUBLE, "date": Form.DATE, "timestamp": Form.MICROSECONDS,
}  # fmt: skip
_BINARY = {
    "int2": Form.BIG16, "int4": Form.BIG32, "int8": Form.BIG64, "float4": Form.BIG32, "float8": Form.BIG64, "time": Form.BIG64,
}  # fmt: skip
"""By the type's name; what is missing is encoded before."""


def native_messages(
    arrays: Sequence[pa.Array], types: Sequence[WireType], binary: Sequence[bool], rows: int, letter: bytes
) -> memoryview:
    """Rows of values, each a message of this letter: byte for byte what ``rows.joined`` makes."""
    columns = [_column(array, kind, is_binary) for array, kind, is_binary in zip(arrays, types, binary, strict=True)]
    while isinstance(found := row_messages(letter, columns, rows), int):
        columns[found] = (Form.BYTES, encode(arrays[found], types[found], False))  # a day of another era
    return found


def native_lines(arrays: Sequence[pa.Array], types: Sequence[WireType], rows: int, line: Line) -> memoryview:
    """Rows as the lines of a COPY in text or CSV, each a message: byte for byte what ``copy_rows.joined_lines`` makes."""
    columns = [_column(array, kind, False) for array, kind in zip(arrays, types, strict=True)]
    while isinstance(found := line_messages(columns, rows, line), int):
        columns[found] = (Form.BYTES, encode(arrays[found], types[found], False))
    return found


def _column(array: Any, kind: WireType, is_binary: bool) -> tuple[Form, pa.Array]:
    form = (_BINARY if is_binary else _TEXT).get(kind.name)
    if form is None:
        return Form.BYTES, encode(array, kind, is_binary)
    return form, canonical(array, kind)
