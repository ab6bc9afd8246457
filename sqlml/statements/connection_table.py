"""A table of a connection that is copied into the database for one statement: the columns and rows that the statement needs."""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from sqlml.binder.pushed import Filter, Mark
from sqlml.binder.remote_tables import RemoteTable, table_text
from sqlml.contracts import Engine, Stream
from sqlml.errors import Error
from sqlml.statements.places import Places
from sqlml.types import Column, Kind

if TYPE_CHECKING:
    import pyarrow as pa

_OWN = ("postgres", "spark")
"""Engines whose booleans, dates and floating-point numbers are SQL's; those behind SQLAlchemy differ."""
_EXACT = re.compile(r"(small|tiny|big)?int(eger)?\b|decimal|numeric")
_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_TIMESTAMP = re.compile(rf"{_DATE.pattern}( \d\d:\d\d(:\d\d(\.\d{{1,6}})?)?)?")


@dataclass(frozen=True)
class ConnectionTable:
    """A table of a connection, for a query that runs at home; ``source`` is the text that names it.

    ``names``: the columns that are needed are among these, in lower case; None: all are.  ``filters``: every row that is needed
    passes them.
    """

    table: RemoteTable
    places: Places
    source: str
    names: frozenset[str] | None = None
    filters: tuple[Filter, ...] = ()

    def empty(self, parameters: Any) -> pa.Table:
        """Its columns, all of them."""
        return self._reader(f"{self._select('*')} WHERE 1 = 0").read_all()

    def compute(self, parameters: Any) -> pa.RecordBatchReader:
        """Its rows, as they come: the columns that are needed, or one where none is, of the rows that may be needed."""
        if self.names is None and not self.filters:
            return self._reader(self._select("*"))
        with self._pointing():
            columns = self._engine.describe(self._select("*"))
        all_names = [column.name for column in columns]
        needed = all_names
        if self.names is not None:
            needed = [name for name in all_names if name.lower() in self.names] or all_names[:1]
        shown = ", ".join(map(self._engine.quote, needed)) if len(needed) < len(all_names) else "*"
        where, values = where_sql(self.filters, columns, parameters, self._engine)
        if where and self._takes(f"{self._select(shown)} WHERE {where}", values):
            return self._reader(f"{self._select(shown)} WHERE {where}", values)
        return self._reader(self._select(shown))

    @property
    def _engine(self) -> Engine:
        return self.places.engine(self.table.connection)

    def _takes(self, text: str, values: Sequence[Any]) -> bool:
        """Whether the database compares such values; if not, the query's own words say at home what is wrong with them."""
        try:
            self._engine.bind(text, values)
        except Error:
            return False
        return True

    def _select(self, columns: str) -> str:
        return f"SELECT {columns} FROM {table_text(self.table, self._engine.quote)}"  # noqa: S608

    def _reader(self, text: str, values: Sequence[Any] = ()) -> pa.RecordBatchReader:
        import pyarrow as pa

        with self._pointing():
            stream = self._engine.run(text, values)
        return pa.RecordBatchReader.from_batches(stream.schema, self._rows(stream))

    def _rows(self, stream: Stream) -> Generator[pa.RecordBatch, None, None]:
        with closing(stream.batches) as batches, self._pointing():
            yield from batches

    @contextmanager
    def _pointing(self) -> Iterator[None]:
        """What is wrong with the table is told at its name."""
        try:
            yield
        except Error as error:
            raise error.pointed(self.source, self.table.span) from None


def where_sql(filters: Sequence[Filter], columns: Sequence[Column], parameters: Any, engine: Engine) -> tuple[str, list[Any]]:
    """The filters as a condition of an engine, with ``?`` for its values; those left out that might mean something else there."""
    conditions: list[str] = []
    bound: list[Any] = []
    for item in filters:
        named = [column for column in columns if column.name.lower() == item.column]
        values = [_given(value, parameters) for value in item.values]
        if len(named) != 1 or not (taken := _taken(item.operator, values, named[0], engine)):
            continue
        condition, own = taken
        conditions.append(f"{engine.quote(named[0].name)} {condition}")
        bound += own
    return " AND ".join(conditions), bound


def _given(value: Any, parameters: Any) -> Any:
    """A value, or that of a parameter; None where it has none."""
    if not isinstance(value, Mark):
        return value
    if isinstance(parameters, Mapping):
        return parameters.get(value.name)
    is_place = value.name.isdigit() and 0 < int(value.name) <= len(parameters)
    return parameters[int(value.name) - 1] if is_place else None


def _taken(operator: str, values: Sequence[Any], column: Column, engine: Engine) -> tuple[str, list[Any]] | None:
    """What follows the column, and its values; None for what the engine's database and the one at home may see differently."""
    if operator in ("IS NULL", "IS NOT NULL"):
        return operator, []
    if operator == "IS":
        operator = "="
    own = [_as_kind(value, column, engine) for value in values]
    if None in own or (column.kind is Kind.TEXT and operator not in ("=", "IN")):  # collations order texts, each in its way
        return None
    return (f"IN ({', '.join('?' * len(own))})" if operator == "IN" else f"{operator} ?"), own


def _as_kind(value: Any, column: Column, engine: Engine) -> Any:
    """A value as one of a column's kind; None where it is not."""
    is_own = engine.name in _OWN
    match column.kind:
        case Kind.TEXT:
            return value if isinstance(value, str) else None
        case Kind.BOOLEAN:
            return value if is_own and isinstance(value, bool) else None
        case Kind.NUMBER if _EXACT.match(kind := column.sql_type.lower()) or (
            kind.startswith("double") and (is_own or engine.dialect == "sqlite")  # a REAL is not what it was written as
        ):
            return _number(value, engine)
        case Kind.DATE | Kind.TIMESTAMP if is_own:
            return _moment(value, column.kind)
    return None


def _number(value: Any, engine: Engine) -> int | float | Decimal | None:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal) or not math.isfinite(value):
        return None
    whole = int(value)
    if value == whole:
        return whole if abs(whole) < 2**63 else None
    return float(value) if engine.dialect == "sqlite" else value


def _moment(value: Any, kind: Kind) -> dt.date | None:
    """A date or a moment; texts as ISO 8601 has them, others each database reads in its own way."""
    pattern = _DATE if kind is Kind.DATE else _TIMESTAMP
    if isinstance(value, str):
        try:
            read = dt.datetime.fromisoformat(value) if pattern.fullmatch(value) else None
        except ValueError:
            return None
        return read.date() if read and kind is Kind.DATE else read
    if isinstance(value, dt.datetime):
        return value if kind is Kind.TIMESTAMP and value.tzinfo is None else None
    return value if isinstance(value, dt.date) else None
