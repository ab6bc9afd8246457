"""Training rows: an Arrow file, memory-mapped, with an order of its rows that does not depend on how they came.

A join or a group-by hands over the same rows in another order each time.  Every row gets a 64-bit hash of its values; sorting by
it gives the canonical order, so that the same rows and seed give the same split and the same model.
"""

from __future__ import annotations

import hashlib
import json
import mmap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sqlml.errors import TrainingDataError
from sqlml.features.database import hash_rows
from sqlml.features.parallel import side_by_side
from sqlml.types import Kind, arrow_type, kind_of_arrow

if TYPE_CHECKING:
    from numpy.typing import NDArray

Values: TypeAlias = pa.Array | pa.ChunkedArray
"""A column of Arrow data, in one piece or several."""

_BATCH = 16_000
_BATCH_CELLS = 1 << 20
"""Rows, and values, that are read at a time at most."""
_PART = 100_000
"""Fewer rows are not worth a thread of their own."""


@dataclass(frozen=True)
class Dataset:
    """Rows as they came, and the order in which to read them.

    ``order`` (n,) holds row numbers of ``table``: the i-th row in canonical order is ``table[order[i]]``.
    ``mapped`` is the file that the table's buffers lie in, where it is one.
    """

    table: pa.Table
    kinds: Mapping[str, Kind]
    order: NDArray[np.int64]
    fingerprint: str
    mapped: mmap.mmap | None = None

    def release(self) -> None:
        """Give back what was read of the file, which stays in the system's cache while there is room.

        What Arrow keeps is not asked for here: of the C library's memory that would be all that is free, to be had anew at once.
        """
        if self.mapped is not None and hasattr(self.mapped, "madvise") and hasattr(mmap, "MADV_DONTNEED"):
            self.mapped.madvise(mmap.MADV_DONTNEED)

    def column(self, name: str) -> Values:
        """A column in the Arrow type of its kind, rows as they came.  What was read before is released."""
        self.release()
        return canonical(self.table.column(name), self.kinds[name])

    def narrow(self, name: str) -> Values:
        """The same, but floats of 32 bits as they are: for who makes them short again, or longer a block at a time."""
        self.release()
        return _narrow(self.table.column(name), self.kinds[name])

    def some(self, name: str, rows: NDArray[np.int64]) -> Values:
        """A column's values of the rows numbered ``rows``, in that order: where they are few, less than to read it all."""
        self.release()
        return canonical(take(self.table.column(name), rows), self.kinds[name])

    def rows(self, start: int, length: int) -> dict[str, Values]:
        """Every column of some rows as ``narrow`` gives it, from row number ``start`` on.  What was read before is released."""
        self.release()
        part = self.table.slice(start, length)
        return {name: _narrow(part.column(name), kind) for name, kind in self.kinds.items()}


def read_arrow(path: Path) -> pa.Table:
    """The table in an Arrow IPC file or stream; its buffers stay in the file until they are touched."""
    return _read_mapped(_map(path))


def _map(path: Path) -> mmap.mmap:
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _read_mapped(mapped: mmap.mmap) -> pa.Table:
    try:
        return pa.ipc.open_file(pa.BufferReader(pa.py_buffer(mapped))).read_all()
    except pa.ArrowInvalid:
        return pa.ipc.open_stream(pa.BufferReader(pa.py_buffer(mapped))).read_all()


def read_dataset(path: Path, columns: Mapping[str, Kind | None], threads: int = 1) -> Dataset:
    """Read the columns named and find their canonical order.

    A kind of None stands for what the Arrow type says.  ``TrainingDataError`` where a column is missing or cannot be used.
    """
    mapped = _map(path)
    table = _read_mapped(mapped)
    absent = [name for name in columns if name not in table.column_names]
    if absent:
        raise TrainingDataError(f"the rows have no column {', '.join(absent)} (they have: {', '.join(table.column_names)})")
    table = table.select(list(columns))
    kinds = {name: kind or _own_kind(table, name) for name, kind in columns.items()}
    data = Dataset(table, kinds, np.empty(0, np.int64), "", mapped)
    hashes = _row_hashes(data, threads)
    order = _stable_argsort(hashes)
    digest = hashlib.sha256(json.dumps([[n, k.value] for n, k in kinds.items()], ensure_ascii=False).encode())
    digest.update(np.ascontiguousarray(hashes[order]).data)
    data.release()
    return replace(data, order=order, fingerprint=digest.hexdigest())


def canonical(values: Values, kind: Kind) -> Values:
    """Values in the Arrow type of a kind: every integer, float and decimal as float64, every string type as string, and so on.

    A moment for a model of local times is what the clock shows in the time zone that its type bears (the session's, where a
    database tells it), as in the databases' own casts; Arrow's would take UTC's.
    An infinite date or moment, which has no year, is NULL.  Raises ``pyarrow.ArrowInvalid`` or ``ArrowNotImplementedError`` for
    values that cannot be read as that kind.
    """
    want = arrow_type(kind)
    if pa.types.is_date(values.type) or pa.types.is_timestamp(values.type):
        values = _finite(values)
    if values.type == want:
        return values
    if isinstance(values.type, pa.DictionaryType):
        values = pc.cast(values, values.type.value_type)
    if isinstance(values.type, pa.BaseExtensionType):
        values = pc.cast(values, values.type.storage_type)
    if kind is Kind.TIMESTAMP and pa.types.is_timestamp(values.type) and values.type.tz:
        values = pc.local_timestamp(values)
    return pc.cast(values, want, safe=False)


def _narrow(values: Values, kind: Kind) -> Values:
    """``canonical``, but floats of 32 bits as they are."""
    return values if kind is Kind.NUMBER and pa.types.is_float32(values.type) else canonical(values, kind)


def in_file_order(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Row numbers, each there once, from the first row to the last: for what does not depend on the canonical order."""
    every = len(rows) > 0 and int(rows.max()) + 1 == len(rows)
    return np.arange(len(rows)) if every else np.sort(rows)


def pieces_of(values: Values) -> list[pa.Array]:
    """The pieces that a column is in."""
    return list(values.chunks) if isinstance(values, pa.ChunkedArray) else [values]


def take(values: Values, rows: NDArray[np.int64]) -> Values:
    """The values of the rows numbered ``rows``, in that order, by a copy of nothing else: Arrow's own first joins all pieces."""
    if not isinstance(values, pa.ChunkedArray) or values.num_chunks < 2 or not len(rows):
        return values.take(pa.array(rows))
    ends = np.cumsum([len(piece) for piece in values.chunks])
    piece_of = np.searchsorted(ends, rows, side="right").astype(np.min_scalar_type(len(ends)))
    order = np.argsort(piece_of, kind="stable")
    of_piece = np.split(rows[order], np.cumsum(np.bincount(piece_of, minlength=len(ends)))[:-1])
    wanted = [
        (piece, numbers - (end - len(piece)))
        for piece, end, numbers in zip(values.chunks, ends, of_piece, strict=True)
        if len(numbers)
    ]
    if (pa.types.is_floating(values.type) or pa.types.is_integer(values.type)) and not values.null_count:
        found = np.empty(len(rows), values.type.to_pandas_dtype())
        found[order] = np.concatenate([piece.to_numpy()[numbers] for piece, numbers in wanted])
        return pa.Array.from_buffers(values.type, len(rows), [None, pa.py_buffer(found)])
    parts = [piece.take(pa.array(numbers)) for piece, numbers in wanted]
    if (piece_of[1:] >= piece_of[:-1]).all():
        return pa.chunked_array(parts, values.type)
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    return pa.concat_arrays(parts).take(pa.array(back))


def _finite(values: Values) -> Values:
    """Dates or moments with NULL for ``infinity`` and ``-infinity``: the ends of their numbers, in DuckDB and PostgreSQL."""
    whole = pa.int32() if pa.types.is_date32(values.type) else pa.int64()
    last = 2 ** (whole.bit_width - 1) - 1
    numbers = pc.cast(values, whole)
    ends = pc.min_max(numbers).as_py()
    if ends["min"] is None or (ends["max"] < last and ends["min"] > -last):
        return values
    return pc.if_else(pc.less(pc.abs(pc.max_element_wise(numbers, -last)), last), values, pa.scalar(None, values.type))


def _own_kind(table: pa.Table, name: str) -> Kind:
    kind = kind_of_arrow(table.schema.field(name).type)
    if kind is None:
        raise TrainingDataError(f"column {name} has values of a type that no model can use ({table.schema.field(name).type})")
    return kind


def _stable_argsort(hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
    """The places of the hashes (n,) in rising order, of equal ones in the order in which they stand.

    NumPy's vectorised sort is some four times as fast as its stable one, and breaks ties anyhow, which most tables have none of.
    """
    order = np.argsort(hashes)
    rising = hashes[order]
    return order if (rising[1:] > rising[:-1]).all() else np.argsort(hashes, kind="stable")


def _row_hashes(data: Dataset, threads: int) -> NDArray[np.uint64]:
    """The hash of every row over the canonical values, in the table's order; what was read is released."""
    table, kinds = data.table, data.kinds
    if not table.num_rows:
        return np.empty(0, np.uint64)
    types = [_narrow(table.column(name).slice(0, 0), kind).type for name, kind in kinds.items()]
    schema = pa.schema([(f"c{i}", each) for i, each in enumerate(types)])
    part = max(_PART, -(-table.num_rows // threads))

    def batches(start: int) -> Iterator[pa.RecordBatch]:
        size = max(1, min(_BATCH, _BATCH_CELLS // max(1, len(kinds))))
        for batch in table.slice(start, part).to_batches(max_chunksize=size):
            arrays = [_narrow(array, kind) for array, kind in zip(batch.columns, kinds.values(), strict=True)]
            yield pa.RecordBatch.from_arrays(arrays, schema=schema)
            data.release()

    def hashes(start: int) -> NDArray[np.uint64]:
        return hash_rows(pa.RecordBatchReader.from_batches(schema, batches(start)))

    return np.concatenate(side_by_side(hashes, range(0, table.num_rows, part), threads))
