"""Queries as DuckDB reads them: a text that comes again is parsed once, and where it gave few rows it takes a shorter road.

DuckDB's Arrow comes by a relation, which binds a query once to tell its columns and once more to run it, and by a collector of
batches: a third of a millisecond and more.  A few plain values are quicker as Python's own.  Whether there are few is only known
behind the first ones: a query of which more come has given nobody anything yet, and runs again by Arrow, now and ever after.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import duckdb

from sqlml.contracts import Stream
from sqlml.engines.duckdb.results import columns_of, whole
from sqlml.kept_texts import KeptTexts
from sqlml.types import Column

if TYPE_CHECKING:
    import pyarrow as pa

FEW = 64
"""Rows that come as Python's values, at most."""
_PLAIN = {
    "BOOLEAN": "bool", "TINYINT": "int8", "SMALLINT": "int16", "INTEGER": "int32", "BIGINT": "int64",
    "UTINYINT": "uint8", "USMALLINT": "uint16", "UINTEGER": "uint32", "UBIGINT": "uint64",
    "FLOAT": "float32", "DOUBLE": "float64", "VARCHAR": "string",
}  # fmt: skip
"""DuckDB's types whose values are the same by way of Python, and Arrow's names for them."""
_CHANGE_PARSING = {getattr(duckdb.StatementType, name) for name in ("SET", "VARIABLE_SET", "PRAGMA", "LOAD", "MULTI")}


@dataclass
class Select:
    """A query; ``few``: it gives few rows of plain values, as far as is known; ``many``: it has given more, and may again."""

    statement: duckdb.Statement
    few: bool = False
    many: bool = False
    described: Sequence[Any] = ()
    columns: tuple[Column, ...] = ()
    schema: pa.Schema | None = None

    def gave(self, columns: Sequence[Column], rows: int) -> None:
        """Note what it gave, read to the end."""
        self.many = self.many or rows >= FEW
        self.few = not self.many and all(column.sql_type in _PLAIN for column in columns)

    def is_described(self, described: Sequence[Any]) -> None:
        """Note what DuckDB tells of its columns: a table may be another by now."""
        if described == self.described:
            return
        import pyarrow as pa

        self.described = described
        self.columns = columns_of([d[0] for d in described], [d[1] for d in described])
        self.few = all(column.sql_type in _PLAIN for column in self.columns)
        if self.few:
            self.schema = pa.schema([(c.name, pa.type_for_alias(_PLAIN[c.sql_type])) for c in self.columns])


class Selects:
    """Those of one connection."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        self.kept: KeptTexts[Select] = KeptTexts()

    def of(self, text: str) -> Select | None:
        """A text as DuckDB reads it, where it is one query; kept as long as no statement runs that may change how it is read."""
        found = self.kept.get(text)
        if found is None:
            statements = self._connection.extract_statements(text)
            kinds = {statement.type for statement in statements}
            if len(statements) != 1 or kinds != {duckdb.StatementType.SELECT}:
                if kinds & _CHANGE_PARSING:
                    self.kept.forget()
                return None
            found = Select(statements[0])
            self.kept.put(text, text, found)
        return found

    def run_for_few(self, select: Select, values: Any) -> Stream | None:
        """Run a query that gave few rows so far.  None where that is over: what came is let go, and it is to run again."""
        connection = self._connection.execute(select.statement, values)
        select.is_described(connection.description or [])
        rows = connection.fetchmany(FEW) if select.few else []
        select.gave(select.columns, len(rows))
        if not select.few:
            connection.abort()
            return None
        return Stream(select.columns, select.schema, whole(*([_batch(select.schema, rows)] if rows else [])))


def _batch(schema: pa.Schema, rows: Sequence[tuple[Any, ...]]) -> pa.RecordBatch:
    import pyarrow as pa

    arrays = [pa.array(values, kind) for values, kind in zip(zip(*rows, strict=True), schema.types, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)
