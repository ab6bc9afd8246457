"""Any database that SQLAlchemy has a dialect for, to be read from: rows come one by one through its driver, and become columns.

Nothing is ever written: a connection is told to be read-only where the database knows how, only queries are sent, and every
transaction is rolled back.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy import exc

from sqlml.address import check_escaped
from sqlml.contracts import Stream
from sqlml.engines.sqlalchemy import errors
from sqlml.engines.sqlalchemy.text import Statement, count_statements, is_query, without_parameters, write_statement
from sqlml.engines.sqlalchemy.values import (
    NULL,
    Sort,
    column_array,
    declared_in_postgres,
    declared_in_sqlite,
    sort_of,
)
from sqlml.errors import BindError, Error, NotSupportedError, OperationalError, did_you_mean
from sqlml.types import Column, kind_of_arrow

FIRST_ROWS = 1_000
"""Rows from which types are told, where the database does not tell them."""
BATCH_ROWS = 10_000
SLOWER = "the rows of {dialect} come one by one through {driver}: slower than a connection of TYPE postgres"

_READ_ONLY = {
    "postgresql": "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
    "mysql": "SET SESSION TRANSACTION READ ONLY",
    "mariadb": "SET SESSION TRANSACTION READ ONLY",
}
_SAMPLES = {"postgresql": " AS __sqlml_rows ORDER BY hashtextextended(CAST(__sqlml_rows AS text), {seed}) LIMIT {rows}"}
_NOWHERE = "SELECT * FROM (\n{query}\n) {alias} WHERE 1 = 0"


@dataclass(eq=False)
class _Running:
    """A statement on its connection, from which another thread can stop it."""

    connection: sa.Connection
    results: list[sa.CursorResult[Any]] = field(default_factory=list)
    cancelled: bool = False

    def close(self) -> None:
        for result in self.results:
            result.close()
        self.connection.close()


@dataclass
class _Opened:
    """A query whose first rows have come: its columns' names and types, and what to read the other rows from."""

    running: _Running
    result: sa.CursorResult[Any]
    names: list[str]
    sorts: list[Sort]
    first: list[Sequence[Any]]


class SqlalchemyEngine:
    """The engine of one URL.  What writes raises ``NotSupportedError``."""

    name = "sqlalchemy"

    def __init__(self, engine: sa.Engine, url: sa.URL) -> None:
        self._engine = engine
        self._url = url
        self._running: set[_Running] = set()
        self.dialect = engine.dialect.name
        self.notice = SLOWER.format(dialect=self.dialect, driver=engine.dialect.driver)

    @classmethod
    def open(cls, url: str) -> SqlalchemyEngine:
        """Connect.  ``OperationalError`` where that fails, ``MissingExtra`` with the package to install where a driver lacks."""
        try:
            parsed = sa.make_url(url)
        except (exc.ArgumentError, ValueError):
            raise OperationalError("this is no SQLAlchemy URL", hint="as in mysql+pymysql://user@host/database") from None
        check_escaped(parsed.host, parsed.database, has_password=parsed.password is not None)
        try:
            parsed.get_dialect().import_dbapi()
            engine = sa.create_engine(_only_reading(parsed), pool_pre_ping=True, hide_parameters=True)
        except ModuleNotFoundError as error:
            raise errors.missing_driver(parsed, error) from None
        except exc.NoSuchModuleError:
            raise errors.missing_dialect(parsed) from None
        if engine.dialect.is_async:
            raise NotSupportedError(
                f"{parsed.drivername} is a driver for asyncio", hint="name another one, as in postgresql+psycopg://"
            )
        if command := _READ_ONLY.get(engine.dialect.name):
            sa.event.listen(engine, "connect", lambda connection, _: _tell(connection, command))
        opened = cls(engine, parsed)
        try:
            engine.connect().close()
        except exc.SQLAlchemyError as error:
            engine.dispose()
            reason = errors.own_error(error, parsed, "")
            shown = parsed.render_as_string(hide_password=True).partition("?")[0]
            hint = reason.hint or ("there is no such file" if _is_absent(parsed) else None)
            raise OperationalError(f"cannot connect to {shown}: {reason.message}", hint=hint) from None
        return opened

    def close(self) -> None:
        for running in list(self._running):
            running.close()
        self._engine.dispose()

    # --- reading ----------------------------------------------------------------------------------------------------------

    def describe(self, query: str, parameters: Any = ()) -> tuple[Column, ...]:
        """The columns of a query.  Where the database does not tell their types, its first rows are read to see them."""
        statement = self._statement(query, parameters, BindError)
        with self._run_on_connection(query) as running:
            names, declared = self._declared(running, statement)
        if self.dialect == "postgresql" and all(declared):
            return _columns(names, [sort for sort in declared if sort])
        with self._run_on_connection(query) as running:
            opened = self._open(running, statement)
        return _columns(opened.names, opened.sorts)

    def run(self, text: str, parameters: Any = ()) -> Stream:
        """Run one query; the batches hold the connection until they are read to their end or closed."""
        statement = self._statement(text, parameters, NotSupportedError)
        with ExitStack() as stack:
            running = stack.enter_context(self._run_on_connection(text))
            opened = self._open(running, statement)
            kept = stack.pop_all()
        schema = pa.schema([pa.field(name, sort.arrow) for name, sort in zip(opened.names, opened.sorts, strict=True)])
        batches = _batches(kept, opened, schema)
        next(batches)  # from here on closing it gives the connection back
        return Stream(_columns(opened.names, opened.sorts), schema, batches)

    def bind(self, text: str, parameters: Any = ()) -> None:
        """Check a query without running it."""
        statement = self._statement(text, parameters, NotSupportedError)
        with self._run_on_connection(text) as running:
            self._execute(running, statement, _NOWHERE)

    def table_rows(self, parts: Sequence[str]) -> int | None:
        """How many rows a table or view has; None where there is none."""
        *schema, table = parts
        with self._run_on_connection("") as running:
            try:
                found = sa.inspect(running.connection).get_columns(table, schema=".".join(schema) or None)
            except exc.NoSuchTableError:
                return None
            name = ".".join(map(self.quote, parts))
            counted = running.connection.exec_driver_sql(f"SELECT count(*) FROM {name}")  # noqa: S608
            return int(counted.scalar_one()) if found else None

    def quote(self, name: str) -> str:
        quoted: str = self._engine.dialect.identifier_preparer.quote_identifier(name)
        return quoted

    def fold(self, name: str) -> str:
        return name

    def sample_clause(self, seed: int, rows: int) -> str:
        """What follows ``FROM (query)``; ``NotSupportedError`` where the database has no hash of a whole row."""
        if self.dialect not in _SAMPLES:
            raise NotSupportedError(
                f"{self.dialect} cannot draw a sample that is the same each time",
                hint="copy the rows into a table here first: CREATE TABLE t AS SELECT …",
            )
        return _SAMPLES[self.dialect].format(seed=int(seed), rows=int(rows))

    def interrupt(self) -> None:
        """Stop what runs: at once where the driver can, else at its next batch of rows."""
        for running in list(self._running):
            running.cancelled = True
            driver = running.connection.connection.driver_connection
            stop = getattr(driver, "interrupt", None) or getattr(driver, "cancel", None)
            if stop is not None:
                stop()

    def estimate_rows(self, query: str, parameters: Any = ()) -> int | None:
        """None: each database tells it in its own way, or not at all."""
        return None

    def _only_read(self, cls: type[Error] = NotSupportedError) -> Error:
        return cls(
            f"a {self.dialect} database behind SQLAlchemy can only be read from",
            hint="write at home, or to a connection of TYPE postgres or spark",
        )

    # --- statements -------------------------------------------------------------------------------------------------------

    def _statement(self, text: str, parameters: Any, refused: type[Error]) -> Statement:
        """One query in the driver's words; anything else raises ``refused``."""
        if not is_query(text):
            raise self._only_read(refused)
        if count_statements(text) > 1:
            raise refused("there are several statements where one query belongs")
        return write_statement(text, parameters, self._engine.dialect.paramstyle)

    def _execute(self, running: _Running, statement: Statement, form: str = "{query}") -> sa.CursorResult[Any]:
        alias = "r" if self.dialect == "oracle" else "AS r"
        sql = form.replace("{query}", statement.sql).replace("{alias}", alias)
        result = running.connection.exec_driver_sql(sql, statement.values or None)
        running.results.append(result)
        return result

    @contextmanager
    def _run_on_connection(self, text: str) -> Iterator[_Running]:
        """A connection of one's own, given back at the end; errors as ours, with their place in ``text``."""
        running = None
        try:
            connection = self._engine.connect()
            running = _Running(connection.execution_options(no_parameters=True, stream_results=True, yield_per=BATCH_ROWS))
            self._running.add(running)
            yield running
        except exc.SQLAlchemyError as error:
            cancelled = running is not None and running.cancelled
            own = errors.own_error(error, self._url, text, cancelled)
            own.hint = own.hint or self._near(own.message)
            raise own from None
        finally:
            if running is not None:
                self._running.discard(running)
                running.close()

    def _near(self, message: str) -> str | None:
        """What a misspelt table may have meant."""
        missing = errors.missing_table(message)
        if missing is None:
            return None
        with suppress(exc.SQLAlchemyError):  # only advice: the error itself is told whatever becomes of it
            inspected = sa.inspect(self._engine)
            return did_you_mean(missing, [*inspected.get_table_names(), *inspected.get_view_names()])
        return None

    # --- types ------------------------------------------------------------------------------------------------------------

    def _open(self, running: _Running, statement: Statement) -> _Opened:
        """Run a query and read its first rows, to tell the types that the database does not."""
        with self._run_on_connection(statement.text) as asking:
            _, declared = self._declared(asking, statement)
        result = self._execute(running, statement)
        names = list(result.keys())
        first: list[Sequence[Any]] = list(result.fetchmany(FIRST_ROWS))
        sorts: list[Sort] = []
        for index, (name, told) in enumerate(zip(names, declared, strict=True)):
            values = [row[index] for row in first]
            if told is not None and told.takes(values):
                sorts.append(told)
                continue
            seen = sort_of(name, values)
            if seen is None and len(first) == FIRST_ROWS:
                seen = self._sort_further_on(statement, name)
            sorts.append(seen or NULL)
        return _Opened(running, result, names, sorts, first)

    def _declared(self, running: _Running, statement: Statement) -> tuple[list[str], list[Sort | None]]:
        """The names of a query's columns, and the types that the database tells without running it."""
        result = self._execute(running, statement, _NOWHERE)
        names = list(result.keys())
        described = list(result.cursor.description) if result.cursor is not None else []
        result.close()
        if self.dialect == "postgresql":
            return names, [declared_in_postgres(column) for column in described]
        if self.dialect == "sqlite":
            return names, _declared_in_sqlite(running.connection, statement, names)
        return names, [None] * len(names)

    def _sort_further_on(self, statement: Statement, name: str) -> Sort | None:
        """The type of a column whose first rows are all NULL."""
        form = f"SELECT {self.quote(name)} FROM (\n{{query}}\n) {{alias}} WHERE {self.quote(name)} IS NOT NULL"  # noqa: S608
        with self._run_on_connection(statement.text) as running:
            row = self._execute(running, statement, form).fetchone()
        return sort_of(name, row) if row is not None else None


def _batches(kept: ExitStack, opened: _Opened, schema: pa.Schema) -> Generator[pa.RecordBatch, None, None]:
    """First one without rows, to be thrown away; then the rows."""
    with kept:
        yield pa.RecordBatch.from_pylist([], schema)
        rows, before = opened.first, 0
        while rows:
            columns = zip(*rows, strict=True)
            arrays = [
                column_array(name, sort, values, before)
                for name, sort, values in zip(opened.names, opened.sorts, columns, strict=True)
            ]
            yield pa.RecordBatch.from_arrays(arrays, schema=schema)
            if opened.running.cancelled:
                raise errors.cancelled()
            before += len(rows)
            rows = list(opened.result.fetchmany(BATCH_ROWS))


def _columns(names: Sequence[str], sorts: Sequence[Sort]) -> tuple[Column, ...]:
    return tuple(Column(name, sort.name, kind_of_arrow(sort.arrow)) for name, sort in zip(names, sorts, strict=True))


def _declared_in_sqlite(connection: sa.Connection, statement: Statement, names: Sequence[str]) -> list[Sort | None]:
    """SQLite tells the declared types of a view's columns: those of the tables' columns that they are."""
    query = without_parameters(statement.text)
    connection.exec_driver_sql(f"CREATE TEMP VIEW __sqlml_columns AS SELECT * FROM (\n{query}\n)")  # noqa: S608
    try:
        rows = connection.exec_driver_sql("PRAGMA temp.table_info(__sqlml_columns)").fetchall()
    finally:
        connection.exec_driver_sql("DROP VIEW temp.__sqlml_columns")
    return [declared_in_sqlite(row[2]) for row in rows] if len(rows) == len(names) else [None] * len(names)


def _only_reading(url: sa.URL) -> sa.URL:
    """A SQLite file is opened to be read, and none is made where there is none."""
    if url.get_backend_name() != "sqlite" or not url.database or url.database == ":memory:" or "uri" in url.query:
        return url
    return url.set(database=f"file:{quote(url.database)}", query={**url.query, "mode": "ro", "uri": "true"})


def _is_absent(url: sa.URL) -> bool:
    """Whether a SQLite file is not there; SQLite says of every file only that it cannot open it."""
    return url.get_backend_name() == "sqlite" and bool(url.database) and not os.path.exists(str(url.database))


def _tell(connection: Any, command: str) -> None:
    cursor = connection.cursor()
    cursor.execute(command)
    cursor.close()
    connection.commit()
