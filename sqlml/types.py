"""The kinds of column that a model understands, and how SQL and Arrow name them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa


class Kind(StrEnum):
    """What a column is to a model.  Every SQL type is one of these or is refused by name."""

    NUMBER = "number"  # integers, floats, decimals
    BOOLEAN = "boolean"
    TEXT = "text"  # strings, enums, UUIDs: categories
    DATE = "date"
    TIME = "time"
    TIMESTAMP = "timestamp"
    TIMESTAMPTZ = "timestamptz"


SQL_TYPE: dict[Kind, str] = {
    Kind.NUMBER: "DOUBLE",
    Kind.BOOLEAN: "BOOLEAN",
    Kind.TEXT: "VARCHAR",
    Kind.DATE: "DATE",
    Kind.TIME: "TIME",
    Kind.TIMESTAMP: "TIMESTAMP",
    Kind.TIMESTAMPTZ: "TIMESTAMP WITH TIME ZONE",
}
"""The SQL type that a value is cast to before a model sees it."""


class Task(StrEnum):
    """What an algorithm learns."""

    CLASSIFICATION = "classification"
    REGRESSION = "regression"
    CLUSTERING = "clustering"


@dataclass(frozen=True)
class Column:
    """A column of a query: its name, the database's name for its type, and what it is to a model (None: nothing)."""

    name: str
    sql_type: str
    kind: Kind | None


def label_text(value: Any) -> str:
    """A class as the database writes it: ``yes``, ``true``, ``3``, ``0.5``."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def arrow_type(kind: Kind) -> pa.DataType:
    """The Arrow type in which values of a kind reach a model."""
    import pyarrow as pa

    return {
        Kind.NUMBER: pa.float64(),
        Kind.BOOLEAN: pa.bool_(),
        Kind.TEXT: pa.string(),
        Kind.DATE: pa.date32(),
        Kind.TIME: pa.time64("us"),
        Kind.TIMESTAMP: pa.timestamp("us"),
        Kind.TIMESTAMPTZ: pa.timestamp("us", "UTC"),
    }[kind]


def kind_of_arrow(data_type: pa.DataType) -> Kind | None:
    """What an Arrow column is to a model; None for nested, binary and interval types."""
    import pyarrow.types as t

    if t.is_dictionary(data_type):
        return kind_of_arrow(data_type.value_type)
    if t.is_boolean(data_type):
        return Kind.BOOLEAN
    if t.is_integer(data_type) or t.is_floating(data_type) or t.is_decimal(data_type) or t.is_null(data_type):
        return Kind.NUMBER
    if t.is_string(data_type) or t.is_large_string(data_type) or t.is_string_view(data_type):
        return Kind.TEXT
    if t.is_date(data_type):
        return Kind.DATE
    if t.is_time(data_type):
        return Kind.TIME
    if t.is_timestamp(data_type):
        return Kind.TIMESTAMPTZ if data_type.tz else Kind.TIMESTAMP
    return None
