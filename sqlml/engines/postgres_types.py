"""PostgreSQL's types: how SQL names them, what they are to a model, and the Arrow form in which they are given.

The driver tells a column's type by its name in ``pg_type`` (``int4``, ``_text``, ``unnamed<oid:16425>``) and numeric's modifier.

    numeric(p, s), p <= 38        decimal128, exact
    numeric, numeric(p > 38, s)   double: there is no bound to its digits; NaN and infinities are kept
    enum, uuid, json, jsonb, and all that has no Arrow form (inet, point, ranges …)   text, as the server writes it
    money                         decimal128(21, 4)
    date, timestamp               'infinity' is the largest number, '-infinity' its negative, as DuckDB has it
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlml.engines.postgres_values import convert_dates, convert_decimal, convert_number, in_lists, plain
from sqlml.errors import NotSupportedError
from sqlml.types import Column, Kind

if TYPE_CHECKING:
    import pyarrow as pa

SQL_NAMES = {
    "int2": "smallint", "int4": "integer", "int8": "bigint", "float4": "real", "float8": "double precision", "bool": "boolean",
    "varchar": "character varying", "bpchar": "character", "char": '"char"', "varbit": "bit varying",
    "time": "time without time zone", "timetz": "time with time zone",
    "timestamp": "timestamp without time zone", "timestamptz": "timestamp with time zone",
}  # fmt: skip
"""Where SQL's name differs from the one in ``pg_type``."""

_KINDS: dict[str, Kind | None] = {
    "boolean": Kind.BOOLEAN,
    "date": Kind.DATE,
    "time without time zone": Kind.TIME,
    "timestamp without time zone": Kind.TIMESTAMP,
    "timestamp with time zone": Kind.TIMESTAMPTZ,
    **dict.fromkeys(("smallint", "integer", "bigint", "real", "double precision", "numeric"), Kind.NUMBER),
    **dict.fromkeys(("text", "character varying", "character", '"char"', "name", "uuid", "bit", "bit varying"), Kind.TEXT),
    **dict.fromkeys(("time with time zone", "interval", "bytea", "json", "jsonb", "xml", "inet", "cidr", "point")),
}
_LISTS = {Kind.NUMBER: Kind.NUMBERS, Kind.TEXT: Kind.TEXTS}

_CASTS = {"money": "numeric(21,4)", "oid": "bigint", "xid": "bigint", "cid": "bigint"}
"""What the server is asked to give in place of a type; all others without an Arrow form are given as text."""

MONEY = (21, 4)  # no currency has more than four digits after the point (ISO 4217)
EXACT = 38  # digits of decimal128

Convert = Callable[["pa.Array", str], "pa.Array"]


@dataclass(frozen=True)
class TypeInfo:
    """What the server's catalog says of a type that the driver does not know: ``pg_type``'s letters."""

    name: str
    type: str  # b base, c composite, d domain, e enum, r range
    category: str  # A array, S string, E enum, N number …
    element: str | None = None  # an array's element: its ``type``


@dataclass(frozen=True)
class ResultColumn:
    """A column of a result: what it is, what the server has to cast it to first, and how the driver's values become ours."""

    column: Column
    arrow: pa.DataType
    cast: str | None = None
    convert: Convert | None = None


def kind_of_type(sql_type: str) -> Kind | None:
    """What a column of one of PostgreSQL's own types is to a model: ``numeric(10,2)``, ``character varying(9)``, ``integer[]``.

    None for what no model understands: bytea, interval, json, inet, lists of dates …  Domains and enums are the server's to tell.
    """
    name = re.sub(r"\s*\([^)]*\)", "", sql_type.strip())
    if name.endswith("[]"):
        return list_kind(kind_of_type(name.rstrip("[]")))
    return _KINDS.get(SQL_NAMES.get(name, name) if name != "char" else "character")


def list_kind(item: Kind | None) -> Kind | None:
    """What a list of a kind is to a model."""
    return None if item is None else _LISTS.get(item)


def unknown_types(schema: pa.Schema) -> list[str]:
    """The types of a result that only the server can explain."""
    return [name for field in schema if _is_opaque(field.type) and (name := _driver_name(field)) not in _EXPLAINED]


def result_column(field: pa.Field, infos: Mapping[str, TypeInfo]) -> ResultColumn:
    """How a column of the driver's is given."""
    import pyarrow as pa

    name = _driver_name(field)
    info = infos.get(name)
    if info is not None:
        return _explained(field, info)
    modifier = int((field.metadata or {}).get(b"POSTGRESQL:typmod", b"-1"))
    sql_type, arrow = _sql_type(name, modifier), field.type
    kind = kind_of_type(sql_type)
    if name in _CASTS or (name.startswith("reg") and pa.types.is_integer(arrow)):
        return _cast(field.name, sql_type, kind, _CASTS.get(name, "text"))
    if name == "numeric":
        return _numeric(Column(field.name, sql_type, Kind.NUMBER), modifier)
    if pa.types.is_list(arrow):
        return _list(field, sql_type, kind)
    if pa.types.is_struct(arrow):
        if name == "record" or any(_is_opaque(child.type) or pa.types.is_nested(child.type) for child in arrow):
            return _cast(field.name, sql_type, None, "text")
        return ResultColumn(Column(field.name, sql_type, None), arrow)
    if name in ("json", "jsonb"):
        return ResultColumn(Column(field.name, sql_type, None), pa.string(), convert=plain)
    if _is_opaque(arrow):
        return _cast(field.name, sql_type, kind, "text")
    if pa.types.is_string(arrow) and sql_type not in _KINDS:  # an enum
        kind = Kind.TEXT
    convert = convert_dates if pa.types.is_date(arrow) or pa.types.is_timestamp(arrow) else None
    return ResultColumn(Column(field.name, sql_type, kind), arrow, convert=convert)


def _explained(field: pa.Field, info: TypeInfo) -> ResultColumn:
    if info.category == "A":
        return _cast(field.name, info.name, Kind.TEXTS if info.element == "e" else None, "text[]")
    kind = Kind.TEXT if info.type == "e" or info.category == "S" else kind_of_type(info.name)
    return _cast(field.name, info.name, kind, "text")


def _cast(name: str, sql_type: str, kind: Kind | None, to: str) -> ResultColumn:
    import pyarrow as pa

    arrow = {"text": pa.string(), "text[]": pa.list_(pa.string()), "bigint": pa.int64()}.get(to)
    if arrow is None:
        return ResultColumn(Column(name, sql_type, kind), pa.decimal128(*MONEY), to, convert_decimal(*MONEY))
    return ResultColumn(Column(name, sql_type, kind), arrow, to)


def _numeric(column: Column, modifier: int) -> ResultColumn:
    import pyarrow as pa

    precision, scale = _digits(modifier)
    if modifier < 0 or precision > EXACT:
        return ResultColumn(column, pa.float64(), convert=convert_number)
    return ResultColumn(column, pa.decimal128(precision, scale), convert=convert_decimal(precision, scale))


def _digits(modifier: int) -> tuple[int, int]:
    """Precision and scale as decimal128 takes them, of numeric's modifier (src/backend/utils/adt/numeric.c)."""
    packed = modifier - 4
    precision, scale = (packed >> 16) & 0xFFFF, ((packed & 0x7FF) ^ 1024) - 1024
    if scale < 0:  # numeric(3, -2) rounds to hundreds: 5 digits, none after the point
        return precision - scale, 0
    return max(precision, scale), scale


def _list(field: pa.Field, sql_type: str, kind: Kind | None) -> ResultColumn:
    import pyarrow as pa

    item = field.type.value_field
    name = _driver_name(item)
    if name in ("numeric", "money"):
        if name == "money":
            return _cast(field.name, sql_type, None, "text[]")
        return ResultColumn(Column(field.name, sql_type, kind), pa.list_(pa.float64()), convert=in_lists(convert_number))
    if _is_opaque(item.type) or name in ("json", "jsonb", "oid") or pa.types.is_nested(item.type):
        return _cast(field.name, sql_type, kind if name == "uuid" else None, "text[]")
    if pa.types.is_string(item.type) and kind is None:
        kind = Kind.TEXTS
    if pa.types.is_date(item.type) or pa.types.is_timestamp(item.type):
        return ResultColumn(Column(field.name, sql_type, kind), pa.list_(item.type), convert=in_lists(convert_dates))
    return ResultColumn(Column(field.name, sql_type, kind), pa.list_(item.type), convert=None)


def _driver_name(field: pa.Field) -> str:
    metadata = field.metadata or {}
    return str((metadata.get(b"POSTGRESQL:type") or metadata.get(b"ADBC:postgresql:typname") or b"").decode())


def _sql_type(name: str, modifier: int) -> str:
    """A type as PostgreSQL writes it, from its name in ``pg_type``."""
    if name.startswith("_"):
        return _sql_type(name[1:], -1) + "[]"
    if name == "numeric" and modifier >= 0:
        packed = modifier - 4
        return f"numeric({(packed >> 16) & 0xFFFF},{((packed & 0x7FF) ^ 1024) - 1024})"
    return SQL_NAMES.get(name, name)


_EXPLAINED = frozenset(
    {"numeric", "uuid", "json", "jsonb", "inet", "cidr", "point", "bit", "varbit", "timetz", "xml", "interval"}
)
"""Opaque to the driver, known to us."""


def _is_opaque(data_type: Any) -> bool:
    import pyarrow as pa

    return isinstance(data_type, pa.BaseExtensionType) and data_type.extension_name != "arrow.json"


def refuse_opaque(fields: Sequence[ResultColumn]) -> None:
    """``NotSupportedError`` for a column that would have to be cast, where a statement cannot be put into another."""
    for field in fields:
        if field.cast is not None:
            name = field.column.name
            raise NotSupportedError(
                f"column {name} has the type {field.column.sql_type}, which has no Arrow form",
                hint=f"cast it, as in {name}::text",
            )
