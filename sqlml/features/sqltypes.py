"""DuckDB's types as a model sees them: kinds, and the casts that lead there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlml_dialect.tokens import words

from sqlml.features.fitted.base import Takes, quoted
from sqlml.types import SQL_TYPE, Kind

_NUMBERS = words(
    """
    tinyint smallint integer bigint hugeint utinyint usmallint uinteger ubigint uhugeint float double decimal bignum null
    """
)
_TEXTS = frozenset(("varchar", "enum", "uuid"))
_KINDS = {
    "boolean": Kind.BOOLEAN,
    "date": Kind.DATE,
    "time": Kind.TIME,
    "time_ns": Kind.TIME,
    "time with time zone": Kind.TIME,
    "timestamp": Kind.TIMESTAMP,
    "timestamp_s": Kind.TIMESTAMP,
    "timestamp_ms": Kind.TIMESTAMP,
    "timestamp_ns": Kind.TIMESTAMP,
    "timestamp with time zone": Kind.TIMESTAMPTZ,
}


def kind_of(sql_type: Any) -> Kind | None:
    """What a DuckDB type is to a model; None for structs, maps, intervals, bytes and the like."""
    name = sql_type.id
    if name in _NUMBERS:
        return Kind.NUMBER
    if name in _TEXTS:
        return Kind.TEXT
    if name in ("list", "array"):
        return {Kind.NUMBER: Kind.NUMBERS, Kind.TEXT: Kind.TEXTS}.get(kind_of(element(sql_type)) or Kind.DATE)
    return _KINDS.get(name)


def element(sql_type: Any) -> Any:
    """The type of a list's elements."""
    return dict(sql_type.children)["child"]


SPARSE = 'STRUCT("index" BIGINT, "value" DOUBLE)[]'
"""BigQuery's sparse vector."""


def is_sparse(sql_type: Any) -> bool:
    """Whether a type is a list of STRUCT(index, value), both numbers."""
    if sql_type.id != "list" or element(sql_type).id != "struct":
        return False
    inner = fields(element(sql_type))
    return [name.lower() for name, _ in inner] == ["index", "value"] and all(kind_of(t) is Kind.NUMBER for _, t in inner)


def fields(sql_type: Any) -> list[tuple[str, Any]]:
    """The fields of a STRUCT."""
    return list(sql_type.children)


def leaves(sql_type: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The columns that a type gives: itself, or the fields of a STRUCT, inner ones too."""
    if sql_type.id == "struct":
        for name, inner in fields(sql_type):
            yield from leaves(inner, (*path, name))
    else:
        yield path, sql_type


def canonical_type(sql_type: Any) -> str:
    """The type that values are cast to before a model sees them; raises ``KeyError`` where there is none."""
    if sql_type.id == "struct":
        return f"STRUCT({', '.join(f'{quoted(name)} {canonical_type(inner)}' for name, inner in fields(sql_type))})"
    kind = kind_of(sql_type)
    if kind is None:
        raise KeyError(str(sql_type))
    return SQL_TYPE[kind]


def argument_type(sql_type: Any, takes: Takes) -> str | None:
    """The type that a function's argument is cast to; None where it does not take such values."""
    kind, name = kind_of(sql_type), sql_type.id
    is_word = kind in (Kind.TEXT, Kind.BOOLEAN) or (kind is Kind.NUMBER and name not in ("float", "double", "decimal"))
    if takes is Takes.NUMBER:
        return "DOUBLE" if kind is Kind.NUMBER else None
    if takes is Takes.TEXT:
        return "VARCHAR" if is_word else None
    if takes is Takes.NUMBER_OR_TEXT:
        return {Kind.NUMBER: "DOUBLE", Kind.TEXT: "VARCHAR"}.get(kind or Kind.DATE)
    if takes in (Takes.NUMBERS, Takes.TEXTS):
        return _list_type(sql_type, takes)
    if name != "struct":
        return None
    inner = "DOUBLE" if takes is Takes.NUMBER_FIELDS else "VARCHAR"
    for _, part in fields(sql_type):
        found = kind_of(part)
        if (found is not Kind.NUMBER) if inner == "DOUBLE" else (found in (None, Kind.NUMBERS, Kind.TEXTS)):
            return None
    return f"STRUCT({', '.join(f'{quoted(n)} {inner}' for n, _ in fields(sql_type))})"


def _list_type(sql_type: Any, takes: Takes) -> str | None:
    if sql_type.id == "null":
        return "DOUBLE[]" if takes is Takes.NUMBERS else "VARCHAR[]"
    if sql_type.id not in ("list", "array"):
        return None
    inner = kind_of(element(sql_type))
    if takes is Takes.NUMBERS:
        return "DOUBLE[]" if inner is Kind.NUMBER else None
    is_word = inner in (Kind.TEXT, Kind.BOOLEAN) or (inner is Kind.NUMBER and element(sql_type).id not in ("float", "double"))
    return "VARCHAR[]" if is_word else None
