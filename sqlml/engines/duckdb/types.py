"""DuckDB's types, as a model sees them."""

from __future__ import annotations

from sqlml.types import Kind

_KINDS = {
    "BOOLEAN": Kind.BOOLEAN,
    "VARCHAR": Kind.TEXT,
    "UUID": Kind.TEXT,
    "DATE": Kind.DATE,
    "TIME": Kind.TIME,
    "TIMESTAMP": Kind.TIMESTAMP,
    "TIMESTAMP_S": Kind.TIMESTAMP,
    "TIMESTAMP_MS": Kind.TIMESTAMP,
    "TIMESTAMP_NS": Kind.TIMESTAMP,
    "TIMESTAMP WITH TIME ZONE": Kind.TIMESTAMPTZ,
} | dict.fromkeys(
    ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "UHUGEINT",
     "FLOAT", "DOUBLE", '"NULL"', "NULL", "BIGNUM"),
    Kind.NUMBER,
)  # fmt: skip


_LISTS = {Kind.NUMBER: Kind.NUMBERS, Kind.TEXT: Kind.TEXTS}


def kind_of_type(sql_type: str) -> Kind | None:
    """What a column of a DuckDB type is to a model; None for structs, lists of lists, binary and interval types."""
    name = sql_type.upper()
    if name.endswith("]"):
        item = kind_of_type(name[: name.rindex("[")])
        return None if item is None else _LISTS.get(item)
    if name.startswith(("STRUCT", "MAP", "UNION")):
        return None
    if name.startswith("DECIMAL"):
        return Kind.NUMBER
    return Kind.TEXT if name.startswith("ENUM") else _KINDS.get(name)
