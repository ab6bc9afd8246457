"""One connection to a PostgreSQL server, by psycopg and its libpq: statements in, rows in binary form out, all on one thread.

The thread is there so that Python's signals (Ctrl-C) reach whoever waits while a statement runs, and so that the next rows are
read while the last ones are worked on.  A call waits for those before it.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qs, urlsplit

from sqlml.engines.postgres.chunks import Chunk, Copying, chunk_of
from sqlml.engines.postgres.errors import open_error
from sqlml.engines.postgres.notices import Notices
from sqlml.engines.postgres.types import Field
from sqlml.errors import InterfaceError

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.pq.abc import PGconn, PGresult

T = TypeVar("T")

COPY = "COPY (\n"  # what stands before a query that is copied
CONNECT_SECONDS = 10
CANCEL_SECONDS = 5


class Link:
    """A connection.  ``open`` it again after it was lost: it is then another session of the server."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.notices = Notices()
        self.generation = 0  # how many times it was opened
        self.is_lost = False  # found out by an error
        self._connection: Connection[tuple[Any, ...]] | None = None
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="sqlml-postgres")
        self._closed = False

    def open(self) -> None:
        """Connect.  ``OperationalError`` with the reason, and no password, where that fails."""
        self._drop()
        self.call(self._open)
        self.generation += 1
        self.is_lost = False

    def _open(self) -> None:
        import psycopg

        try:
            self._connection = psycopg.connect(_completed(self.url), autocommit=True, prepare_threshold=None)
        except Exception as error:
            raise open_error(self.url, error) from None
        self._connection.add_notice_handler(self.notices.hear)
        weakref.finalize(self, self._connection.close).atexit = False  # where nobody closes it

    # --- the thread ---------------------------------------------------------------------------------------------------

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

    # --- statements ---------------------------------------------------------------------------------------------------

    def status(self) -> str:
        """libpq's word for the session: idle, active, intrans, inerror, unknown (lost).  Asks nobody."""
        connection = self._connection
        return "unknown" if connection is None or self.is_lost else connection.info.transaction_status.name.lower()

    def time_zone(self) -> str:
        """The session's TimeZone, as the server reports it of its own accord."""
        return (self._connection.info.parameter_status("TimeZone") if self._connection else None) or "UTC"

    def describe(self, text: str) -> list[Field]:
        """The columns of a statement, prepared and not run; none where it has none."""

        def action() -> list[Field]:
            pq = self._pq()
            _checked(pq, pq.prepare(b"", text.encode()))
            return _fields(_checked(pq, pq.describe_prepared(b"")))

        return self.call(action)

    def execute(self, text: str) -> int:
        """Run a statement and forget its rows; how many rows it changed, -1 where there is nothing to count."""

        def action() -> int:
            pq = self._pq()
            return _count(_checked(pq, pq.exec_params(text.encode(), [])))

        return self.call(action)

    def whole(self, text: str) -> tuple[Chunk | None, int]:
        """Run a statement that COPY cannot carry: its rows, all at once, and how many it changed or gave."""

        def action() -> tuple[Chunk | None, int]:
            pq = self._pq()
            result = _checked(pq, pq.exec_params(text.encode(), [], result_format=1))
            return chunk_of(result), _count(result)

        return self.call(action)

    def ask(self, text: str) -> list[tuple[Any, ...]]:
        """The rows of a question of our own, as Python's values."""
        return self.call(lambda: self._open_connection().execute(text.encode()).fetchall())

    def copy_out(self, text: str) -> Copying:
        """Begin to read a query by COPY."""

        def action() -> Copying:
            pq = self._pq()
            # a comment at the text's end would swallow the closing bracket
            _checked(pq, pq.exec_(f"{COPY}{text}\n) TO STDOUT (FORMAT binary)".encode()))
            return Copying(pq)

        return self.call(action)

    def copy_in(self, text: str, pieces: Iterable[bytes]) -> Future[None]:
        """Begin to send the pieces of a binary COPY FROM STDIN; they are made on the connection's thread."""

        def action() -> None:
            with self._open_connection().cursor() as cursor, cursor.copy(text.encode()) as copy:
                for piece in pieces:
                    copy.write(piece)

        return self.submit(action)

    def cancel(self) -> None:
        """Ask the server to stop what runs, from any thread."""
        connection = self._connection
        if connection is not None:
            with suppress(Exception):  # nothing runs, or the server is gone: there is nothing to stop
                connection.cancel_safe(timeout=CANCEL_SECONDS)

    def close(self) -> None:
        """Close for good."""
        if not self._closed:
            if self.status() == "active":
                self.cancel()
            self._drop()
            self._closed = True
            self._worker.shutdown(wait=True)

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self.call(connection.close)

    def _open_connection(self) -> Connection[tuple[Any, ...]]:
        if self._connection is None:
            raise InterfaceError("the connection is closed")
        return self._connection

    def _pq(self) -> PGconn:
        return self._open_connection().pgconn


def _checked(connection: PGconn, result: PGresult) -> PGresult:
    """A result that is none of an error.  Of a connection that is gone libpq tells more than the last result does."""
    from psycopg import OperationalError, errors
    from psycopg.pq import ConnStatus, ExecStatus

    if result.status not in (ExecStatus.FATAL_ERROR, ExecStatus.BAD_RESPONSE):
        return result
    if connection.status == ConnStatus.BAD:
        raise OperationalError(connection.get_error_message())
    raise errors.error_from_result(result)


def _fields(result: PGresult) -> list[Field]:
    return [Field((result.fname(i) or b"").decode(), result.ftype(i), result.fmod(i)) for i in range(result.nfields)]


def _count(result: PGresult) -> int:
    return -1 if result.command_tuples is None else result.command_tuples


def _completed(url: str) -> str:
    """The URL with what we rely on: UTF-8, a name for the server's lists, an end to waiting."""
    given = parse_qs(urlsplit(url).query)
    wanted = {"client_encoding": "UTF8", "fallback_application_name": "sqlml", "connect_timeout": str(CONNECT_SECONDS)}
    added = "&".join(f"{key}={value}" for key, value in wanted.items() if key == "client_encoding" or key not in given)
    return f"{url}{'&' if '?' in url else '?'}{added}"
