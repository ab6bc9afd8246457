"""DuckDB's types as SQLAlchemy's."""

from __future__ import annotations

import re
from typing import Any

from sqlalchemy import types
from sqlalchemy.dialects import postgresql

_NAMES: dict[str, Any] = {
    "BOOLEAN": types.BOOLEAN, "TINYINT": types.SMALLINT, "SMALLINT": types.SMALLINT, "INTEGER": types.INTEGER,
    "BIGINT": types.BIGINT, "UTINYINT": types.SMALLINT, "USMALLINT": types.INTEGER, "UINTEGER": types.BIGINT,
    "UBIGINT": types.NUMERIC(20, 0),
    "HUGEINT": types.NUMERIC(38, 0), "UHUGEINT": types.NUMERIC(38, 0), "FLOAT": types.REAL, "DOUBLE": types.DOUBLE_PRECISION,
    "VARCHAR": types.VARCHAR, "BLOB": types.BLOB, "BIT": types.VARCHAR, "DATE": types.DATE, "TIME": types.TIME,
    "TIME WITH TIME ZONE": types.TIME(timezone=True), "TIMESTAMP": types.TIMESTAMP, "TIMESTAMP_S": types.TIMESTAMP,
    "TIMESTAMP_MS": types.TIMESTAMP, "TIMESTAMP_NS": types.TIMESTAMP, "TIMESTAMP WITH TIME ZONE": types.TIMESTAMP(timezone=True),
    "INTERVAL": postgresql.INTERVAL, "UUID": types.UUID, "JSON": types.JSON,
}  # fmt: skip
_DECIMAL = re.compile(r"DECIMAL\((\d+),\s*(\d+)\)")
_ENUM = re.compile(r"ENUM\((.*)\)", re.DOTALL)


def sqlalchemy_type(name: str) -> types.TypeEngine[Any]:
    """The type that reads and writes a column of DuckDB's type; ``NullType`` for structs, maps and unions."""
    if name.endswith("]"):
        item = sqlalchemy_type(name[: name.rindex("[")])
        return postgresql.ARRAY(item.item_type if isinstance(item, postgresql.ARRAY) else item)
    if match := _DECIMAL.fullmatch(name):
        return types.NUMERIC(int(match[1]), int(match[2]))
    if match := _ENUM.fullmatch(name):
        return types.Enum(*(part.replace("''", "'") for part in re.findall(r"'((?:[^']|'')*)'", match[1])), native_enum=False)
    found: types.TypeEngine[Any] = types.to_instance(_NAMES.get(name, types.NullType))
    return found
