"""sqlml: TRAIN, PREDICT, EXPLAIN and DEPLOY in SQL.

>>> import sqlml
>>> connection = sqlml.connect()
>>> connection.execute("SELECT 40 + ? AS answer", [2]).fetchone()
(42,)
>>> connection.close()

The module is a DB-API 2.0 module (PEP 249).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlml.dbapi import (
    BINARY,
    DATETIME,
    NUMBER,
    ROWID,
    STRING,
    Binary,
    Connection,
    Cursor,
    Date,
    DateFromTicks,
    Time,
    TimeFromTicks,
    Timestamp,
    TimestampFromTicks,
    apilevel,
    connect,
    paramstyle,
    threadsafety,
)
from sqlml.errors import (
    DatabaseError,
    DataError,
    Error,
    IntegrityError,
    InterfaceError,
    InternalError,
    NotSupportedError,
    OperationalError,
    ProgrammingError,
    Warning,
)
from sqlml.version import __version__

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell
    from sqlml_dialect import Statement

    from sqlml import spark

__all__ = [
    "BINARY",
    "DATETIME",
    "NUMBER",
    "ROWID",
    "STRING",
    "Binary",
    "Connection",
    "Cursor",
    "DataError",
    "DatabaseError",
    "Date",
    "DateFromTicks",
    "Error",
    "IntegrityError",
    "InterfaceError",
    "InternalError",
    "NotSupportedError",
    "OperationalError",
    "ProgrammingError",
    "Statement",
    "Time",
    "TimeFromTicks",
    "Timestamp",
    "TimestampFromTicks",
    "Warning",
    "__version__",
    "apilevel",
    "connect",
    "load_ipython_extension",
    "paramstyle",
    "parse",
    "spark",
    "threadsafety",
]


def parse(text: str) -> list[Statement]:
    """The statements of a text, each with its place and its ``kind``; nothing is run.  ``ParseError`` where one is malformed."""
    import sqlml_dialect

    from sqlml.errors import parse_error

    try:
        return sqlml_dialect.parse(text)
    except sqlml_dialect.DialectError as error:
        raise parse_error(error) from None


def __getattr__(name: str) -> Any:
    """``sqlml.spark`` and ``sqlml.Statement``, which are imported when they are first asked for."""
    if name == "spark":
        import importlib

        return importlib.import_module("sqlml.spark")
    if name == "Statement":  # a job's process does without the language
        from sqlml_dialect import Statement

        return Statement
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def load_ipython_extension(ipython: InteractiveShell) -> None:
    """``%load_ext sqlml``: the magics ``%sqlml`` and ``%%sqlml``."""
    from sqlml.notebook import load_ipython_extension as load

    load(ipython)
