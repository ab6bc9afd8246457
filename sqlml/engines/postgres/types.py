"""PostgreSQL's types: how SQL names them, what they are to a model, and the Arrow form in which they are given.

The server tells a column's type by its number in ``pg_type`` and its modifier (``PQftype``, ``PQfmod``): for the types here
that is enough, for all others the server's catalog is asked.

    numeric(p, s), p <= 38        decimal128, exact
    numeric, numeric(p > 38, s)   double: there is no bound to its digits; NaN and infinities are kept
    enum, uuid, json, jsonb, and all that has no Arrow form (inet, point, ranges …)   text, as the server writes it
    money                         decimal128(21, 4)
    arrays                        lists, whatever their dimensions
    timestamp with time zone      a moment in UTC, whose type bears the session's TimeZone, as DuckDB's does
    date, timestamp               'infinity' is the largest number, '-infinity' its negative, as DuckDB has it
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sqlml.errors import NotSupportedError
from sqlml.types import Column, Kind

if TYPE_CHECKING:
    import pyarrow as pa

    from sqlml.engines.postgres.forms import Form

NUMBERS = {
    16: "bool", 17: "bytea", 18: "char", 19: "name", 20: "int8", 21: "int2", 23: "int4", 25: "text", 26: "oid", 114: "json",
    700: "float4", 701: "float8", 705: "unknown", 790: "money", 1042: "bpchar", 1043: "varchar", 1082: "date", 1083: "time",
    1114: "timestamp", 1184: "timestamptz", 1186: "interval", 1560: "bit", 1562: "varbit",
    1700: "numeric", 2249: "record", 2950: "uuid", 3802: "jsonb",
}  # fmt: skip
"""The types that are known here by their numbers in ``pg_type``, which are the same in every server."""

ARRAYS = {
    1000: "bool", 1001: "bytea", 1003: "name", 1005: "int2", 1007: "int4", 1009: "text", 1014: "bpchar", 1015: "varchar",
    1016: "int8", 1021: "float4", 1022: "float8", 1028: "oid", 1115: "timestamp", 1182: "date", 1183: "time",
    1185: "timestamptz", 1187: "interval", 1231: "numeric", 2951: "uuid",
}  # fmt: skip
"""Arrays of them."""

_MODIFIED = (1700, 1042, 1043, 1231, 1014, 1015)
"""Of these the modifier is understood here: numeric's digits, lengths of characters."""

SQL_NAMES = {
    "int2": "smallint", "int4": "integer", "int8": "bigint", "float4": "real", "float8": "double precision", "bool": "boolean",
    "varchar": "character varying", "bpchar": "character", "char": '"char"', "varbit": "bit varying", "unknown": "text",
    "time": "time without time zone", "timetz": "time with time zone",
    "timestamp": "timestamp without time zone", "timestamptz": "timestamp with time zone",
}  # fmt: skip
"""Where SQL's name differs from the one in ``pg_type``."""

_OF_ANY_LENGTH = {"character": "bpchar", "bit": '"bit"'}
"""Without a length these would be of one character, one bit (format_type.c)."""

_KINDS: dict[str, Kind | None] = {
    "boolean": Kind.BOOLEAN,
    "date": Kind.DATE,
    "time without time zone": Kind.TIME,
    "timestamp without time zone": Kind.TIMESTAMP,
    "timestamp with time zone": Kind.TIMESTAMPTZ,
    **dict.fromkeys(("smallint", "integer", "bigint", "real", "double precision", "numeric"), Kind.NUMBER),
    **dict.fromkeys(("text", "character varying", "character", '"char"', "name", "uuid", "bit", "bit varying"), Kind.TEXT),
    **dict.fromkeys(_OF_ANY_LENGTH.values(), Kind.TEXT),
    **dict.fromkeys(("time with time zone", "interval", "bytea", "json", "jsonb", "xml", "inet", "cidr", "point")),
}
_LISTS = {Kind.NUMBER: Kind.NUMBERS, Kind.TEXT: Kind.TEXTS}

MONEY = (21, 4)  # no currency has more than four digits after the point (ISO 4217)

Convert = Callable[["pa.Array", str], "pa.Array"]


@dataclass(frozen=True)
class Field:
    """A column of a result as the server describes it: the number of its type, and that type's modifier, -1 for none."""

    name: str
    oid: int
    modifier: int


@dataclass(frozen=True)
class TypeInfo:
    """What the server's catalog says of a type with a modifier: its name in SQL, and ``pg_type``'s letters."""

    name: str
    type: str  # b base, c composite, d domain, e enum, r range
    category: str  # A array, S string, E enum, N number …
    element: str | None = None  # an array's element: its ``type``


@dataclass(frozen=True)
class ResultColumn:
    """A column of a result: what it is, what the server has to cast it to, how it is then read, and made ours.

    ``uncast`` is how it is read where nothing can be cast, None where that is not possible.
    """

    column: Column
    arrow: pa.DataType
    form: Form
    cast: str | None = None
    uncast: Form | None = None
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


def unknown_types(fields: Sequence[Field]) -> list[tuple[int, int]]:
    """The types and modifiers of a result that only the server can explain."""
    known = NUMBERS.keys() | ARRAYS.keys()
    return [(f.oid, f.modifier) for f in fields if f.oid not in known or (f.modifier >= 0 and f.oid not in _MODIFIED)]


def result_column(field: Field, infos: Mapping[tuple[int, int], TypeInfo], zone: str = "UTC") -> ResultColumn:
    """How a column is given; ``zone`` is the session's, which the type of moments bears."""
    info = infos.get((field.oid, field.modifier))
    sql_type = info.name if info is not None else _sql_type(field)
    if field.oid in ARRAYS:
        return _list(Column(field.name, sql_type, kind_of_type(sql_type)), ARRAYS[field.oid], zone)
    if field.oid in NUMBERS:
        return _known(Column(field.name, sql_type, kind_of_type(sql_type)), NUMBERS[field.oid], field.modifier, zone)
    if info is None:
        raise NotSupportedError(f"column {field.name} has a type that the server does not know (number {field.oid})")
    return _explained(field.name, info)


def _known(column: Column, name: str, modifier: int, zone: str) -> ResultColumn:
    import pyarrow as pa

    from sqlml.engines.postgres import forms, numerics

    if name == "numeric":
        return _numeric(column, modifier)
    if name == "money":
        precision, scale = MONEY
        convert = numerics.as_decimal(precision, scale)
        return ResultColumn(
            column, pa.decimal128(precision, scale), forms.TEXT, f"numeric({precision},{scale})::text", None, convert
        )
    if name in ("bit", "char", "record", "uuid", "varbit"):
        return _cast(column, "text")
    return _plain(column, _form(name, zone))


def _form(name: str, zone: str) -> Form:
    """The form of a type that is read as it is."""
    from sqlml.engines.postgres import forms

    if name == "timestamptz":
        return forms.timestamptz(zone)
    return {
        "bool": forms.BOOLEAN, "int2": forms.INT2, "int4": forms.INT4, "int8": forms.INT8, "float4": forms.FLOAT4,
        "float8": forms.FLOAT8, "oid": forms.OID, "date": forms.DATE, "time": forms.TIME, "timestamp": forms.TIMESTAMP,
        "interval": forms.INTERVAL, "bytea": forms.BYTEA, "jsonb": forms.JSONB,
    }.get(name, forms.TEXT)  # fmt: skip


def _plain(column: Column, form: Form) -> ResultColumn:
    return ResultColumn(column, form.arrow, form)


def _cast(column: Column, to: str) -> ResultColumn:
    from sqlml.engines.postgres import forms

    form = forms.lists_of(forms.TEXT) if to == "text[]" else forms.TEXT
    return ResultColumn(column, form.arrow, form, to)


def _numeric(column: Column, modifier: int) -> ResultColumn:
    """Exact where Arrow can be: up to 18 digits read as they are, up to 38 by way of their texts."""
    import pyarrow as pa

    from sqlml.engines.postgres import forms, numerics

    precision, scale = numerics.digits_of(modifier) if modifier >= 0 else (0, 0)
    if 0 < precision <= numerics.FAST and scale <= numerics.FAST_SCALE:
        return _plain(column, numerics.decimals(precision, scale))
    exact = 0 < precision <= numerics.EXACT
    arrow = pa.decimal128(precision, scale) if exact else pa.float64()
    convert = numerics.as_decimal(precision, scale) if exact else numerics.as_number
    return ResultColumn(column, arrow, forms.TEXT, "text", numerics.slow_texts(), convert)


def _list(column: Column, item: str, zone: str) -> ResultColumn:
    import pyarrow as pa

    from sqlml.engines.postgres import forms, numerics

    if item == "numeric":
        slow = forms.lists_of(numerics.slow_texts())
        arrow = pa.list_(pa.float64())
        return ResultColumn(column, arrow, forms.lists_of(forms.TEXT), "text[]", slow, numerics.in_lists)
    return _cast(column, "text[]") if item == "uuid" else _plain(column, forms.lists_of(_form(item, zone)))


def _explained(name: str, info: TypeInfo) -> ResultColumn:
    from sqlml.engines.postgres import forms

    if info.category == "A":
        column = Column(name, info.name, Kind.TEXTS if info.element == "e" else None)
        return _plain(column, forms.lists_of(forms.TEXT)) if info.element == "e" else _cast(column, "text[]")
    if info.type == "e":
        return _plain(Column(name, info.name, Kind.TEXT), forms.TEXT)
    column = Column(name, info.name, Kind.TEXT if info.category == "S" else kind_of_type(info.name))
    return _cast(column, "text")


def arrow_zone(name: str) -> str:
    """A time zone of the server's, as Arrow and Python know it; ``SET TIME ZONE 2`` is ``<+02>-02`` to the server."""
    from zoneinfo import ZoneInfo

    if (offset := re.fullmatch(r"<([+-]\d\d)(?::?(\d\d))?>.*", name)) is not None:
        return f"{offset[1]}:{offset[2] or '00'}"
    if name.upper() in _UTC:
        return "UTC"
    try:
        return ZoneInfo(name).key
    except (KeyError, ValueError, OSError):  # of the server's own files
        return "UTC"


_UTC = ("UTC", "ETC/UTC", "GMT", "ETC/GMT", "ZULU", "ETC/ZULU", "UCT", "ETC/UCT", "UNIVERSAL", "ETC/UNIVERSAL")


def _sql_type(field: Field) -> str:
    """A type as PostgreSQL writes it."""
    from sqlml.engines.postgres import numerics

    if field.oid in ARRAYS:
        name = ARRAYS[field.oid]
        return _sql_type(replace(field, oid=next(oid for oid, known in NUMBERS.items() if known == name))) + "[]"
    name = SQL_NAMES.get(NUMBERS[field.oid], NUMBERS[field.oid])
    if field.modifier < 0:
        return _OF_ANY_LENGTH.get(name, name)
    if name == "numeric":
        precision, scale = numerics.declared(field.modifier)
        return f"numeric({precision},{scale})"
    return f"{name}({field.modifier - 4})"


def exact(field: ResultColumn, *, is_used: bool) -> ResultColumn:
    """The column for rows that go back into the database: its text where the Arrow form leaves something out.

    A numeric without limits is a number to a model as a text, too; an array that ``is_used`` has to stay one.
    """
    import pyarrow as pa

    from sqlml.engines.postgres import forms

    sql_type = field.column.sql_type
    is_numeric = sql_type.startswith("numeric") and field.arrow == pa.float64()
    if is_numeric or (sql_type.endswith("[]") and not is_used):
        return replace(field, arrow=pa.string(), form=forms.TEXT, cast="text", convert=None)
    return field


def uncast(fields: Sequence[ResultColumn]) -> list[ResultColumn]:
    """The columns read as they are.  ``NotSupportedError`` for one that the server would have to cast."""
    return [replace(field, form=_uncast(field), cast=None) for field in fields]


def _uncast(field: ResultColumn) -> Form:
    if field.cast is None:
        return field.form
    if field.uncast is None:
        name = field.column.name
        raise NotSupportedError(
            f"column {name} has the type {field.column.sql_type}, which has no Arrow form", hint=f"cast it, as in {name}::text"
        )
    return field.uncast
