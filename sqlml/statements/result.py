"""What a statement gives back."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlml.types import Column, kind_of_arrow

if TYPE_CHECKING:
    import pyarrow as pa

    from sqlml.contracts import Stream


@dataclass(frozen=True)
class Result:
    """Columns and rows (as Arrow batches that may still be on their way), a count, and a line to read after them.

    ``rowcount`` counts changed rows, -1 where there is nothing to count; ``columns`` is None where there is no result set.
    """

    columns: tuple[Column, ...] | None = None
    schema: pa.Schema | None = None
    batches: Generator[pa.RecordBatch, None, None] | None = None
    rowcount: int = -1
    footer: str | None = None


def stream_result(stream: Stream, footer: str | None = None) -> Result:
    """A result of the database."""
    if not stream.has_rows:
        return Result(rowcount=stream.rowcount, footer=footer)
    return Result(stream.columns, stream.schema, stream.batches, footer=footer)


_SQL_NAMES = {"string": "VARCHAR", "int64": "BIGINT", "double": "DOUBLE", "bool": "BOOLEAN", "timestamp[us]": "TIMESTAMP"}


def rows_result(rows: Sequence[Mapping[str, Any]], columns: Sequence[tuple[str, str]], footer: str | None = None) -> Result:
    """A result of our own.  ``columns``: (name, Arrow type's name) such as ``("rows", "int64")``."""
    import pyarrow as pa

    schema = pa.schema([pa.field(name, pa.type_for_alias(alias)) for name, alias in columns])
    table = pa.Table.from_pylist([dict(row) for row in rows], schema=schema)
    return Result(own_columns(columns), schema, (batch for batch in table.to_batches()), footer=footer)


def own_columns(columns: Sequence[tuple[str, str]]) -> tuple[Column, ...]:
    """The columns of such a result."""
    import pyarrow as pa

    types = ((name, pa.type_for_alias(alias)) for name, alias in columns)
    return tuple(Column(name, _SQL_NAMES.get(str(kind), str(kind).upper()), kind_of_arrow(kind)) for name, kind in types)
