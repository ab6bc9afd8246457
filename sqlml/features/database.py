"""The private database in which TRANSFORM is computed: in memory, one for the process, one cursor for each thread.

It knows DuckDB's own functions and nothing else: no tables, no macros, no files, no extensions that are not built in.  Its time
zone is UTC, its one thread the caller's own.  It runs single SELECTs alone, and its settings are locked.

What DuckDB raises leaves this module as ``ComputeError``.
"""

from __future__ import annotations

import atexit
import json
import os
import threading
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from sqlml_dialect.tokens import words

if TYPE_CHECKING:
    import duckdb
    from numpy.typing import NDArray

_CONFIG: dict[str, str | bool | int | float | list[str]] = {
    "threads": 1,
    "enable_external_access": False,
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
}
_SETTINGS = (
    "CREATE TYPE FLOAT64 AS DOUBLE",  # BigQuery's name
    "SET GLOBAL python_enable_replacements = false",
    "SET GLOBAL TimeZone = 'UTC'",
    "SET GLOBAL enable_optimizer = false",  # planning is what a single row costs, and there is nothing here to optimise
    "SET allowed_configs = ['enable_progress_bar']",  # which each cursor has for itself
    "SET lock_configuration = true",
)
ROWS = "__rows"
"""The table that a query reads."""
_START, _END = "SELECT (\n", "\n)"
_CAST = "SELECT CAST(NULL AS {})"


class ComputeError(Exception):
    """The database refused a text, or could not compute a row.  ``at``: the place in the text, where it is known."""

    def __init__(self, message: str, at: int | None = None) -> None:
        super().__init__(message)
        self.at = at


@contextmanager
def _own_errors() -> Iterator[None]:
    import duckdb

    try:
        yield
    except duckdb.Error as error:
        raise ComputeError(str(error)) from None


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
            for setting in _SETTINGS:
                _database.execute(setting)
        cursor = _database.cursor()
        _cursors.add(cursor)
        cursor.execute("SET enable_progress_bar = false")
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
    cursor, statement = _cursor(), _statement(sql)
    cursor.register(ROWS, table)
    try:
        with _own_errors():
            return cursor.sql(statement).to_arrow_table()
    finally:
        cursor.unregister(ROWS)


def select_rows(sql: str, table: pa.Table) -> list[tuple[Any, ...]]:
    """The same as Python values: quicker for a row or two."""
    cursor, statement = _cursor(), _statement(sql)
    cursor.register(ROWS, table)
    try:
        with _own_errors():
            return [tuple(row) for row in cursor.execute(statement).fetchall()]
    finally:
        cursor.unregister(ROWS)


def constant(sql: str) -> Any:
    """The value of an expression without columns."""
    parse_expression(sql)
    with _own_errors():
        return _cursor().execute(_parsed(f"{_START}{sql}{_END}")).fetchall()[0][0]


@lru_cache(maxsize=1024)
def _statement(sql: str) -> duckdb.Statement:
    """A query, parsed once and for all."""
    return _parsed(sql)


def _parsed(sql: str) -> duckdb.Statement:
    """A text as the one SELECT that it must be."""
    import duckdb

    with _own_errors():
        found = _cursor().extract_statements(sql)
    if len(found) != 1 or found[0].type != duckdb.StatementType.SELECT:
        raise ComputeError("this is not one SELECT")
    return found[0]


# --- in a database of their own ---------------------------------------------------------------------------------------


def select_apart(sql: str, name: str, table: pa.Table) -> pa.Table:
    """Run a query over a table of that name in a database with nothing else in it, optimiser and all."""
    with _own_errors(), _another() as connection:
        connection.register(name, table)
        return connection.sql(sql).to_arrow_table()


def hash_rows(rows: pa.RecordBatchReader) -> NDArray[np.uint64]:
    """DuckDB's 64-bit hash of every row (n,), in order, in bounded memory, by one thread; floats of 32 bits as those of 64."""
    columns = [f"CAST({f.name} AS DOUBLE)" if pa.types.is_float32(f.type) else f.name for f in rows.schema]
    with _own_errors(), _another() as connection:
        hashes = connection.from_arrow(rows).project(f"hash({', '.join(columns)}) AS h").fetchnumpy()["h"]
    return np.asarray(hashes, np.uint64)


def _another() -> duckdb.DuckDBPyConnection:
    import duckdb

    return duckdb.connect(":memory:", config={"enable_external_access": False, "threads": 1})


# --- asking -----------------------------------------------------------------------------------------------------------


def bind(sql: str) -> tuple[Any, ...]:
    """The types of a query's columns (DuckDBPyType), bound but not run."""
    with _own_errors():
        return tuple(_cursor().sql(_parsed(sql)).types)


def check_query(sql: str) -> None:
    """``ComputeError`` for a text that ``select`` would not run."""
    _statement(sql)


def parse_expression(sql: str) -> Mapping[str, Any]:
    """The tree of one expression as ``json_serialize_sql`` gives it.  ``ComputeError`` where the text is none, or more."""
    tree = _tree(f"{_START}{sql}{_END}")
    if tree["error"]:
        at = None
        if str(tree.get("position", "")).isdigit():
            at = len(f"{_START}{sql}".encode()[: int(tree["position"])].decode(errors="ignore")) - len(_START)
        raise ComputeError(str(tree["error_message"]).split("\n")[0], at)
    if _around(tree) != _around(_tree(f"{_START}NULL{_END}")):
        raise ComputeError("this is not one expression")
    found: Mapping[str, Any] = tree["statements"][0]["node"]["select_list"][0]
    return found


def _tree(sql: str) -> Mapping[str, Any]:
    with _own_errors():
        rows = _cursor().execute("SELECT json_serialize_sql(?)", [sql]).fetchall()
    tree: Mapping[str, Any] = json.loads(rows[0][0])
    return tree


def _around(tree: Mapping[str, Any]) -> list[Any]:
    """All of a text's statements but what they select."""
    nodes = [statement["node"] for statement in tree["statements"]]
    return [{**node, "select_list": len(node.get("select_list", ()))} for node in nodes]


@lru_cache(maxsize=4096)
def known_type(sql_type: str) -> str | None:
    """A type's name as this database writes it; None where it does not know it, or where the text is more than a type."""
    try:
        tree, plain = _tree(_CAST.format(sql_type)), _tree(_CAST.format("DOUBLE"))
        if tree["error"] or _around(tree) != _around(plain):
            return None
        (cast,) = tree["statements"][0]["node"]["select_list"]
        (known,) = plain["statements"][0]["node"]["select_list"]
        if cast.keys() != known.keys() or cast["child"] != known["child"] or not _is_type(cast["type_expr"]):
            return None
        return str(bind(_CAST.format(sql_type))[0])
    except ComputeError:
        return None


def _is_type(node: Mapping[str, Any]) -> bool:
    """Whether a tree is made of names of types and of constants alone."""
    return node["class"] == "CONSTANT" or (node["class"] == "TYPE" and all(_is_type(child) for child in node["children"]))


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
    # where one form of a function is consistent, another depends on the session's time zone alone, which is fixed here
    steady = {name for name, _, stability in rows if stability == "CONSISTENT"}
    changing = frozenset(name for name, _, stability in rows if stability not in (None, "CONSISTENT")) - steady
    return Functions(scalar, aggregate, changing | _CHANGING)
