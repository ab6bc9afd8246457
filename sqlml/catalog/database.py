"""The catalog's database: opening it, bringing it up to date, reading and writing in transactions.

SQLite runs in WAL mode.  Every write transaction begins with ``BEGIN IMMEDIATE``, so two writers wait for each other instead of
failing half way, and a process that is killed leaves nothing behind but a log that the next reader rolls back.
"""

from __future__ import annotations

import os
import re
import threading
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from sqlml.address import check_escaped, read_address
from sqlml.catalog.tables import metadata
from sqlml.errors import OperationalError
from sqlml.registry import missing_extra

HEAD = "0004"
"""The newest migration; a test compares it with the files."""

BUSY_SECONDS = 30
ADVISORY_LOCK = 0x73716C6D6C  # "sqlml": what writers of a PostgreSQL catalog wait for

_migrating = threading.Lock()  # alembic keeps its context in the module


def open_database(url: str) -> sa.Engine:
    """Connect and migrate.  ``OperationalError`` where the place cannot be read or written, or is of a newer sqlml."""
    engine = _engine(parse_url(url))
    try:
        revision = _revision(engine)
        if revision is None:
            _create(engine)
        elif revision != HEAD:
            with _migrating:
                _migrate(engine)
    finally:
        engine.dispose()
    return _engine(_existing(engine.url))


def parse_url(url: str) -> sa.URL:
    """A catalog's URL.  ``OperationalError`` where SQLAlchemy knows no such database, ``MissingExtra`` where its driver lacks."""
    if url.lower().startswith("postgres"):
        read_address(url)
    try:
        parsed = sa.make_url(url)
        check_escaped(parsed.host, parsed.database, has_password=parsed.password is not None)
        parsed.get_dialect().import_dbapi()
    except ModuleNotFoundError as error:
        raise missing_extra(error) from error
    except (SQLAlchemyError, ValueError) as error:
        reason = "its port is no number" if isinstance(error, ValueError) else str(error)
        raise OperationalError(
            f"the catalog's URL cannot be used: {reason}",
            hint="a SQLAlchemy URL, such as sqlite:////folder/catalog.db or postgresql+psycopg://user@host/database",
        ) from None
    return parsed


def absolute_url(url: str) -> str:
    """The same catalog, named so that processes in other folders find it: the path of a SQLite file is absolute."""
    parsed = parse_url(url)
    path = parsed.database or ""
    file = path.removeprefix("file:") if "uri" in parsed.query else path
    if parsed.get_backend_name() != "sqlite" or not file or file == ":memory:" or parsed.query.get("mode") == "memory":
        return url
    place = path.removesuffix(file) + str(Path(file).absolute())
    return parsed.set(database=place).render_as_string(hide_password=False)


@contextmanager
def writing(engine: sa.Engine) -> Iterator[sa.Connection]:
    """A transaction that writes, one at a time over all processes; committed at the end, rolled back on an error."""
    with _translated(engine), engine.connect().execution_options(sqlml_write=True) as connection, connection.begin():
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({ADVISORY_LOCK})")
        yield connection


@contextmanager
def reading(engine: sa.Engine) -> Iterator[sa.Connection]:
    """A transaction that only reads, and sees one state throughout."""
    with _translated(engine), engine.connect() as connection, connection.begin():
        yield connection


_NOBODY = re.compile(r"connection refused|could not connect|timed? ?out|failed to resolve|no such file", re.IGNORECASE)


@contextmanager
def _translated(engine: sa.Engine) -> Iterator[None]:
    try:
        yield
    except SQLAlchemyError as error:
        said = str(error.orig if isinstance(error, DBAPIError) else error)
        reason = re.sub(r"^connection failed: connection to server at .*? failed: (FATAL:\s+)?", "", said).partition("\n")[0]
        needs = "its user must get in there, and may make and change tables"
        if engine.dialect.name == "sqlite":
            needs = "its folder must exist and be writable"
        elif _NOBODY.search(said):
            needs = "no server answers there: start it, or check host and port"
        raise OperationalError(
            f"the catalog {_shown(engine.url)} cannot be used: {reason}",
            hint=f"{needs}; another catalog can be given with catalog=… (a SQLAlchemy URL)",
        ) from error


def insert_one(c: sa.Connection, table: sa.Table, row: Mapping[str, Any]) -> int:
    """The new row's id."""
    [number] = c.execute(sa.insert(table).values(row).returning(table.c.id)).scalars()
    return int(number)


def insert_all(c: sa.Connection, table: sa.Table, rows: list[dict[str, Any]]) -> None:
    """Any number of new rows."""
    if rows:
        c.execute(sa.insert(table), rows)


class Watch:
    """Tells cheaply whether anything was written to the catalog since the last time: for what is asked with every statement.

    SQLite counts commits for a connection that stays open; of other databases nothing is known, so everything may have changed.
    """

    def __init__(self, engine: sa.Engine) -> None:
        self._lock = threading.Lock()
        self._connection = engine.raw_connection() if engine.dialect.name == "sqlite" else None
        self._cursor: Any = None if self._connection is None else self._connection.cursor()
        self._path = unquote((engine.url.database or "").removeprefix("file:"))

    def moment(self) -> object:
        """Equal as long as nothing changes."""
        if self._connection is None:
            return object()
        try:
            status = os.stat(self._path)  # the connection would go on with a file that was deleted or replaced
        except OSError:
            return object()
        with self._lock:
            return self._cursor.execute("PRAGMA data_version").fetchall()[0][0], status.st_dev, status.st_ino

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()


def _existing(url: sa.URL) -> sa.URL:
    """The same place, which is there by now: where a SQLite file was deleted since, no empty one is made in its stead."""
    if url.get_backend_name() != "sqlite" or not url.database or url.query:
        return url
    return url.set(database=f"file:{quote(url.database)}", query={"mode": "rw", "uri": "true"})


def _shown(url: sa.URL) -> str:
    """A catalog's URL as it was given, without its password."""
    text = url.render_as_string(hide_password=True)
    return unquote(text.partition("?")[0]).replace("///file:", "///") if "///file:" in text else text


_engines: weakref.WeakValueDictionary[str, sa.Engine] = weakref.WeakValueDictionary()
_sharing = threading.Lock()


def _engine(parsed: sa.URL) -> sa.Engine:
    """SQLite's engines keep nothing open: all who use a file have one, with the texts that it has made of statements."""
    if parsed.get_backend_name() != "sqlite":
        return sa.create_engine(parsed, pool_pre_ping=True)
    with _sharing:
        found = _engines.get(str(parsed))
        if found is None:
            found = _engines[str(parsed)] = _sqlite_engine(parsed)
        return found


def _sqlite_engine(parsed: sa.URL) -> sa.Engine:
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
        if not sa.inspect(connection).has_table(_VERSION.name):
            return None
        return connection.execute(sa.select(_VERSION.c.version_num)).scalar()


_VERSION = sa.Table(
    "alembic_version",
    sa.MetaData(),
    sa.Column("version_num", sa.String(32), nullable=False),
    sa.PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)
"""Alembic's own table, as it makes it."""


def _create(engine: sa.Engine) -> None:
    """A new catalog as the newest migration leaves it, without loading Alembic, which takes longer than all the tables."""
    with writing(engine) as connection:
        if not sa.inspect(connection).has_table(_VERSION.name):  # somebody else may have been faster
            metadata.create_all(connection)
            _VERSION.create(connection)
            connection.execute(sa.insert(_VERSION).values(version_num=HEAD))


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
