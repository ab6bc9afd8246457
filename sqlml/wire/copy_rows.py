"""Batches as CopyData messages, one for each row, as clients expect them."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sqlml.native.rows import Line, has_rows
from sqlml.wire.cells import encode
from sqlml.wire.native_rows import native_lines
from sqlml.wire.rows import messages, packed, raw_bytes, slices
from sqlml.wire.types import WireType

if TYPE_CHECKING:
    from sqlml.wire.copying import Format

SIGNATURE = b"PGCOPY\n\xff\r\n\0" + bytes(8)
"""What stands before the first row of the binary format: no flags, no extension."""
TRAILER = b"\xff\xff"


def copy_binary(batch: pa.RecordBatch, types: Sequence[WireType], *, signed: bool) -> Iterator[bytes | memoryview]:
    """Rows in binary form; ``signed``: the first one has the signature before it, in the same message."""
    start = 0
    if signed and batch.num_rows:
        first = messages(batch.slice(0, 1), types, [True] * len(types), b"d")
        body = SIGNATURE + bytes(first[5:])
        yield b"d" + struct.pack(">I", len(body) + 4) + body
        start = 1
    for part in slices(batch.slice(start)):
        yield messages(part, types, [True] * len(types), b"d")


def copy_text(batch: pa.RecordBatch, types: Sequence[WireType], form: Format) -> Iterator[memoryview]:
    """Rows as text or CSV: by C where it was built, else by Arrow."""
    quotes = (form.quote, form.escape) if form.name == "csv" else ("", "")
    line = Line(form.delimiter, form.null, *quotes)
    native = has_rows() and line.can_hold_numbers()
    for part in slices(batch):
        if native:
            yield native_lines(part.columns, types, part.num_rows, line)
        else:
            yield joined_lines(part.columns, types, part.num_rows, form)


def joined_lines(arrays: Sequence[pa.Array], types: Sequence[WireType], rows: int, form: Format) -> memoryview:
    """Rows as the lines of a COPY in text or CSV, each a message, without C."""
    cells = [encode(array, kind, False).cast(pa.string()) for array, kind in zip(arrays, types, strict=True)]
    ready = [_csv(array, form) if form.name == "csv" else _escaped(array, form) for array in cells]
    lines = pc.binary_join_element_wise(*ready, form.delimiter) if ready else pa.array([""] * rows)
    lines = pc.binary_join_element_wise(lines, "\n", "").cast(pa.binary())
    head = np.zeros(rows, [("kind", "S1"), ("length", ">i4")])
    head["kind"], head["length"] = b"d", pc.binary_length(lines).to_numpy() + 4
    return raw_bytes(pc.binary_join_element_wise(packed(head), lines, pa.scalar(b"", pa.binary())))


def header_line(names: Sequence[str], form: Format) -> bytes:
    """The columns' names as a row."""
    names_array = pa.array(names, pa.string())
    shown = _csv(names_array, form) if form.name == "csv" else _escaped(names_array, form)
    return (form.delimiter.join(shown.to_pylist()) + "\n").encode()


_ESCAPES = (("\\", r"\\\\"), ("\b", r"\\b"), ("\f", r"\\f"), ("\n", r"\\n"), ("\r", r"\\r"), ("\t", r"\\t"), ("\v", r"\\v"))


def _escaped(array: pa.Array, form: Format) -> pa.Array:
    odd = pc.match_substring_regex(array, r"[\x08-\x0d\\]") if len(array) else None
    if odd is not None and pc.any(odd).as_py():
        for plain, escaped in _ESCAPES:
            array = pc.replace_substring(array, plain, escaped.replace("\\\\", "\\"))
    if form.delimiter != "\t":
        array = pc.replace_substring(array, form.delimiter, "\\" + form.delimiter)
    return pc.fill_null(array, form.null)


def _csv(array: pa.Array, form: Format) -> pa.Array:
    """Quoted where it has to be: an empty text is not the empty word that stands for NULL."""
    import re

    special = "".join(map(re.escape, (form.delimiter, form.quote, "\n", "\r")))
    odd: Any = pc.match_substring_regex(array, f"[{special}]|^\\\\\\.$")
    odd = pc.or_(odd, pc.equal(array, form.null))
    odd = pc.fill_null(odd, False)
    if pc.any(odd).as_py():
        doubled = array
        if form.escape != form.quote:
            doubled = pc.replace_substring(doubled, form.escape, form.escape * 2)
        doubled = pc.replace_substring(doubled, form.quote, form.escape + form.quote)
        array = pc.if_else(odd, pc.binary_join_element_wise(form.quote, doubled, form.quote, ""), array)
    return pc.fill_null(array, form.null)
