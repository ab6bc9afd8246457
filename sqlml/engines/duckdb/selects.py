"""Queries as DuckDB reads them: a text that comes again is parsed once, and where it gave few rows it takes a shorter road.

DuckDB's Arrow comes by a relation, which binds a query once to tell its columns and once more to run it, and by a collector of
batches: a third of a millisecond and more.  A few plain values are quicker as Python's own.  Where more rows come than the last
time, they are read on so, which is slow; from then on the query takes the long road.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import duckdb
from sqlml_dialect.tokens import words

from sqlml.contracts import FewRows, Stream
from sqlml.engines.duckdb.errors import engine_error
from sqlml.engines.duckdb.results import columns_of
from sqlml.kept_texts import KeptTexts
from sqlml.types import Column

if TYPE_CHECKING:
    import pyarrow as pa

FEW = 64
"""Fewer rows than this come as Python's values …"""
_MORE = 2048
"""… and so many at a time, where there are more after all."""
_PLAIN = words("BOOLEAN TINYINT SMALLINT INTEGER BIGINT UTINYINT USMALLINT UINTEGER UBIGINT FLOAT DOUBLE VARCHAR")
"""DuckDB's types whose values are the same by way of Python."""
_BEGIN = {duckdb.StatementType.TRANSACTION, duckdb.StatementType.MULTI}
_CHANGE_PARSING = {getattr(duckdb.StatementType, name) for name in ("SET", "VARIABLE_SET", "PRAGMA", "LOAD", "MULTI")}


@dataclass
class Select:
    """A query.  ``short``: all that it gave so far were few rows of plain values, of these columns; None until it was read to its
    end for the first time.
    """

    statement: duckdb.Statement
    short: bool | None = None
    columns: tuple[Column, ...] = ()
    schema: pa.Schema | None = None
    types: Sequence[pa.DataType] = ()
    described: Sequence[Any] = ()

    def note_result(self, columns: tuple[Column, ...], schema: pa.Schema, rows: int) -> None:
        """Note what it gave by Arrow, read to the end."""
        plain = all(column.sql_type in _PLAIN for column in columns)
        self.short = self.short is not False and plain and rows < FEW
        self.columns, self.schema, self.types = columns, schema, schema.types

    def has_columns(self, described: Sequence[Any]) -> bool:
        """Whether the columns are still those: a table may be another by now."""
        if described != self.described:
            if columns_of([d[0] for d in described], [d[1] for d in described]) != self.columns:
                return False
            self.described = described
        return True


class Selects:
    """Those of one connection."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        self.kept: KeptTexts[Select] = KeptTexts()
        self.begun = False
        """Whether a statement has come by that may have begun a transaction."""

    def of(self, text: str) -> Select | None:
        """A text as DuckDB reads it, where it is one query; kept as long as no statement runs that may change how it is read."""
        found = self.kept.get(text)
        if found is None:
            statements = self._connection.extract_statements(text)
            kinds = {statement.type for statement in statements}
            if len(statements) != 1 or kinds != {duckdb.StatementType.SELECT}:
                self.begun = self.begun or bool(kinds & _BEGIN)
                if kinds & _CHANGE_PARSING:
                    self.kept.forget()
                return None
            found = Select(statements[0])
            self.kept.put(text, text, found)
        return found

    def run_short(self, select: Select, text: str, values: Any) -> Stream | None:
        """Run a query that gave few rows so far.  None where it has other columns by now: then nothing was fetched of it."""
        connection = self._connection.execute(select.statement, values)
        if not select.has_columns(connection.description or []):
            connection.abort()
            select.short = None
            return None
        rows = connection.fetchmany(FEW)
        if len(rows) < FEW:
            return Stream(select.columns, select.schema, FewRows(rows, partial(_batch, select, rows)))
        select.short = False
        rest = self._read_on(text, select, _batch(select, rows))
        next(rest)  # begun, it frees the connection however it is left
        return Stream(select.columns, select.schema, rest)

    def _read_on(self, text: str, select: Select, first: pa.RecordBatch) -> Generator[pa.RecordBatch, None, None]:
        """All that is left of the connection's result, the first batch twice.  Whoever stops early closes it: until then the
        connection is taken.
        """
        try:
            yield first
            yield first
            while rows := self._connection.fetchmany(_MORE):
                yield _batch(select, rows)
        except duckdb.Error as error:
            raise engine_error(error, text) from None
        finally:
            self._connection.abort()


def _batch(select: Select, rows: Sequence[tuple[Any, ...]]) -> pa.RecordBatch:
    import pyarrow as pa

    arrays = [pa.array(values, kind) for values, kind in zip(zip(*rows, strict=True), select.types, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=select.schema)
