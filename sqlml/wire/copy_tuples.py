"""Binary COPY data as Arrow batches: a file is read a block at a time, whole tuples are cut out of it and decoded together.

The form: https://www.postgresql.org/docs/current/sql-copy.html, "Binary Format".
"""

from __future__ import annotations

import struct
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

from sqlml.errors import Error
from sqlml.wire.copy_rows import SIGNATURE
from sqlml.wire.errors import Refused
from sqlml.wire.types import wire_type

if TYPE_CHECKING:
    import pyarrow as pa

    from sqlml.engines.postgres.decode import Decoder
    from sqlml.types import Column

BLOCK_BYTES = 1 << 20
"""So much is read at a time; more only where one tuple is larger."""
_MOST_DIMENSIONS = 6  # PostgreSQL's own limit
_CRITICAL = 0xFFFF0000
"""The flags of a header that a reader must know: none is known."""


def read_tuples(
    file: IO[bytes], table: str, columns: Sequence[Column]
) -> tuple[pa.Schema, Generator[pa.RecordBatch, None, None]]:
    """What a file's tuples become, and they themselves as batches.  ``Refused`` tells which one is wrong, counted from 1."""
    import pyarrow as pa

    cells = [_cell(column) for column in columns]
    schema = pa.schema([pa.field(column.name, cell.form.arrow) for column, cell in zip(columns, cells, strict=True)])
    return schema, _batches(file, table, columns, cells, schema)


@dataclass(frozen=True)
class _Cell:
    """How a column's cells are read; ``width`` is 0 where it varies, ``is_list`` where a cell has dimensions before it."""

    form: Any
    width: int
    is_list: bool


@dataclass(frozen=True)
class _Place:
    """Where an error is: the table, and the tuples that came before."""

    table: str
    before: int

    def error(self, message: str, sqlstate: str, column: str | None = None) -> Refused:
        at = f"COPY {self.table}, line {self.before + 1}"
        return Refused(message, sqlstate, context=at if column is None else f"{at}, column {column}")


def _batches(
    file: IO[bytes], table: str, columns: Sequence[Column], cells: Sequence[_Cell], schema: pa.Schema
) -> Generator[pa.RecordBatch, None, None]:
    import pyarrow as pa

    from sqlml.engines.postgres.decode import Decoder

    names = [column.name for column in columns]
    decoder = Decoder([cell.form for cell in cells], names)
    _skip_header(file)
    before, data, is_over = 0, file.read(BLOCK_BYTES), False
    while data and not is_over:
        lengths, used, is_over = _whole_tuples(data, cells, names, _Place(table, before))
        if lengths:
            arrays = _decoded(decoder, data[: sum(lengths)], lengths, _Place(table, before))
            yield pa.RecordBatch.from_arrays(arrays, schema=schema)
        before += len(lengths)
        rest = data[used:]
        more = file.read(max(BLOCK_BYTES, len(rest)))
        if is_over and (rest or more):
            raise _Place(table, before).error("received copy data after EOF marker", "22P04")
        if rest and not more:
            raise _Place(table, before).error("unexpected EOF in COPY data", "22P04")
        data = rest + more


def _skip_header(file: IO[bytes]) -> None:
    head = file.read(len(SIGNATURE))
    if head[:11] != SIGNATURE[:11]:
        raise Refused("COPY file signature not recognized", "22P04")
    if len(head) < len(SIGNATURE):
        raise Refused("invalid COPY file header (missing length)", "22P04")
    flags, size = struct.unpack_from(">Ii", head, 11)
    if flags & _CRITICAL:
        raise Refused("unrecognized critical flags in COPY file header", "22P04")
    if size < 0 or len(file.read(size)) < size:
        raise Refused("invalid COPY file header (wrong length)", "22P04")


def _whole_tuples(data: bytes, cells: Sequence[_Cell], names: Sequence[str], place: _Place) -> tuple[list[int], int, bool]:
    """The lengths of the tuples that are whole, where the next one begins, and whether the end was marked there."""
    unpack_count, unpack_size = struct.Struct(">h").unpack_from, struct.Struct(">i").unpack_from
    shapes = [(cell.width, cell.is_list) for cell in cells]
    lengths, at, end = list[int](), 0, len(data)
    while at + 2 <= end:
        [count] = unpack_count(data, at)
        if count == -1:
            return lengths, at + 2, True
        if count != len(shapes):
            wrong = _Place(place.table, place.before + len(lengths))
            raise wrong.error(f"row field count is {count}, expected {len(shapes)}", "22P04")
        next_at = at + 2
        for number, (width, is_list) in enumerate(shapes):
            if next_at + 4 > end:
                return lengths, at, False
            [size] = unpack_size(data, next_at)
            next_at += 4
            if size > 0:
                next_at += size
            if (size != width and size != -1 and (width or size < 0)) or (
                is_list and size >= 0 and next_at <= end and not _is_list(data, next_at - size, size)
            ):
                wrong = _Place(place.table, place.before + len(lengths))
                raise _wrong_size(wrong, size, width, names[number])
        if next_at > end:
            break
        lengths.append(next_at - at)
        at = next_at
    return lengths, at, False


def _wrong_size(place: _Place, size: int, width: int, column: str) -> Refused:
    if size < -1:
        return place.error("invalid field size", "22P04", column)
    if size < width:
        return place.error("insufficient data left in message", "08P01", column)
    return place.error("incorrect binary data format", "22P03", column)


def _is_list(data: bytes, at: int, size: int) -> bool:
    """Whether a cell can be an array: no more elements than there is room for their lengths."""
    if size < 12:
        return False
    [dimensions] = struct.unpack_from(">i", data, at)
    if not 0 <= dimensions <= _MOST_DIMENSIONS or size < 12 + 8 * dimensions:
        return False
    count = 1 if dimensions else 0
    for number in range(dimensions):
        [length] = struct.unpack_from(">i", data, at + 12 + 8 * number)
        if length < 0:
            return False
        count *= length
    return bool(count * 4 <= size - 12 - 8 * dimensions)


def _decoded(decoder: Decoder, data: bytes, lengths: list[int], place: _Place) -> list[Any]:
    """The columns of some tuples; where one of them cannot be read, it is looked for, and told."""
    from sqlml.engines.postgres.chunks import PADDING, Chunk

    try:
        arrays: list[Any] = decoder.decode(Chunk(bytearray(data) + bytes(PADDING), lengths))
        for array in arrays:
            array.validate(full=True)  # texts that are no UTF-8
        return arrays
    except (Error, ValueError, IndexError, OverflowError, struct.error) as error:
        if len(lengths) == 1:
            message = error.message if isinstance(error, Error) else "incorrect binary data format"
            raise place.error(message, "22P03") from None
    half = len(lengths) // 2
    size = sum(lengths[:half])
    _decoded(decoder, data[:size], lengths[:half], place)
    _decoded(decoder, data[size:], lengths[half:], _Place(place.table, place.before + half))
    raise place.error("incorrect binary data format", "22P03")


def _cell(column: Column) -> _Cell:
    kind = wire_type(column.sql_type)
    form = _form(column)
    width = {"uuid": 16, "interval": 16}.get(kind.name, form.width)
    return _Cell(form, width, kind.element is not None)


def _form(column: Column) -> Any:
    """How a column's cells become an array."""
    from sqlml.engines.postgres import forms
    from sqlml.engines.postgres.types import Field, result_column, uncast

    kind = wire_type(column.sql_type)
    if kind.name == "uuid":
        return _uuid_form()
    if kind.name in ("varbit", "timetz"):
        raise Refused(f"column {column.name} cannot be copied in binary form", "0A000", hint="use text or csv")
    if kind.element is not None and kind.element.name not in ("numeric", "uuid"):
        return result_column(Field(column.name, kind.oid, -1), {}).form
    if kind.name in ("text", "json", "name"):
        return forms.TEXT
    [found] = uncast([result_column(Field(column.name, kind.oid, kind.modifier), {})])
    return found.form


def _uuid_form() -> Any:
    import pyarrow as pa

    from sqlml.engines.postgres.forms import Form

    def read(cells: Any, name: str) -> pa.Array:
        import numpy as np

        values = cells.take(np.dtype("V16"))
        texts = values.tobytes().hex()
        found = [None if cells.null is not None and cells.null[i] else texts[32 * i : 32 * i + 32] for i in range(len(cells))]
        return pa.array(found, pa.string())

    return Form(pa.string(), read)
