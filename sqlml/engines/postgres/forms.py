"""PostgreSQL's binary forms of values as Arrow arrays: src/backend/utils/adt, the functions called …send.

A form of a fixed ``width`` is a number of ``dtype``, big-endian; its ``finish`` makes an array of the numbers.  All others read
their cells themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pyarrow as pa

from sqlml.engines.postgres.cells import Cells, array_of, gather
from sqlml.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_DAYS = 10957  # from 1970-01-01 to 2000-01-01
_MICROSECONDS = _DAYS * 86_400_000_000


Finish: TypeAlias = "Callable[[NDArray[Any], NDArray[np.bool_] | None, str], pa.Array]"
"""From numbers, which of them are NULL, and the column's name to an array."""


@dataclass(frozen=True)
class Form:
    """How one type's values are read, and as what."""

    arrow: pa.DataType
    read: Callable[[Cells, str], pa.Array]
    width: int = 0
    dtype: str = ""
    finish: Finish = lambda values, null, name: None

    @property
    def native(self) -> np.dtype[Any]:
        """The numbers in this machine's order."""
        return np.dtype(self.dtype).newbyteorder("=")


def fixed(dtype: str, arrow: pa.DataType, finish: Finish | None = None) -> Form:
    """The form of a number; ``finish`` is for one that Arrow keeps in another way."""
    own = finish or _plain(arrow)

    def read(cells: Cells, name: str) -> pa.Array:
        values = cells.take(np.dtype(dtype)).astype(np.dtype(dtype).newbyteorder("="))
        if cells.null is not None:
            values[cells.null] = 0  # what lies there is another value's
        return own(values, cells.null, name)

    return Form(arrow, read, np.dtype(dtype).itemsize, dtype, own)


def _plain(arrow: pa.DataType) -> Finish:
    return lambda values, null, name: array_of(arrow, values, null)


def _boolean(values: NDArray[Any], null: NDArray[np.bool_] | None, name: str) -> pa.Array:
    return pa.array(values.view(np.bool_), mask=null)


def _moment(arrow: pa.DataType, epoch: int, values: NDArray[Any], null: NDArray[np.bool_] | None, name: str) -> pa.Array:
    """Days or microseconds since 2000 as since 1970; ``infinity`` as the largest number, ``-infinity`` as its negative."""
    ends = np.iinfo(values.dtype)
    if len(values) and (values.max() > ends.max - epoch or values.min() == ends.min):
        late, early = values == ends.max, values == ends.min
        if ((values > ends.max - epoch) & ~late).any():
            raise DataError(
                f"column {name} has a time after the year 294246, which Arrow cannot hold",
                hint=f"leave it out, or cast it: {name}::text",
            )
        values = np.where(late | early, 0, values) + values.dtype.type(epoch)
        values[late], values[early] = ends.max, -ends.max
    else:
        values += values.dtype.type(epoch)
    return array_of(arrow, values, null)


def _text(cells: Cells, name: str) -> pa.Array:
    return cells.texts()


def _jsonb(cells: Cells, name: str) -> pa.Array:
    return cells.texts(1)  # behind the version


def _binary(cells: Cells, name: str) -> pa.Array:
    return cells.texts().view(pa.binary())


_INTERVAL = np.dtype([("months", "<i4"), ("days", "<i4"), ("nanoseconds", "<i8")])


def _interval(cells: Cells, name: str) -> pa.Array:
    """Microseconds, days, months; Arrow counts nanoseconds, which reach 292 years."""
    time = cells.take(np.dtype(">i8")).astype(np.int64)
    values = np.zeros(len(cells), _INTERVAL)
    if cells.null is not None:
        time[cells.null] = 0
    if len(time) and max(int(time.max()), -int(time.min())) > (2**63 - 1) // 1000:
        raise DataError(
            f"column {name} has an interval that Arrow cannot hold: its microseconds overflow",
            hint=f"leave it out, or cast it: {name}::text",
        )
    values["nanoseconds"] = time * 1000
    values["days"] = cells.take(np.dtype(">i4"), 8)
    values["months"] = cells.take(np.dtype(">i4"), 12)
    return array_of(pa.month_day_nano_interval(), values, cells.null)


BOOLEAN = fixed("u1", pa.bool_(), _boolean)
INT2 = fixed(">i2", pa.int16())
INT4 = fixed(">i4", pa.int32())
INT8 = fixed(">i8", pa.int64())
FLOAT4 = fixed(">f4", pa.float32())
FLOAT8 = fixed(">f8", pa.float64())
OID = fixed(">u4", pa.int64(), lambda values, null, name: array_of(pa.int64(), values.astype(np.int64), null))
DATE = fixed(">i4", pa.date32(), partial(_moment, pa.date32(), _DAYS))
TIME = fixed(">i8", pa.time64("us"))
TIMESTAMP = fixed(">i8", pa.timestamp("us"), partial(_moment, pa.timestamp("us"), _MICROSECONDS))
TEXT = Form(pa.string(), _text)
JSONB = Form(pa.string(), _jsonb)
BYTEA = Form(pa.binary(), _binary)
INTERVAL = Form(pa.month_day_nano_interval(), _interval)


def timestamptz(zone: str) -> Form:
    """The form of moments; ``zone`` is where their clocks hang, which moves no moment."""
    arrow = pa.timestamp("us", zone)
    return fixed(">i8", arrow, partial(_moment, arrow, _MICROSECONDS))


def lists_of(item: Form) -> Form:
    """The form of an array of any dimensions; its elements come as one list."""
    return Form(pa.list_(item.arrow), partial(_lists, item))


_HEAD = 12  # dimensions, whether there are NULLs, the type of the elements
_DIMENSION = 8  # length, lower bound
_INT4 = np.dtype(">i4")


def _lists(item: Form, cells: Cells, name: str) -> pa.Array:
    dimensions = cells.take(_INT4).astype(np.int64)
    if cells.null is not None:
        dimensions[cells.null] = 0
    counts = (dimensions > 0).astype(np.int64)
    for number in range(int(dimensions.max(initial=0))):
        have = np.flatnonzero(dimensions > number)
        counts[have] *= gather(cells.bytes, cells.starts[have] + _HEAD + _DIMENSION * number, _INT4)
    ends = np.cumsum(counts)
    elements = _elements(item, cells, cells.starts + _HEAD + _DIMENSION * dimensions, counts, ends - counts)
    offsets = pa.array(np.concatenate([[0], ends]).astype(np.int32))
    mask = None if cells.null is None else pa.array(cells.null)
    return pa.ListArray.from_arrays(offsets, item.read(elements, name), mask=mask)


def _elements(item: Form, cells: Cells, places: NDArray[np.int64], counts: NDArray[np.int64], firsts: NDArray[np.int64]) -> Cells:
    """The elements of all arrays, one after the other; ``places`` is where the first of each lies."""
    total = int(counts.sum())
    sized = item.width > 0 and np.array_equal(cells.lengths, _sizes(cells, places, counts, item.width))
    if sized:  # no NULL in any: each lies a fixed step behind the one before
        step = 4 + item.width
        starts = np.repeat(places - firsts * step, counts) + np.arange(total) * step + 4
        return Cells(cells.buffer, cells.bytes, starts, np.full(total, item.width, np.int32), None)
    starts, lengths = np.empty(total, np.int64), np.empty(total, np.int32)
    rows = np.flatnonzero(counts)
    at, number = places[rows], 0
    while len(rows):
        found = gather(cells.bytes, at, _INT4).astype(np.int32)
        starts[firsts[rows] + number], lengths[firsts[rows] + number] = at + 4, found
        number += 1
        left = counts[rows] > number
        rows, at = rows[left], (at + 4 + np.maximum(found, 0))[left]
    null = lengths < 0
    return Cells(cells.buffer, cells.bytes, starts, np.maximum(lengths, 0), null if null.any() else None)


def _sizes(cells: Cells, places: NDArray[np.int64], counts: NDArray[np.int64], width: int) -> NDArray[np.int64]:
    """How many bytes each array would have, were none of its elements NULL."""
    sizes = places - cells.starts + counts * (4 + width)
    if cells.null is not None:
        sizes[cells.null] = 0
    return sizes
