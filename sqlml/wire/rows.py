"""An Arrow batch as DataRow messages, in one buffer: by C where it was built, else by Arrow, a column at a time.

By Arrow: each column is an array of its encoded values; the columns, with a header before each row and a length before each
value, are joined element by element; no row is looked at by itself.  What the join's result keeps its bytes in is every message
of the batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sqlml.native.rows import has_rows
from sqlml.wire.cells import encode
from sqlml.wire.native_rows import native_messages
from sqlml.wire.types import WireType

if TYPE_CHECKING:
    from numpy.typing import NDArray

SLICE_ROWS = 16_384
"""So many rows are encoded at a time: they, and what is made of them, stay in a processor's cache."""
LARGEST = 1 << 24
"""A slice with more bytes than this is halved: what is made of it is as large again."""

_HEAD = np.dtype([("kind", "S1"), ("length", ">i4"), ("columns", ">i2")])


def row_messages(batch: pa.RecordBatch, types: Sequence[WireType], binary: Sequence[bool]) -> Iterator[memoryview]:
    """The DataRow messages of a batch, in a few large pieces."""
    for part in slices(batch):
        yield messages(part, types, binary, b"D")


def slices(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """A batch in pieces that are encoded one after the other."""
    for start in range(0, batch.num_rows, SLICE_ROWS):
        yield from _halves(batch.slice(start, SLICE_ROWS))


def _halves(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    if batch.nbytes > LARGEST and batch.num_rows > 1:
        half = batch.num_rows // 2
        yield from _halves(batch.slice(0, half))
        yield from _halves(batch.slice(half))
    else:
        yield batch


def messages(batch: pa.RecordBatch, types: Sequence[WireType], binary: Sequence[bool], letter: bytes) -> memoryview:
    """The rows of a slice, each a message: ``D`` for DataRow, ``d`` for a binary COPY, which looks the same."""
    if has_rows():
        return native_messages(batch.columns, types, binary, batch.num_rows, letter)
    cells = [encode(array, kind, is_binary) for array, kind, is_binary in zip(batch.columns, types, binary, strict=True)]
    return joined(cells, batch.num_rows, letter)


def joined(cells: Sequence[pa.Array], rows: int, kind: bytes) -> memoryview:
    """Rows of encoded values, each a message, without C."""
    header = np.zeros(rows, _HEAD)
    parts: list[Any] = []
    total = np.full(rows, 6 + 4 * len(cells), np.int64)
    for array in cells:
        sizes, prefix = _sizes(array)
        total += sizes
        parts += [prefix, array if not array.null_count else pc.fill_null(array, b"")]
    header["kind"], header["length"], header["columns"] = kind, total, len(cells)
    return raw_bytes(pc.binary_join_element_wise(packed(header), *parts, pa.scalar(b"", pa.binary())))


def _sizes(array: pa.Array) -> tuple[NDArray[np.int64] | int, pa.Array | pa.Scalar]:
    """The lengths of values, as numbers and as what stands before them; one number where all are alike."""
    lengths = pc.binary_length(array)
    if not array.null_count:
        ends = pc.min_max(lengths)
        if len(array) and ends["min"].as_py() == ends["max"].as_py():
            size = ends["min"].as_py()
            return size, pa.scalar(size.to_bytes(4, "big"), pa.binary())
        plain = lengths.to_numpy()
        return plain, packed(plain.astype(">i4"))
    shown = pc.fill_null(lengths, -1).to_numpy()
    return np.maximum(shown, 0), packed(shown.astype(">i4"))


def packed(values: NDArray[Any]) -> pa.Array:
    """Numbers in the bytes that they are kept in."""
    size = values.dtype.itemsize
    offsets = np.arange(0, (len(values) + 1) * size, size, dtype=np.int32)
    return pa.Array.from_buffers(pa.binary(), len(values), [None, pa.py_buffer(offsets), pa.py_buffer(values)])


def raw_bytes(array: pa.Array) -> memoryview:
    """The bytes of all values, one after the other."""
    _, offsets, data = array.buffers()
    if data is None or not len(array):
        return memoryview(b"")
    ends = np.frombuffer(offsets, np.int32)[array.offset : array.offset + len(array) + 1]
    return memoryview(data)[int(ends[0]) : int(ends[-1])]
