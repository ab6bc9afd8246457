"""Spark's types: what a column is to a model, and how its values come as Arrow."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from sqlml.errors import NotSupportedError
from sqlml.types import Column, Kind

if TYPE_CHECKING:
    import pyarrow as pa

_KINDS = {
    "boolean": Kind.BOOLEAN,
    "string": Kind.TEXT,
    "char": Kind.TEXT,
    "varchar": Kind.TEXT,
    "date": Kind.DATE,
    "timestamp": Kind.TIMESTAMPTZ,  # a moment; shown in the session's time zone
    "timestamp_ntz": Kind.TIMESTAMP,
} | dict.fromkeys(("byte", "short", "integer", "long", "float", "double", "decimal", "void"), Kind.NUMBER)
_OFFSET = re.compile(r"Z|(?:UTC|GMT|UT)?(?:(?P<sign>[+-])(?P<hours>\d\d?)(?::?(?P<minutes>\d\d))?(?::?00)?)?")
_LISTS = {Kind.NUMBER: Kind.NUMBERS, Kind.TEXT: Kind.TEXTS}


def columns_of(schema: Any) -> tuple[Column, ...]:
    """The columns of a Spark schema."""
    return tuple(Column(field.name, _type_name(field.dataType), kind_of(field.dataType)) for field in schema.fields)


def kind_of(data_type: Any) -> Kind | None:
    """What a Spark type is to a model; None for structs, maps, binary, intervals and arrays of such."""
    name = data_type.typeName()
    if name == "array":
        item = kind_of(data_type.elementType)
        return None if item is None else _LISTS.get(item)
    if name.startswith("time("):
        return Kind.TIME
    return _KINDS.get(name)


def _type_name(data_type: Any) -> str:
    return "NULL" if data_type.typeName() == "void" else str(data_type.simpleString())


def zone_name(zone: str) -> str:
    """A time zone as Spark's settings name it (``GMT+2``, ``Z``, ``Europe/Berlin``) in the words of Arrow's types.

    ``NotSupportedError`` for an abbreviation, which Java alone knows.
    """
    offset = _OFFSET.fullmatch(zone)
    if offset is not None and offset["hours"]:
        return f"{offset['sign']}{int(offset['hours']):02}:{int(offset['minutes'] or 0):02}"
    if offset is not None:
        return "UTC"
    try:
        ZoneInfo(zone)
    except (KeyError, ValueError, OSError):  # not found, or no name of a zone at all
        raise NotSupportedError(
            f"the session's time zone {zone} is known to Spark alone",
            hint="name it by its place: SET spark.sql.session.timeZone = 'America/Los_Angeles'",
        ) from None
    return zone


def arrow_schema(schema: Any, zone: str = "UTC") -> pa.Schema:
    """The Arrow types of a Spark schema's columns, moments in a zone.  ``NotSupportedError`` names a column that has none."""
    import pyarrow as pa

    fields = []
    for field in schema.fields:
        try:
            fields.append(pa.field(field.name, _arrow_type(field.dataType, zone)))
        except TypeError:
            raise NotSupportedError(
                f"column {field.name} is {field.dataType.simpleString()}, which Arrow cannot carry out of Spark",
                hint=f"cast it: CAST({field.name} AS STRING)",
            ) from None
    return pa.schema(fields)


def _arrow_type(data_type: Any, zone: str) -> pa.DataType:
    import pyarrow as pa

    name = data_type.typeName()
    plain = {
        "boolean": pa.bool_(), "byte": pa.int8(), "short": pa.int16(), "integer": pa.int32(), "long": pa.int64(),
        "float": pa.float32(), "double": pa.float64(), "string": pa.string(), "char": pa.string(), "varchar": pa.string(),
        "binary": pa.binary(), "date": pa.date32(), "timestamp": pa.timestamp("us", zone), "timestamp_ntz": pa.timestamp("us"),
        "void": pa.null(),
    }  # fmt: skip
    if name in plain:
        return plain[name]
    if name == "decimal":
        return pa.decimal128(data_type.precision, data_type.scale)
    if name == "array":
        return pa.list_(_arrow_type(data_type.elementType, zone))
    if name == "map":
        return pa.map_(_arrow_type(data_type.keyType, zone), _arrow_type(data_type.valueType, zone))
    if name == "struct":
        return pa.struct([(field.name, _arrow_type(field.dataType, zone)) for field in data_type.fields])
    if name.startswith("interval day"):
        return pa.duration("us")
    raise TypeError(name)


def stored_schema(schema: pa.Schema) -> pa.Schema:
    """The types in which Arrow columns are written to Parquet so that Spark reads them: TIME has none there and is text."""
    import pyarrow as pa

    return pa.schema([pa.field(field.name, _stored(field.type)) for field in schema])


def _stored(data_type: pa.DataType) -> pa.DataType:
    import pyarrow as pa
    import pyarrow.types as t

    if t.is_dictionary(data_type):
        return _stored(data_type.value_type)
    if t.is_time(data_type) or t.is_null(data_type) or t.is_large_string(data_type) or t.is_string_view(data_type):
        return pa.string()
    if t.is_timestamp(data_type):
        return pa.timestamp("us", "UTC" if data_type.tz else None)
    if t.is_date(data_type):
        return pa.date32()
    if t.is_uint64(data_type):
        return pa.decimal128(20, 0)
    if t.is_float16(data_type):
        return pa.float32()
    if t.is_duration(data_type):
        return pa.int64()
    if t.is_list(data_type) or t.is_large_list(data_type) or t.is_fixed_size_list(data_type):
        return pa.list_(_stored(data_type.value_type))
    if t.is_struct(data_type):
        return pa.struct([(field.name, _stored(field.type)) for field in data_type])
    return data_type


def in_types(columns: Sequence[pa.Array], schema: pa.Schema) -> pa.RecordBatch:
    """Columns, by their place, in the types of a schema."""
    import pyarrow as pa

    arrays = [c if c.type == f.type else c.cast(f.type, safe=False) for c, f in zip(columns, schema, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)
