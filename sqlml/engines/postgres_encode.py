"""Arrow columns as PostgreSQL's binary COPY takes them: the type of the table's column, and the Arrow type that is sent."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from sqlml.engines.postgres_json import json_texts
from sqlml.errors import DataError, NotSupportedError

if TYPE_CHECKING:
    import pyarrow as pa

_SAME = {"text": ("text", "character varying"), "numeric": ("numeric",)}
"""Types with one binary form, any modifier."""

JSONB_VERSION = "\x01"
"""The byte before the text in jsonb's binary form (src/backend/utils/adt/jsonb.c)."""


@dataclass(frozen=True)
class Encoding:
    """A column to be written: its name, its type in SQL, and how its Arrow arrays are made ready for COPY."""

    name: str
    sql_type: str
    encode: Callable[[pa.Array], pa.Array]

    def named(self, name: str) -> Encoding:
        """The same under another name."""
        return replace(self, name=name)

    def fits(self, sql_type: str) -> bool:
        """Whether a column of a type takes the same bytes."""
        bare = re.sub(r"\([^)]*\)", "", sql_type)
        own = re.sub(r"\([^)]*\)", "", self.sql_type)
        return sql_type == self.sql_type or bare in _SAME.get(own, ())


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
        return Encoding(field.name, f"{sql_type}[]", partial(_cast, field.name, pa.list_(sent)))
    sql_type, sent = _scalar(field.name, kind)
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
        (t.is_interval, "interval", kind),
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
