"""PostgreSQL's types as results and parameters bear them: numbers, sizes, modifiers; and which of them a DuckDB type is.

The numbers are those of ``pg_type`` in every server (src/include/catalog/pg_type.dat).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cache

from sqlml.wire.errors import Refused


@dataclass(frozen=True)
class WireType:
    """A type of PostgreSQL's: its name in ``pg_type``, number, width (-1: any), modifier, and its elements if it is an array."""

    name: str
    oid: int
    size: int = -1
    modifier: int = -1
    element: WireType | None = None


BOOL = WireType("bool", 16, 1)
BYTEA = WireType("bytea", 17)
NAME = WireType("name", 19, 64)
INT8 = WireType("int8", 20, 8)
INT2 = WireType("int2", 21, 2)
INT4 = WireType("int4", 23, 4)
TEXT = WireType("text", 25)
OID = WireType("oid", 26, 4)
JSON = WireType("json", 114)
FLOAT4 = WireType("float4", 700, 4)
FLOAT8 = WireType("float8", 701, 8)
DATE = WireType("date", 1082, 4)
TIME = WireType("time", 1083, 8)
TIMESTAMP = WireType("timestamp", 1114, 8)
TIMESTAMPTZ = WireType("timestamptz", 1184, 8)
INTERVAL = WireType("interval", 1186, 16)
TIMETZ = WireType("timetz", 1266, 12)
VARBIT = WireType("varbit", 1562)
NUMERIC = WireType("numeric", 1700)
UUID = WireType("uuid", 2950, 16)

ARRAY_OIDS = {
    16: 1000, 17: 1001, 19: 1003, 20: 1016, 21: 1005, 23: 1007, 25: 1009, 26: 1028, 114: 199, 700: 1021, 701: 1022, 1082: 1182,
    1083: 1183, 1114: 1115, 1184: 1185, 1186: 1187, 1266: 1270, 1562: 1563, 1700: 1231, 2950: 2951, 1043: 1015, 1042: 1014,
}  # fmt: skip
"""The number of the type of arrays of a type."""

SCALARS = {
    "BOOLEAN": BOOL, "TINYINT": INT2, "UTINYINT": INT2, "SMALLINT": INT2, "USMALLINT": INT4, "INTEGER": INT4, "UINTEGER": INT8,
    "BIGINT": INT8, "UBIGINT": NUMERIC, "HUGEINT": NUMERIC, "UHUGEINT": NUMERIC, "BIGNUM": NUMERIC, "FLOAT": FLOAT4,
    "DOUBLE": FLOAT8, "VARCHAR": TEXT, "JSON": JSON, "BLOB": BYTEA, "UUID": UUID, "DATE": DATE, "TIME": TIME, "TIME_NS": TIME,
    "TIME WITH TIME ZONE": TIMETZ, "TIMESTAMP": TIMESTAMP, "TIMESTAMP_S": TIMESTAMP, "TIMESTAMP_MS": TIMESTAMP,
    "TIMESTAMP_NS": TIMESTAMP, "TIMESTAMP WITH TIME ZONE": TIMESTAMPTZ, "INTERVAL": INTERVAL, "BIT": VARBIT, "NULL": TEXT,
    "OID": OID,
}  # fmt: skip

_DECIMAL = re.compile(r"DECIMAL\((\d+),\s*(\d+)\)")
_NESTED = ("STRUCT", "MAP", "UNION", "VARIANT")

DUCKDB_NAMES = {
    16: "BOOLEAN", 17: "BLOB", 18: "VARCHAR", 19: "VARCHAR", 20: "BIGINT", 21: "SMALLINT", 23: "INTEGER", 25: "VARCHAR",
    26: "BIGINT", 114: "JSON", 700: "FLOAT", 701: "DOUBLE", 1042: "VARCHAR", 1043: "VARCHAR", 1082: "DATE", 1083: "TIME",
    1114: "TIMESTAMP", 1184: "TIMESTAMP WITH TIME ZONE", 1186: "INTERVAL", 1266: "TIME WITH TIME ZONE", 1562: "BIT",
    1700: "DECIMAL(38, 10)", 2205: "VARCHAR", 2950: "UUID", 3802: "JSON",
} | dict.fromkeys(ARRAY_OIDS.values(), "")  # fmt: skip
"""DuckDB's name of the type of a parameter that a client gives the number of."""
for _oid, _list in ARRAY_OIDS.items():
    DUCKDB_NAMES[_list] = f"{DUCKDB_NAMES[_oid]}[]"


@cache
def wire_type(sql_type: str) -> WireType:
    """What a column of a DuckDB type is to PostgreSQL's clients: ``DECIMAL(10,2)`` is a numeric, a struct is json."""
    name = sql_type.upper()
    if name.endswith("]"):
        return _array_of(wire_type(sql_type[: sql_type.rindex("[")]))
    if name.startswith(_NESTED):
        return JSON
    if name == "DECIMAL":
        return NUMERIC
    decimal = _DECIMAL.fullmatch(name)
    if decimal:
        return replace(NUMERIC, modifier=((int(decimal[1]) << 16) | int(decimal[2])) + 4)
    return SCALARS.get(name.strip('"'), TEXT)


def _array_of(element: WireType) -> WireType:
    """Lists of lists and of structs are json: PostgreSQL's arrays are rectangular."""
    if element.element is not None or element is JSON:
        return JSON
    return WireType(f"_{element.name}", ARRAY_OIDS[element.oid], -1, element.modifier, element)


def duckdb_type(oid: int) -> str:
    """DuckDB's name of a parameter's type; an unknown one is text."""
    return DUCKDB_NAMES.get(oid, "VARCHAR")


def format_code(code: int) -> bool:
    """Whether a format code means binary."""
    if code not in (0, 1):
        raise Refused(f"there is no format {code}: 0 is text, 1 is binary", "08P01")
    return code == 1
