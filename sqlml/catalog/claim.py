"""The claim to serve a catalog's endpoints: of all servers, in whatever homes and on whatever machines, one has it.

A catalog in a PostgreSQL is claimed by an advisory lock, which ends with its connection; one in a SQLite file by a lock on a file
beside it, which ends with its process.  So no claim outlives its server.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self
from urllib.parse import unquote

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from sqlml.errors import ServingError
from sqlml.home import without_password

_KEY = 0x73716C53  # "sqlS", beside the schema that the catalog lies in
_NAME_BYTES = 63  # of a PostgreSQL application name
_TAKEN = "the endpoints of the catalog {} are served already by {}"
_HINT = "one server is enough for a catalog: deploy from its home, or stop it first (UNDEPLOY its endpoints, or end its process)"


class Claim(Protocol):
    """Taken with ``with``, or ``ServingError`` where another server has it."""

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...

    def check(self) -> None:
        """Take it again where it was lost with the connection.  ``ServingError`` where another server has it meanwhile."""


def claim_of(engine: sa.Engine, url: str, home: Path, who: str) -> Claim:
    """The claim of a server that calls itself ``who`` (its process, machine and URL)."""
    shown = without_password(url)
    if engine.dialect.name == "postgresql":
        return AdvisoryClaim(engine, shown, who)
    path = Path(unquote((engine.url.database or "").removeprefix("file:")))
    # the catalog in the home itself is guarded by the home's own lock
    return FreeClaim() if path.parent == home else FileClaim(path.with_name(f"{path.name}.server"), shown, who)


class FreeClaim:
    """Nothing to claim."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...

    def check(self) -> None:
        """It cannot be lost."""


class FileClaim:
    """A lock on a file, which says who has it."""

    def __init__(self, path: Path, shown: str, who: str) -> None:
        self._path = path
        self._shown = shown
        self._who = who
        self._file = -1

    def __enter__(self) -> Self:
        import fcntl

        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.read(self._file, 4096).decode(errors="replace").strip() or "another process"
            os.close(self._file)
            raise ServingError(_TAKEN.format(self._shown, holder), hint=_HINT) from None
        os.ftruncate(self._file, 0)
        os.write(self._file, self._who.encode())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        os.ftruncate(self._file, 0)  # the file stays: who waits for it may have opened it already
        os.close(self._file)

    def check(self) -> None:
        """It is held as long as the process lives."""


class AdvisoryClaim:
    """An advisory lock on a connection of its own, whose name in the server says who has it."""

    def __init__(self, engine: sa.Engine, shown: str, who: str) -> None:
        self._engine = engine
        self._shown = shown
        self._who = who
        self._connection: sa.Connection | None = None

    def __enter__(self) -> Self:
        self._take()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._let_go()

    def check(self) -> None:
        """Ask whether the connection lives.  A database that cannot be reached is no reason to stop."""
        with suppress(SQLAlchemyError):
            if self._connection is not None:
                try:
                    self._connection.exec_driver_sql("SELECT 1")
                    return
                except SQLAlchemyError:
                    self._let_go()
            self._take()

    def _take(self) -> None:
        connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        try:
            name = f"sqlml serve: {self._who}".encode()[:_NAME_BYTES].decode(errors="ignore")
            connection.execute(sa.text("SELECT set_config('application_name', :name, false)"), {"name": name})
            schema = "hashtext(coalesce(current_schema(), ''))"
            if not connection.execute(sa.text(f"SELECT pg_try_advisory_lock({_KEY}, {schema})")).scalar():
                holder = connection.execute(sa.text(_HOLDER.format(key=_KEY, schema=schema))).scalar() or "another process"
                raise ServingError(_TAKEN.format(self._shown, str(holder).removeprefix("sqlml serve: ")), hint=_HINT)
        except BaseException:
            connection.invalidate()
            connection.close()
            raise
        self._connection = connection

    def _let_go(self) -> None:
        if self._connection is not None:
            with suppress(SQLAlchemyError):
                self._connection.invalidate()  # the lock ends with the session, so it must not go back into the pool
                self._connection.close()
            self._connection = None


_HOLDER = """
    SELECT application_name FROM pg_stat_activity JOIN pg_locks USING (pid)
    WHERE locktype = 'advisory' AND granted AND classid = {key} AND objid::bigint = ({schema}::bigint & 4294967295)
      AND pg_locks.database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
