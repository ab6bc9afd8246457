"""Errors of databases behind SQLAlchemy as ours: the database's own message, never a password, the place where it can be told."""

from __future__ import annotations

import re
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc
from sqlml_dialect.tokens import Kind, scan

from sqlml.errors import (
    Cancelled,
    DatabaseError,
    DataError,
    EngineError,
    IntegrityError,
    MissingExtra,
    NotSupportedError,
    OperationalError,
)

_CLASSES: tuple[tuple[type[exc.DBAPIError], type[DatabaseError]], ...] = (
    (exc.IntegrityError, IntegrityError),
    (exc.DataError, DataError),
    (exc.NotSupportedError, NotSupportedError),
    (exc.ProgrammingError, EngineError),
    (exc.OperationalError, OperationalError),
    (exc.InterfaceError, OperationalError),
)

_MISSING_COLUMN = re.compile(
    r"no such column: (?:\w+\.)?(?P<sqlite>[^\s]+)"
    r"|column \"?(?:\w+\.)?(?P<postgres>[^\s\"]+)\"? does not exist"
    r"|Unknown column '(?:\w+\.)?(?P<mysql>[^']+)'"
    r"|Invalid column name '(?P<mssql>[^']+)'"
    r"|\"(?P<oracle>[^\"]+)\": invalid identifier"
)
_NAMED = re.compile(
    r"no such (?:table|function): (\S+)|near \"(.+?)\"|at or near \"(.+?)\"|relation \"(.+?)\" does not exist"
    r"|function (\w+)\(.*\) does not exist|Table '(?:.+\.)?(.+?)' doesn't exist"
)

_MISSING_TABLE = re.compile(
    r"no such table: (\S+)|relation \"(.+?)\" does not exist|Table '(?:.+\.)?(.+?)' doesn't exist|Invalid object name '(.+?)'"
)

_SQLITE_ERROR, _SQLITE_READONLY, _SQLITE_INTERRUPT = 1, 8, 9  # https://sqlite.org/rescode.html

_PACKAGES = {
    "MySQLdb": "mysqlclient",
    "psycopg2": "psycopg2-binary",
    "mysql": "mysql-connector-python",
    "pysqlcipher3": "sqlcipher3",
}
_DIALECTS = {
    "snowflake": "snowflake-sqlalchemy", "bigquery": "sqlalchemy-bigquery", "trino": "trino[sqlalchemy]", "hive": "PyHive",
    "clickhouse": "clickhouse-sqlalchemy", "redshift": "sqlalchemy-redshift", "databricks": "databricks-sqlalchemy",
    "db2": "ibm_db_sa", "awsathena": "PyAthena[SQLAlchemy]", "teradatasql": "teradatasqlalchemy", "hana": "sqlalchemy-hana",
    "cockroachdb": "sqlalchemy-cockroachdb", "firebird": "sqlalchemy-firebird", "duckdb": "duckdb-engine",
}  # fmt: skip


def missing_driver(url: sa.URL, error: ModuleNotFoundError) -> MissingExtra:
    """What to install for a driver that is not there: the package often has another name than its module."""
    module = (error.name or url.get_driver_name()).partition(".")[0]
    package = _PACKAGES.get(module, module)
    return MissingExtra(
        f"the driver {module} for {url.drivername}:// is not installed", hint=f"install it with: pip install {package}"
    )


def missing_dialect(url: sa.URL) -> DatabaseError:
    """SQLAlchemy itself does not know the database: a package may teach it."""
    backend = url.get_backend_name()
    if backend in _DIALECTS:
        return MissingExtra(
            f"SQLAlchemy's dialect for {backend}:// is not installed", hint=f'install it with: pip install "{_DIALECTS[backend]}"'
        )
    return OperationalError(f"SQLAlchemy knows no database {url.drivername}", hint="as in mysql+pymysql://user@host/database")


def own_error(error: exc.SQLAlchemyError, url: sa.URL, text: str, cancelled: bool = False) -> DatabaseError:
    """The error with its place in ``text``, if any; ``cancelled``: a person had stopped the statement."""
    original: Any = error.orig if isinstance(error, exc.DBAPIError) else None
    code = getattr(original, "sqlite_errorcode", None)
    if cancelled or code == _SQLITE_INTERRUPT:
        return Cancelled("cancelled")
    message = without_secrets(str(original if original is not None else error), url)
    first, *more = [line.strip() for line in message.splitlines() if line.strip()] or ["the database gave no reason"]
    if "LINE 1:" in message:  # PostgreSQL draws the statement that it was given, which is not the one that was typed
        more = [line for line in more if line.startswith(("HINT:", "DETAIL:"))]
    span = _place(first, text)
    cls = _class_of(error, original, code)
    return cls(first, source=text if span else None, span=span, hint="\n".join(more) or None)


def _class_of(error: exc.SQLAlchemyError, original: Any, code: int | None) -> type[DatabaseError]:
    if code == _SQLITE_ERROR:
        return EngineError
    if code == _SQLITE_READONLY or getattr(original, "sqlstate", None) == "25006":
        return NotSupportedError
    number = original.args[0] if original is not None and original.args else None
    if isinstance(error, exc.OperationalError) and isinstance(number, int) and 1000 <= number < 2000:
        return EngineError  # MySQL's server, about the statement
    return next((ours for theirs, ours in _CLASSES if isinstance(error, theirs)), OperationalError)


def missing_column(message: str) -> str | None:
    """The column whose absence a message tells of, in the words of the databases that are most used."""
    match = _MISSING_COLUMN.search(message)
    return next(filter(None, match.groups()), None) if match else None


def missing_table(message: str) -> str | None:
    """The table whose absence a message tells of, without its schema."""
    match = _MISSING_TABLE.search(message)
    name = next(filter(None, match.groups()), None) if match else None
    return name.rpartition(".")[2].strip('"`') if name else None


def without_secrets(message: str, url: sa.URL) -> str:
    """A message without the URL's password and without what its other settings keep secret."""
    secrets = [str(url.password or "")]
    for key, value in url.query.items():
        if re.search("pass|secret|token|key|credential", key, re.IGNORECASE):
            secrets += [value] if isinstance(value, str) else value
    for secret in filter(None, secrets):
        message = message.replace(secret, "***")
    return message


def _place(message: str, text: str) -> tuple[int, int] | None:
    """The only token of the text that the message names."""
    named = _NAMED.search(message)
    name = missing_column(message) or (next(filter(None, named.groups()), None) if named else None)
    if name is None:
        return None
    wanted = name.strip("\"'`").rpartition(".")[2].lower()
    kinds = (Kind.WORD, Kind.QUOTED, Kind.SYMBOL)
    found = [t for t in scan(text) if t.kind in kinds and t.text.strip('"`').lower() == wanted]
    return (found[0].start, found[0].end) if len(found) == 1 else None


def cancelled() -> Cancelled:
    """A person stopped a statement between two batches of rows."""
    return Cancelled("cancelled")
