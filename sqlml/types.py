"""The kinds of column that a model understands, and how SQL and Arrow name them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import cache
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
    NUMBERS = "numbers"  # lists of numbers, all of one length: a vector
    TEXTS = "texts"  # lists of strings: a set of categories


SQL_TYPE: dict[Kind, str] = {
    Kind.NUMBER: "DOUBLE",
    Kind.BOOLEAN: "BOOLEAN",
    Kind.TEXT: "VARCHAR",
    Kind.DATE: "DATE",
    Kind.TIME: "TIME",
    Kind.TIMESTAMP: "TIMESTAMP",
    Kind.TIMESTAMPTZ: "TIMESTAMP WITH TIME ZONE",
    Kind.NUMBERS: "DOUBLE[]",
    Kind.TEXTS: "VARCHAR[]",
}
"""The SQL type that a value is cast to before a model sees it."""


class Task(StrEnum):
    """What an algorithm learns."""

    CLASSIFICATION = "classification"
    REGRESSION = "regression"
    CLUSTERING = "clustering"
    PROJECTION = "projection"  # new columns in place of many: principal components
    ANOMALY = "anomaly"  # rows unlike the others
    TRANSFORM = "transform"  # nothing is learnt but the features themselves
    GENERATION = "text generation"  # a language model: a text that goes on from another


UNSUPERVISED = frozenset({Task.CLUSTERING, Task.PROJECTION, Task.ANOMALY, Task.TRANSFORM})
"""The tasks without a target."""
UNMEASURED = {Task.TRANSFORM: "only transforms", Task.GENERATION: "writes texts"}
"""The tasks whose answers have no figures, and what their models do."""


@dataclass(frozen=True)
class Column:
    """A column of a query: its name, the database's name for its type, and what it is to a model (None: nothing)."""

    name: str
    sql_type: str
    kind: Kind | None


BOOLEAN_WORDS = dict.fromkeys(("true", "t", "yes", "y", "1"), True) | dict.fromkeys(("false", "f", "no", "n", "0"), False)
"""How a class that is a boolean may be written: DuckDB reads a CSV column of yes and no as booleans."""


def label_text(value: Any) -> str:
    """A class as the database writes it: ``yes``, ``true``, ``3``, ``0.5``."""
    return str(value).lower() if isinstance(value, bool) else str(value)


@cache
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
        Kind.NUMBERS: pa.list_(pa.float64()),
        Kind.TEXTS: pa.list_(pa.string()),
    }[kind]


def kind_of_arrow(data_type: pa.DataType) -> Kind | None:
    """What an Arrow column is to a model; None for structs, binary and interval types."""
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
    if t.is_list(data_type) or t.is_large_list(data_type) or t.is_fixed_size_list(data_type):
        return {Kind.NUMBER: Kind.NUMBERS, Kind.TEXT: Kind.TEXTS}.get(kind_of_arrow(data_type.value_type) or Kind.DATE)
    return None


def sql_type(data_type: pa.DataType) -> str:
    """The SQL type of an Arrow type: ``DOUBLE``, ``STRUCT("label" VARCHAR, "prob" DOUBLE)[]``, ``MAP(VARCHAR, DOUBLE)``."""
    import pyarrow.types as t

    if t.is_struct(data_type):
        return f"STRUCT({', '.join(f'{_quoted(f.name)} {sql_type(f.type)}' for f in data_type)})"
    if t.is_map(data_type):
        return f"MAP({sql_type(data_type.key_type)}, {sql_type(data_type.item_type)})"
    if t.is_list(data_type) or t.is_large_list(data_type) or t.is_fixed_size_list(data_type):
        return f"{sql_type(data_type.value_type)}[]"
    if t.is_integer(data_type):
        return "BIGINT"
    kind = kind_of_arrow(data_type)
    if kind is None:
        raise TypeError(f"no SQL type for {data_type}")
    return SQL_TYPE[kind]


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
