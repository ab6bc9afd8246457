"""The database that a connection is made to: a DuckDB file, one in memory, or a PostgreSQL server."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

from sqlml.address import EXAMPLE
from sqlml.contracts import Engine, FunctionEngine, HomeEngine
from sqlml.errors import NotSupportedError, OperationalError
from sqlml.home import CATALOG_SCHEMA, IN_DATABASE, catalog_url, home_of, without_password
from sqlml.registry import get

MEMORY = ":memory:"

_URL = re.compile(r"(?P<scheme>[a-z][a-z0-9+]+)://", re.IGNORECASE)
_SHORT = re.compile(r"postgres(ql)?(\+\w+)?:(?!//)", re.IGNORECASE)
_POSTGRES = re.compile(r"postgres(ql)?(\+\w+)?", re.IGNORECASE)


@dataclass(frozen=True)
class Place:
    """What a connection works on: the database (of a URL without its password), the folder of its models, and whether the
    database is new.
    """

    database: str
    home: Path
    is_new: bool


def check_catalog(database: str, catalog: str | None) -> None:
    """``NotSupportedError`` for a catalog that a database cannot hold."""
    if catalog == IN_DATABASE and not is_url(database):
        raise NotSupportedError(
            f"catalog={IN_DATABASE!r} is for a PostgreSQL server: a DuckDB file has its catalog beside it",
            hint="leave out catalog",
        )


def place_of(database: str, catalog: str | None, temporary: str | None) -> Place:
    """Where a database is and where its models go.  ``temporary``: the folder of a database in memory."""
    if temporary is not None:
        return Place(database, Path(temporary), True)
    if is_url(database):
        return Place(without_password(database), home_of(database, catalog), False)
    try:
        is_new = not Path(database).exists()
    except OSError:  # nobody may look there: opening it tells why
        is_new = False
    return Place(database, home_of(database, catalog), is_new)


def is_url(database: str) -> bool:
    """Whether a database is named by a URL.  ``NotSupportedError`` for one that cannot be a home."""
    match = _URL.match(database)
    if _SHORT.match(database):
        raise OperationalError("the URL of a PostgreSQL server has two slashes after its colon", hint=f"as in {EXAMPLE}")
    if match and not _POSTGRES.fullmatch(match["scheme"]):
        raise NotSupportedError(
            f"{match['scheme']}:// cannot be a connection's own database: that is a DuckDB file or postgresql://…",
            hint="CREATE CONNECTION c TYPE sqlalchemy WITH (url = '…') reads from any database that SQLAlchemy knows",
        )
    return match is not None


def open_database(database: str) -> HomeEngine:
    """Connect to a database."""
    kind = "duckdb"
    if is_url(database):
        kind, database = "postgres", f"postgresql://{database.partition('://')[2]}"  # whichever driver the URL names
    engine: HomeEngine = get("engine", kind).open(database)
    return engine


def calls_functions(engine: Engine) -> TypeGuard[FunctionEngine]:
    """Whether a database calls Python functions from inside its queries."""
    kind = type(engine)
    if kind not in _calling:
        _calling[kind] = isinstance(engine, FunctionEngine)  # looks at every method: not for each statement
    return _calling[kind]


_calling: dict[type[Engine], bool] = {}


def catalog_in(database: str, catalog: str | None, engine: HomeEngine) -> str | None:
    """The catalog's URL; where it lies in the database itself, its schema is made."""
    if catalog == IN_DATABASE and not engine.has_schema(CATALOG_SCHEMA):  # to make it takes a right that to use it does not
        engine.run(f"CREATE SCHEMA IF NOT EXISTS {CATALOG_SCHEMA}")
    return catalog_url(database, catalog)
