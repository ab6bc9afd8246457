"""Arrow columns as PostgreSQL's binary COPY takes them: the type of the table's column, and what is sent of it.

pgpq puts numbers, texts and lists into their binary form.  What it has none for is sent as bytes, which COPY takes for a value of
whatever type the column has.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from sqlml.engines.postgres.json import json_texts
from sqlml.errors import DataError, NotSupportedError

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

_SAME = {"text": ("text", "character varying"), "numeric": ("numeric",)}
"""Types with one binary form, any modifier."""

JSONB_VERSION = "\x01"
"""The byte before the text in jsonb's binary form (src/backend/utils/adt/jsonb.c)."""


@dataclass(frozen=True)
class Encoding:
    """A column to be written: its name, its type in SQL, and how its Arrow arrays are made ready for COPY.

    ``staged`` is the type that is sent, where the server has to cast it.
    """

    name: str
    sql_type: str
    encode: Callable[[pa.Array], pa.Array]
    staged: str = ""

    @property
    def sent(self) -> str:
        """The type of what is sent."""
        return self.staged or self.sql_type

    def named(self, name: str) -> Encoding:
        """The same under another name."""
        return replace(self, name=name)

    def fits(self, sql_type: str) -> bool:
        """Whether a column of a type takes the same bytes."""
        bare = re.sub(r"\([^)]*\)", "", sql_type)
        own = re.sub(r"\([^)]*\)", "", self.sent)
        return sql_type == self.sent or bare in _SAME.get(own, ())


def encoding(field: pa.Field) -> Encoding:
    """How a column is written.  ``NotSupportedError`` for a type that PostgreSQL has nothing for."""
    import pyarrow as pa

    kind = field.type
    if isinstance(kind, pa.BaseExtensionType):
        inner = encoding(pa.field(field.name, kind.storage_type))
        return replace(inner, encode=lambda array: inner.encode(array.storage))
    if pa.types.is_dictionary(kind):
        inner = encoding(pa.field(field.name, kind.value_type))
        return replace(inner, encode=lambda array: inner.encode(array.dictionary_decode()))
    if pa.types.is_struct(kind) or pa.types.is_map(kind) or _is_deep(kind):
        return Encoding(field.name, "jsonb", _jsonb)
    if _is_list(kind):
        sql_type, sent = _scalar(field.name, kind.value_type)
        staged = ""
        if sql_type == "timestamp with time zone":  # pgpq would send them as local times
            sent, staged = pa.string(), "text[]"
        if pa.types.is_interval(sent):
            raise NotSupportedError(f"column {field.name} is a list of intervals, which cannot be written to PostgreSQL")
        return Encoding(field.name, f"{sql_type}[]", partial(_cast, field.name, pa.list_(sent)), staged)
    sql_type, sent = _scalar(field.name, kind)
    if sql_type in _BYTES:
        return Encoding(field.name, sql_type, lambda array: _BYTES[sql_type](_cast(field.name, sent, array)))
    return Encoding(field.name, sql_type, partial(_cast, field.name, sent))


def encoded(batch: pa.RecordBatch, columns: Sequence[Encoding]) -> pa.RecordBatch:
    """A batch as it is sent."""
    import pyarrow as pa

    arrays = [column.encode(array) for column, array in zip(columns, batch.columns, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, names=[column.name for column in columns])


def _scalar(name: str, kind: pa.DataType) -> tuple[str, pa.DataType]:
    """The SQL type of an Arrow type, and the Arrow type that has its binary form."""
    import pyarrow as pa
    import pyarrow.types as t

    if t.is_decimal(kind):
        precision, scale = min(kind.precision, 38), kind.scale
        return f"numeric({precision},{scale})", pa.decimal128(precision, scale)
    if t.is_timestamp(kind):
        zone = kind.tz is not None
        return f"timestamp {'with' if zone else 'without'} time zone", pa.timestamp("us", "UTC" if zone else None)
    for fits, sql_type, sent in (
        (t.is_boolean, "boolean", pa.bool_()),
        (t.is_uint64, "numeric(20,0)", pa.decimal128(20, 0)),
        (lambda k: t.is_int64(k) or t.is_uint32(k), "bigint", pa.int64()),
        (lambda k: t.is_int32(k) or t.is_uint16(k), "integer", pa.int32()),
        (t.is_integer, "smallint", pa.int16()),
        (t.is_float64, "double precision", pa.float64()),
        (t.is_floating, "real", pa.float32()),
        (lambda k: t.is_string(k) or t.is_large_string(k) or t.is_string_view(k) or t.is_null(k), "text", pa.string()),
        (
            lambda k: t.is_binary(k) or t.is_large_binary(k) or t.is_fixed_size_binary(k) or t.is_binary_view(k),
            "bytea",
            pa.binary(),
        ),
        (t.is_date, "date", pa.date32()),
        (t.is_time, "time without time zone", pa.time64("us")),
        (t.is_duration, "interval", pa.duration("us")),
        (t.is_interval, "interval", pa.month_day_nano_interval()),
    ):
        if fits(kind):
            return sql_type, sent
    raise NotSupportedError(f"column {name} has the Arrow type {kind}, which PostgreSQL has nothing for")


def _cast(name: str, to: pa.DataType, array: pa.Array) -> pa.Array:
    import pyarrow as pa

    try:
        return array if array.type == to else array.cast(to)
    except pa.ArrowInvalid as error:
        raise DataError(f"column {name} has a value that {to} cannot hold: {error}") from None


def _moments(epoch: int, array: pa.Array) -> pa.Array:
    """Days or microseconds since 1970 as those since 2000; the largest number, and its negative, are the infinite ones."""
    import numpy as np

    number = np.dtype(f"i{array.type.bit_width // 8}")
    values = np.frombuffer(array.buffers()[1] or b"", number, len(array), array.offset * number.itemsize)
    ends = np.iinfo(number)
    sent = np.where(values < ends.min + epoch, ends.min + epoch, values) - number.type(epoch)
    sent[values == ends.max], sent[values == -ends.max] = ends.max, ends.min
    return _sent_bytes(sent.astype(number.newbyteorder(">")), array)


def _intervals(array: pa.Array) -> pa.Array:
    """Microseconds, or months, days and nanoseconds, as microseconds, days and months."""
    import numpy as np
    import pyarrow as pa

    if pa.types.is_duration(array.type):
        sent = np.zeros(len(array), _INTERVAL)
        sent["microseconds"] = np.frombuffer(array.buffers()[1] or b"", "i8", len(array), array.offset * 8)
        return _sent_bytes(sent, array)
    given = np.dtype([("months", "<i4"), ("days", "<i4"), ("nanoseconds", "<i8")])
    values = np.frombuffer(array.buffers()[1] or b"", given, len(array), array.offset * given.itemsize)
    sent = np.empty(len(array), _INTERVAL)
    sent["microseconds"], sent["days"], sent["months"] = values["nanoseconds"] // 1000, values["days"], values["months"]
    return _sent_bytes(sent, array)


def _sent_bytes(values: NDArray[Any], array: pa.Array) -> pa.Array:
    """Values in their binary form, NULL where the array is."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = pa.binary(values.dtype.itemsize)
    plain = pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(values)])
    return plain if not array.null_count else pc.if_else(array.is_valid(), plain, pa.scalar(None, kind))


_INTERVAL = [("microseconds", ">i8"), ("days", ">i4"), ("months", ">i4")]
_DAYS = 10957  # from 1970-01-01 to 2000-01-01
_MICROSECONDS = _DAYS * 86_400_000_000
_BYTES: dict[str, Callable[[pa.Array], pa.Array]] = {
    "date": partial(_moments, _DAYS),
    "timestamp without time zone": partial(_moments, _MICROSECONDS),
    "timestamp with time zone": partial(_moments, _MICROSECONDS),
    "interval": _intervals,
}
"""What is sent as bytes: what pgpq has no form for, and moments, which it does not know to be infinite."""


def _jsonb(array: pa.Array) -> pa.Array:
    import pyarrow as pa
    import pyarrow.compute as pc

    return pc.binary_join_element_wise(pa.scalar(JSONB_VERSION), json_texts(array), "")


def _is_list(kind: pa.DataType) -> bool:
    import pyarrow.types as t

    return bool(t.is_list(kind) or t.is_large_list(kind) or t.is_fixed_size_list(kind))


def _is_deep(kind: pa.DataType) -> bool:
    """Whether the elements of a list are lists, structs or maps themselves."""
    import pyarrow as pa

    return _is_list(kind) and bool(pa.types.is_nested(kind.value_type))
