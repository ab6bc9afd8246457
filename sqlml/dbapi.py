"""PEP 249: connections and cursors.

``paramstyle`` is ``qmark`` (``$1`` and ``$name`` work too).  A connection commits each statement by itself until ``BEGIN`` or
``begin()``.  Its cursors share one transaction; a result streams from the database until another statement begins, and is then
read into memory.
"""

from __future__ import annotations

import datetime
import itertools
import os
import re
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from operator import length_hint
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from sqlml import errors
from sqlml.contracts import FewRows
from sqlml.errors import InterfaceError, ProgrammingError
from sqlml.registry import missing_extra

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from sqlml.contracts import Event
    from sqlml.opening import SqlSession
    from sqlml.statements.result import Result

apilevel = "2.0"
threadsafety = 1  # threads may share the module; connections that they share all the same run one statement at a time
paramstyle = "qmark"


class TypeObject:
    """One of PEP 249's type objects: equal to every type code of its group, as DuckDB, PostgreSQL and Spark write them."""

    def __init__(self, name: str, *codes: str) -> None:
        self._name = name
        self._codes = codes

    def __eq__(self, other: object) -> bool:
        return other is self or (isinstance(other, str) and re.sub(r"\([^)]*\)", "", other).upper() in self._codes)

    def __hash__(self) -> int:
        return hash(self._name)

    def __repr__(self) -> str:
        return f"sqlml.{self._name}"


STRING = TypeObject(
    "STRING", "VARCHAR", "UUID", "JSON", "ENUM", "BIT", "TEXT", "CHARACTER VARYING", "CHARACTER", "NAME", "JSONB", "STRING"
)
BINARY = TypeObject("BINARY", "BLOB", "BYTEA", "BINARY")
NUMBER = TypeObject(
    "NUMBER", "BOOLEAN", "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT",
    "UHUGEINT", "FLOAT", "DOUBLE", "DECIMAL", "NUMERIC", "REAL", "DOUBLE PRECISION", "OID", "INT",
)  # fmt: skip
DATETIME = TypeObject(
    "DATETIME", "DATE", "TIME", "TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS", "TIMESTAMP WITH TIME ZONE",
    "INTERVAL", "TIME WITHOUT TIME ZONE", "TIME WITH TIME ZONE", "TIMESTAMP WITHOUT TIME ZONE", "TIMESTAMP_NTZ",
)  # fmt: skip
ROWID = TypeObject("ROWID")

Date = datetime.date
Time = datetime.time
Timestamp = datetime.datetime
Binary = bytes


def DateFromTicks(ticks: float) -> datetime.date:  # noqa: N802 - the name is PEP 249's
    """A date in local time from seconds since the epoch."""
    return Date(*time.localtime(ticks)[:3])


def TimeFromTicks(ticks: float) -> datetime.time:  # noqa: N802 - the name is PEP 249's
    """A time of day in local time from seconds since the epoch."""
    return Time(*time.localtime(ticks)[3:6])


def TimestampFromTicks(ticks: float) -> datetime.datetime:  # noqa: N802 - the name is PEP 249's
    """A timestamp in local time from seconds since the epoch."""
    return Timestamp(*time.localtime(ticks)[:6])


class ColumnDescription(NamedTuple):
    """An item of ``Cursor.description``; ``type_code`` is the SQL type's name."""

    name: str
    type_code: str
    display_size: None = None
    internal_size: None = None
    precision: int | None = None
    scale: int | None = None
    null_ok: bool | None = None


class Names(NamedTuple):
    """What can be named, for completion."""

    tables: tuple[str, ...]
    columns: tuple[str, ...]
    models: tuple[str, ...]
    endpoints: tuple[str, ...]
    connections: tuple[str, ...] = ()
    runners: tuple[str, ...] = ()  # those that were created
    api_keys: tuple[str, ...] = ()


def connect(
    database: str | os.PathLike[str] = ":memory:",
    *,
    catalog: str | None = None,
    schema: str | None = None,
    on_event: Callable[[Event], None] | None = None,
) -> Connection:
    """Open a DuckDB file, made where there is none, or ``:memory:``.

    ``catalog`` is a SQLAlchemy URL for the catalog (by default SQLite in the folder ``bank.sqlml`` beside ``bank.duckdb``);
    ``schema`` renames the schema ``sqlml``; ``on_event`` is called with the progress of a statement while it runs.

    Where ``sqlml serve`` of the same user has the file open, the connection goes through it (``Connection.through``).

    Raises ``OperationalError`` where the file is no database, is held by another process, or its folder cannot be written.
    """
    from sqlml.opening import open_session

    return Connection(open_session(os.fspath(database), catalog=catalog, schema=schema, on_event=on_event))


class Connection:
    """A connection (PEP 249).  As a context manager it commits, or rolls back on an error, and closes."""

    # PEP 249's optional extension: the exceptions, for code that has a connection and no module
    Warning = errors.Warning
    Error = errors.Error
    InterfaceError = errors.InterfaceError
    DatabaseError = errors.DatabaseError
    DataError = errors.DataError
    OperationalError = errors.OperationalError
    IntegrityError = errors.IntegrityError
    InternalError = errors.InternalError
    ProgrammingError = errors.ProgrammingError
    NotSupportedError = errors.NotSupportedError

    def __init__(self, session: SqlSession) -> None:
        self._session: SqlSession | None = session
        self._streaming: Cursor | None = None
        self._lock = threading.RLock()  # threads that share it all the same wait for one another

    @property
    def session(self) -> SqlSession:
        """The session behind it.  ``InterfaceError`` once closed."""
        if self._session is None:
            raise InterfaceError("the connection is closed")
        return self._session

    def cursor(self) -> Cursor:
        self.session  # noqa: B018 - raises once closed
        return Cursor(self)

    def execute(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> Cursor:
        """A new cursor that has run a statement."""
        return self.cursor().execute(sql, parameters)

    def begin(self) -> None:
        """Begin a transaction."""
        with self._lock:
            self._settle(None)
            self.session.begin()

    def commit(self) -> None:
        with self._lock:
            self._settle(None)
            self.session.commit()

    def rollback(self) -> None:
        with self._lock:
            self._settle(None)
            self.session.rollback()

    def close(self) -> None:
        """Close; an open transaction is rolled back."""
        if self._session is not None:
            session, self._session = self._session, None
            if self._streaming is not None:
                self._streaming._abandon()
            session.close()

    def interrupt(self) -> None:
        """Cancel what runs, from any thread."""
        self.session.interrupt()

    @property
    def on_event(self) -> Callable[[Event], None] | None:
        """What is called with the progress of a statement while it runs."""
        return self.session.on_event

    @on_event.setter
    def on_event(self, value: Callable[[Event], None] | None) -> None:
        self.session.on_event = value

    @property
    def database(self) -> str:
        return self.session.place.database

    @property
    def dialect(self) -> str:
        """Whose SQL the database speaks: ``duckdb``, ``postgres``."""
        return self.session.dialect

    @property
    def is_new(self) -> bool:
        """Whether the database was made by this connection."""
        return self.session.place.is_new

    @property
    def through(self) -> str | None:
        """``the server of process 123, port 5433``, where another process has the file open; None where this one has."""
        return self.session.through

    @property
    def is_lost(self) -> bool:
        """Whether the server that it goes through has ended: then nothing more comes of it, and one connects again."""
        return self.session.is_lost

    @property
    def models_home(self) -> os.PathLike[str] | None:
        """The folder of the models; None in memory."""
        return None if self.database == ":memory:" else self.session.place.home

    def names(self) -> Names:
        """What can be named, for completion."""
        return Names(**self.session.names())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._session is None:
            return
        if kind is None:
            self.commit()
        else:
            self.rollback()
        self.close()

    def _settle(self, cursor: Cursor | None) -> None:
        """Another statement begins: what still streams is read into memory first."""
        streaming, self._streaming = self._streaming, cursor
        if streaming is not None and streaming is not cursor:
            streaming._read_all()


class Cursor:
    """A cursor (PEP 249), with results also as Arrow and as a data frame."""

    arraysize: int = 1

    def __init__(self, connection: Connection) -> None:
        self._connection: Connection | None = connection
        self._lock = connection._lock
        self._result: Result | None = None
        self._batches: Generator[pa.RecordBatch, None, None] | None = None
        self._held: list[pa.RecordBatch] = []
        self._few: FewRows | None = None  # what the batches are, where rows need not be made of them
        self._rows: Iterator[tuple[Any, ...]] | None = None
        self._current: tuple[pa.RecordBatch | None, Iterator[bool]] | None = None
        """The batch whose rows are fetched (None: the few), and as many as are left of it."""
        self.description: tuple[ColumnDescription, ...] | None = None
        self.rowcount: int = -1
        self.kind: str | None = None
        self.footer: str | None = None
        self._notices: list[str] = []

    @property
    def notices(self) -> tuple[str, ...]:
        """What was said beside the answer of the last statement, also while its rows were fetched."""
        return tuple(self._notices)

    @property
    def connection(self) -> Connection:
        """The connection it came from.  ``InterfaceError`` once closed."""
        if self._connection is None:
            raise InterfaceError("the cursor is closed")
        return self._connection

    def execute(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> Self:
        """Run one statement, or several separated by semicolons (the last one's result is kept)."""
        session = self.connection.session
        with self._lock:
            self._forget()
            self.connection._settle(None)
            try:
                self.kind, result = session.execute(sql, parameters)
            finally:
                self._notices = session.notices
            self._take(result)
        return self

    def executemany(self, sql: str, rows: Sequence[Sequence[Any]]) -> Self:
        """Run one statement of the database for each row of parameters."""
        session = self.connection.session
        with self._lock:
            self._forget()
            self.connection._settle(None)
            session.execute_many(sql, rows)
            self.rowcount = len(rows)
        return self

    def callproc(self, name: str, parameters: Sequence[Any] = ()) -> Sequence[Any]:
        """Call a function of the database with values; its answer is to be fetched.  The parameters as they were."""
        from sqlml_dialect import quote_identifier

        marks = ", ".join("?" * len(parameters))
        self.execute(f"SELECT {quote_identifier(name)}({marks})", parameters)
        return parameters

    def nextset(self) -> bool | None:
        """None: of several statements the last one's result is kept, and nothing follows it."""
        self.connection.session  # noqa: B018 - raises once closed
        self._forget()
        return None

    def _take(self, result: Result) -> None:
        self._result = result
        self.rowcount = result.rowcount
        self.footer = result.footer
        if result.columns is not None:
            self.description = tuple(ColumnDescription(c.name, c.sql_type) for c in result.columns)
            self._batches = result.batches
            if isinstance(result.batches, FewRows):
                self._few = result.batches
            else:
                self._peek()
            self.connection._settle(self)

    def _peek(self) -> None:
        """Fetch the first batch now, so that most errors come from ``execute``."""
        first = next(self._batches, None) if self._batches is not None else None
        if first is not None:
            self._held.append(first)

    def _forget(self) -> None:
        self._abandon()
        self._result = self._batches = self._rows = self._few = None
        self._held = []
        self._current = None
        self.description, self.rowcount, self.footer, self._notices = None, -1, None, []

    def _read_all(self) -> None:
        if self._batches is not None and self._few is None:
            self._held += list(self._batches)
            self._batches = None

    def _abandon(self) -> None:
        """Give up what still streams: DuckDB opens a file again only when the last reader of it is gone."""
        batches, self._batches = self._batches, None
        if batches is not None:
            batches.close()

    def _pull(self) -> Iterator[pa.RecordBatch]:
        while (batch := self._next_batch()) is not None:
            yield batch

    def _next_batch(self) -> pa.RecordBatch | None:
        with self._lock:  # what another thread runs reads this result into memory first
            if self._held:
                return self._held.pop(0)
            batch = None if self._batches is None else next(self._batches, None)
            if batch is None:
                self._batches = None
            return batch

    def _iterate(self) -> Iterator[tuple[Any, ...]]:
        self.connection.session  # noqa: B018 - raises once closed
        if self._result is None or self.description is None:
            raise ProgrammingError("there is no result to fetch: the last statement gave none", hint="run a SELECT first")
        if self._rows is None:
            if self._few is not None:
                self._rows = itertools.compress(self._few.rows, self._noted(None, len(self._few.rows)))
                return self._rows
            from sqlml.python_values import rows_of

            types = [d.type_code for d in self.description]
            self._rows = (
                row
                for batch in self._pull()
                for row in itertools.compress(rows_of(batch, types), self._noted(batch, batch.num_rows))
            )
        return self._rows

    def _noted(self, batch: pa.RecordBatch | None, count: int) -> Iterator[bool]:
        """A batch's rows are fetched one by one from now on: so many more of these as rows are left of it."""
        self._current = batch, itertools.repeat(True, count)
        return self._current[1]

    def fetchone(self) -> tuple[Any, ...] | None:
        return next(self._iterate(), None)

    def fetchmany(self, size: int | None = None) -> list[tuple[Any, ...]]:
        return list(itertools.islice(self._iterate(), self.arraysize if size is None else size))

    def fetchall(self) -> list[tuple[Any, ...]]:
        return list(self._iterate())

    def fetch_arrow_table(self) -> pa.Table:
        """The rows not fetched yet, as an Arrow table."""
        import pyarrow as pa

        if self._result is None or self._result.schema is None or self._rows is not None:
            self._iterate()
        assert self._result is not None
        begun = []
        if self._current is not None:
            batch, left = self._current
            batch = self._next_batch() if batch is None else batch
            begun = [] if batch is None else [batch.slice(batch.num_rows - length_hint(left))]
        self._current = self._rows = self._few = None
        return pa.Table.from_batches([*begun, *self._pull()], self._result.schema)

    def df(self) -> pd.DataFrame:
        """The rows not fetched yet, as a pandas DataFrame."""
        import pyarrow as pa

        table = self.fetch_arrow_table()
        try:
            return table.to_pandas()
        except ModuleNotFoundError as error:
            raise missing_extra(error) from None
        except (pa.ArrowException, ValueError, OverflowError) as error:
            hint = "fetch it as Arrow, fetch_arrow_table(), or cast the column to text"
            raise errors.DataError(f"pandas cannot hold the result: {error}", hint=hint) from None

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return self._iterate()

    def __next__(self) -> tuple[Any, ...]:
        return next(self._iterate())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._forget()
        self._connection = None

    def setinputsizes(self, sizes: Sequence[Any]) -> None:
        """Accepted and without effect (PEP 249)."""

    def setoutputsize(self, size: int, column: int | None = None) -> None:
        """Accepted and without effect (PEP 249)."""
