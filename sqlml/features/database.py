"""The private database in which TRANSFORM is computed: in memory, one for the process, one cursor for each thread.

It knows DuckDB's own functions and nothing else: no tables, no macros, no files, no extensions that are not built in.  Its time
zone is UTC, its one thread the caller's own.
"""

from __future__ import annotations

import atexit
import json
import os
import threading
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from sqlml_dialect.tokens import words

if TYPE_CHECKING:
    import duckdb

_CONFIG: dict[str, str | bool | int | float | list[str]] = {
    "threads": 1,
    "enable_external_access": False,
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
}
_SETTINGS = (
    "SET enable_progress_bar = false",
    "SET python_enable_replacements = false",
    "SET TimeZone = 'UTC'",
    "PRAGMA disable_optimizer",  # planning is what a single row costs, and there is nothing here to optimise
)
ROWS = "__rows"
"""The table that a query reads."""


class _Local(threading.local):
    """What belongs to one thread."""

    cursor: duckdb.DuckDBPyConnection | None = None
    owner: object = None


_local = _Local()
_lock = threading.Lock()
_database: duckdb.DuckDBPyConnection | None = None
_cursors: weakref.WeakSet[duckdb.DuckDBPyConnection] = weakref.WeakSet()


def _cursor() -> duckdb.DuckDBPyConnection:
    """This thread's cursor."""
    global _database
    if _local.cursor is not None and _local.owner is _database and _database is not None:
        return _local.cursor
    import duckdb

    with _lock:
        if _database is None:
            _database = duckdb.connect(":memory:", config=_CONFIG)
            _database.execute("CREATE TYPE FLOAT64 AS DOUBLE")  # BigQuery's name
        cursor = _database.cursor()
        _cursors.add(cursor)
        for setting in _SETTINGS:
            cursor.execute(setting)
        _local.cursor, _local.owner = cursor, _database
    return cursor


@atexit.register
def close_database() -> None:
    """Close it; the next use opens another.  Left open, DuckDB's module would complain about leaks when Python ends."""
    global _database
    with _lock:
        for cursor in list(_cursors):
            cursor.close()
        _cursors.clear()
        if _database is not None:
            _database.close()
        _database = None


def _forget() -> None:
    """In a forked child: its parent's database is not its own."""
    global _database, _lock, _cursors, _local
    _kept.append((_database, _cursors, _local))  # never closed: the parent still uses what lies behind it
    _database, _lock, _cursors, _local = None, threading.Lock(), weakref.WeakSet(), _Local()


_kept: list[Any] = []
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


# --- computing --------------------------------------------------------------------------------------------------------


def select(sql: str, table: pa.Table) -> pa.Table:
    """Run a query over ``__rows``; its rows in the table's order.

    Not by PREPARE and EXECUTE: in a function that another DuckDB runs for a stream, EXECUTE ends the process (DuckDB 2.0.0).
    """
    cursor = _cursor()
    cursor.register(ROWS, table)
    try:
        return cursor.sql(sql).to_arrow_table()
    finally:
        cursor.unregister(ROWS)


def select_rows(sql: str, table: pa.Table) -> list[tuple[Any, ...]]:
    """The same as Python values: quicker for a row or two."""
    cursor = _cursor()
    cursor.register(ROWS, table)
    try:
        return [tuple(row) for row in cursor.sql(sql).fetchall()]
    finally:
        cursor.unregister(ROWS)


def constant(sql: str) -> Any:
    """The value of an expression without columns."""
    return _cursor().execute(f"SELECT (\n{sql}\n)").fetchall()[0][0]


# --- asking -----------------------------------------------------------------------------------------------------------


def bind(sql: str) -> tuple[Any, ...]:
    """The types of a query's columns (DuckDBPyType), bound but not run."""
    return tuple(_cursor().sql(sql).types)


def parse(sql: str) -> Mapping[str, Any]:
    """The tree of a SELECT as ``json_serialize_sql`` gives it."""
    rows = _cursor().execute("SELECT json_serialize_sql(?)", [sql]).fetchall()
    tree: Mapping[str, Any] = json.loads(rows[0][0])
    return tree


@lru_cache(maxsize=4096)
def known_type(sql_type: str) -> str | None:
    """A type's name as this database writes it; None where it does not know it."""
    import duckdb

    try:
        return str(bind(f"SELECT CAST(NULL AS {sql_type})")[0])
    except duckdb.Error:
        return None


@dataclass(frozen=True)
class Functions:
    """The names of the database's functions, in small letters."""

    scalar: frozenset[str]
    aggregate: frozenset[str]
    changing: frozenset[str]  # do not give the same again for the same arguments


_CHANGING = words(
    """
    ago current_catalog current_database current_date current_query current_role current_schema current_schemas current_time
    current_timestamp current_user localtime localtimestamp pg_conf_load_time pg_postmaster_start_time pg_sleep session_user user
    """
)
"""Macros and words of the language that change, which the catalog of functions does not tell."""


@cache
def functions() -> Functions:
    """What the database can compute."""
    rows = _cursor().execute("SELECT DISTINCT lower(function_name), function_type, stability FROM duckdb_functions()").fetchall()
    scalar = frozenset(name for name, kind, _ in rows if kind in ("scalar", "macro"))
    aggregate = frozenset(name for name, kind, _ in rows if kind in ("aggregate", "window")) - scalar
    changing = frozenset(name for name, _, stability in rows if stability not in (None, "CONSISTENT"))
    return Functions(scalar, aggregate, changing | _CHANGING)
