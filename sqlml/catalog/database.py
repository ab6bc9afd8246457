"""The catalog's database: opening it, bringing it up to date, reading and writing in transactions.

SQLite runs in WAL mode.  Every write transaction begins with ``BEGIN IMMEDIATE``, so two writers wait for each other instead of
failing half way, and a process that is killed leaves nothing behind but a log that the next reader rolls back.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from sqlml.errors import OperationalError

HEAD = "0001"
"""The newest migration; a test compares it with the files."""

BUSY_SECONDS = 30


def open_database(url: str) -> sa.Engine:
    """Connect and migrate.  ``OperationalError`` where the place cannot be read or written, or is of a newer sqlml."""
    engine = _engine(url)
    try:
        if _revision(engine) != HEAD:
            _migrate(engine)
    except SQLAlchemyError as error:
        reason = error.orig if isinstance(error, DBAPIError) else error
        raise OperationalError(
            f"cannot open the catalog {sa.make_url(url).render_as_string(hide_password=True)}: {reason}",
            hint="its folder must exist and be writable; another catalog can be given with catalog=… (a SQLAlchemy URL)",
        ) from error
    return engine


@contextmanager
def writing(engine: sa.Engine) -> Iterator[sa.Connection]:
    """A transaction that writes; committed at the end, rolled back on an error."""
    with engine.connect().execution_options(sqlml_write=True) as connection, connection.begin():
        yield connection


@contextmanager
def reading(engine: sa.Engine) -> Iterator[sa.Connection]:
    """A transaction that only reads, and sees one state throughout."""
    with engine.connect() as connection, connection.begin():
        yield connection


def _engine(url: str) -> sa.Engine:
    parsed = sa.make_url(url)
    if parsed.get_backend_name() != "sqlite":
        return sa.create_engine(parsed, pool_pre_ping=True)
    # One connection per transaction: cheap with SQLite, safe across threads and forks, nothing kept open.
    engine = sa.create_engine(parsed, poolclass=NullPool, connect_args={"timeout": BUSY_SECONDS, "check_same_thread": False})

    @sa.event.listens_for(engine, "connect")
    def _on_connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # this module writes BEGIN itself
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = NORMAL")
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.close()

    @sa.event.listens_for(engine, "begin")
    def _on_begin(connection: sa.Connection) -> None:
        write = connection.get_execution_options().get("sqlml_write", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    return engine


def _revision(engine: sa.Engine) -> str | None:
    with reading(engine) as connection:
        if not sa.inspect(connection).has_table("alembic_version"):
            return None
        return connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()


def _migrate(engine: sa.Engine) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.util.exc import CommandError

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    with writing(engine) as connection:
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except CommandError as error:
            raise OperationalError(
                f"the catalog was written by a newer sqlml ({error})", hint="upgrade sqlml: pip install --upgrade sqlml"
            ) from error
