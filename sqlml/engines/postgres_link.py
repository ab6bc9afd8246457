"""One connection to a PostgreSQL server, by ADBC: statements in, Arrow out, all on a thread of its own.

The thread is there so that Python's signals (Ctrl-C) reach whoever waits while a statement runs, and so that the next batch is
read while the last one is worked on.  A call waits for those before it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qs, urlsplit

from sqlml.engines.postgres_errors import open_error
from sqlml.errors import InterfaceError

if TYPE_CHECKING:
    import pyarrow as pa

T = TypeVar("T")

BATCH_BYTES = 4 * 2**20
"""Bytes of rows in an Arrow batch: of 30 columns, 2 to 8 MiB take the least time, 0.25 and 64 MiB a fifth more."""

CONNECT_SECONDS = 10

_STATUS = "adbc.postgresql.transaction_status"
_HINT = {"adbc.postgresql.batch_size_hint_bytes": str(BATCH_BYTES)}
_WHOLE = {"adbc.postgresql.use_copy": "false"}


class Link:
    """A connection.  ``open`` it again after it was lost: it is then another session of the server."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.generation = 0  # how many times it was opened
        self.is_lost = False  # found out by an error
        self._database: Any = None
        self._connection: Any = None
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="sqlml-postgres")
        self._closed = False

    def open(self) -> None:
        """Connect.  ``OperationalError`` with the reason, and no password, where that fails."""
        self._drop()
        self.call(self._open)
        self.generation += 1
        self.is_lost = False

    def _open(self) -> None:
        import adbc_driver_manager
        import adbc_driver_postgresql

        try:
            self._database = adbc_driver_postgresql.connect(_completed(self.url))
            self._connection = adbc_driver_manager.AdbcConnection(self._database)
        except Exception as error:
            raise open_error(self.url, error) from None

    def call(self, action: Callable[[], T]) -> T:
        """Run something on the connection's thread and wait for it; Ctrl-C cancels it there, and is raised when it has ended."""
        return self.wait(self.submit(action))

    def submit(self, action: Callable[[], T]) -> Future[T]:
        """Run something on the connection's thread, after what is there already."""
        if self._closed:
            raise InterfaceError("the connection is closed")
        try:
            return self._worker.submit(action)
        except RuntimeError:  # Python is ending and its threads are gone: what is left to do is done here
            done: Future[T] = Future()
            done.set_result(action())
            return done

    def wait(self, future: Future[T]) -> T:
        """The result of ``submit``."""
        try:
            return future.result()
        except KeyboardInterrupt:
            self.cancel()
            with suppress(Exception):
                future.result()
            raise

    def status(self) -> str:
        """libpq's word for the session: idle, active, intrans, inerror, unknown (lost).  Asks nobody."""
        if self._connection is None or self.is_lost:
            return "unknown"
        return str(self._connection.get_option(_STATUS))

    def describe(self, text: str) -> pa.Schema | None:
        """The columns of a statement, prepared and not run; None where it has none."""
        import pyarrow as pa

        def action() -> pa.Schema | None:
            statement = self._statement(text)
            try:
                handle = statement.execute_schema()
                try:
                    return pa.Schema._import_from_c(handle.address)
                except pa.ArrowInvalid:  # a statement without columns has no schema either
                    return None
            finally:
                statement.close()

        return self.call(action)

    def execute(self, text: str) -> int:
        """Run a statement and forget its rows; how many rows it changed, -1 where there is nothing to count."""

        def action() -> int:
            statement = self._statement(text)
            try:
                return int(statement.execute_update())
            finally:
                statement.close()

        return self.call(action)

    def whole(self, text: str) -> tuple[pa.Table, int]:
        """Run a statement that COPY cannot carry: its rows, all at once, and how many it changed or gave."""

        def action() -> tuple[pa.Table, int]:
            statement = self._statement(text, _WHOLE)
            try:
                reader, count = _result(statement)
                return reader.read_all(), count
            finally:
                statement.close()

        return self.call(action)

    def stream(self, text: str) -> tuple[Any, Any]:
        """Begin to read a query by COPY: the driver's statement, to be closed after, and its reader."""

        def action() -> tuple[Any, Any]:
            statement = self._statement(text, _HINT)
            try:
                return statement, _result(statement)[0]
            except BaseException:
                statement.close()
                raise

        return self.call(action)

    def ingest(self, schema: str, table: str, rows: pa.RecordBatchReader) -> Future[int]:
        """Begin to COPY rows into a table that is there, by its columns' names and in their binary form."""

        def action() -> int:
            statement = self._statement()
            try:
                statement.set_options(**{
                    "adbc.ingest.target_table": table,
                    "adbc.ingest.target_db_schema": schema,
                    "adbc.ingest.mode": "adbc.ingest.mode.append",
                })  # fmt: skip
                statement.bind_stream(rows)
                return int(statement.execute_update())
            finally:
                statement.close()

        return self.submit(action)

    def cancel(self) -> None:
        """Ask the server to stop what runs, from any thread."""
        connection = self._connection
        if connection is not None:
            with suppress(Exception):  # nothing runs, or the server is gone: there is nothing to stop
                connection.cancel()

    def close(self) -> None:
        """Close for good."""
        if not self._closed:
            self.cancel()
            self._drop()
            self._closed = True
            self._worker.shutdown(wait=True)

    def _drop(self) -> None:
        connection, database = self._connection, self._database
        self._connection = self._database = None

        def action() -> None:
            for handle in (connection, database):
                if handle is not None:
                    with suppress(Exception):  # what is lost cannot say goodbye
                        handle.close()

        self.call(action)

    def _statement(self, text: str | None = None, options: Mapping[str, str] | None = None) -> Any:
        import adbc_driver_manager

        statement = adbc_driver_manager.AdbcStatement(self._connection)
        if options:
            statement.set_options(**options)
        if text is not None:
            # COPY wraps the text in brackets: a comment at its end would swallow the closing one.
            statement.set_sql_query(text + "\n")
        return statement


def _result(statement: Any) -> tuple[Any, int]:
    """A reader whose errors are the driver's own, with SQLSTATE (pyarrow's alone would give the text only)."""
    from adbc_driver_manager._reader import AdbcRecordBatchReader

    handle, count = statement.execute_query()
    return AdbcRecordBatchReader._import_from_c(handle.address), int(count)


def _completed(url: str) -> str:
    """The URL with what we rely on: UTF-8, a name for the server's lists, an end to waiting."""
    given = parse_qs(urlsplit(url).query)
    wanted = {"client_encoding": "UTF8", "fallback_application_name": "sqlml", "connect_timeout": str(CONNECT_SECONDS)}
    added = "&".join(f"{key}={value}" for key, value in wanted.items() if key == "client_encoding" or key not in given)
    return f"{url}{'&' if '?' in url else '?'}{added}"
