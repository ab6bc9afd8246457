"""DuckDB as the place where data lives.

One process owns a DuckDB file, so only the session opens it.  All work of a connection runs on one DuckDB connection (a
transaction spans its cursors); functions and live relations are installed through a second one, so that an open transaction
neither holds them back nor takes them away when it rolls back.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import uuid
import weakref
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager, suppress
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import duckdb
from sqlml_dialect import quote_identifier

from sqlml.contracts import FewRows, Stream
from sqlml.engines.duckdb.errors import engine_error, open_error
from sqlml.engines.duckdb.interrupts import Interrupts
from sqlml.engines.duckdb.many import PARAMETERS, insert_of
from sqlml.engines.duckdb.results import columns_of, expected_rows, guarded, whole
from sqlml.engines.duckdb.selects import Select, Selects
from sqlml.engines.duckdb.settings import own_setting
from sqlml.engines.duckdb.shared import attached, functions, is_database
from sqlml.engines.spool import apart
from sqlml.errors import BindError, DatabaseError, Error
from sqlml.native.duckdb_function import register
from sqlml.types import Column

if TYPE_CHECKING:
    import pyarrow as pa

T = TypeVar("T")

BATCH_ROWS = 122_880
"""Rows per Arrow batch: DuckDB's own row-group size."""

EXPLAIN = "EXPLAIN "
ABORTED = -1
MEMORY = ":memory:"


class DuckDBEngine:
    """The engine of one connection to one DuckDB database."""

    name = "duckdb"
    dialect = "duckdb"
    notice: str | None = None
    keeps_settings = False

    def __init__(self, connection: duckdb.DuckDBPyConnection, database: str) -> None:
        self.database = database
        self.connection = connection
        self.interrupts = Interrupts(connection.interrupt)
        self._selects = Selects(connection)
        self.side = connection.cursor()  # for functions, relations and questions, outside the user's transaction
        self._reading: weakref.ref[Generator[pa.RecordBatch, None, None]] | None = None
        for own in (self.connection, self.side):
            # The bar would draw into results that go to a file or a pipe.  In Jupyter without ipywidgets DuckDB has none, and
            # refuses even to hear that none is wanted.
            with suppress(duckdb.InvalidInputException):
                own.execute("SET enable_progress_bar_print = false")
        with suppress(duckdb.InvalidInputException):
            self.connection.execute("SET enable_progress_bar = true")  # or it would not count for ``progress`` either
        self._key = f"{MEMORY}{id(self)}" if database == MEMORY else os.path.realpath(database)
        functions.open(self._key)

    @classmethod
    def open(cls, database: str) -> DuckDBEngine:
        """Open a file or ``:memory:``.  ``OperationalError`` where it is no DuckDB file, cannot be written or is held."""
        register()
        with functions.opening():  # nobody in this process may have it open while it is looked into, see is_database
            is_open = functions.has_open(os.path.realpath(database))
            if database != MEMORY and not is_open and not is_database(Path(database)):
                raise open_error(database, duckdb.IOException("not a valid DuckDB database"))
            try:
                # A Python variable must never be readable by naming it in SQL.
                connection = duckdb.connect(database, config={"python_enable_replacements": False})
            except duckdb.Error as error:
                raise open_error(database, error) from None
            return cls(connection, database)

    def close(self) -> None:
        self.side.close()
        self.connection.close()
        functions.close(self._key)

    def quote(self, name: str) -> str:
        return quote_identifier(name)

    def fold(self, name: str) -> str:
        return name

    # --- the HomeEngine protocol --------------------------------------------------------------------------------------------

    def describe(self, query: str, parameters: Sequence[Any] = ()) -> tuple[Column, ...]:
        """The columns of a query, bound but not run.  ``BindError`` where the text is not one query."""
        statement = self.check_query(query)
        try:
            relation = self.connection.sql(statement, params=_bound(parameters))
            return columns_of(relation.columns, relation.types)
        except duckdb.Error as error:
            raise self._placed_error(error, query, parameters) from None

    def bind(self, text: str, parameters: Any = ()) -> None:
        """Check a statement without running it; raises what running it would raise at once."""
        try:
            self.connection.execute(EXPLAIN + text, _bound(parameters))
        except duckdb.Error as error:
            raise _shifted(engine_error(error, EXPLAIN + text), text) from None

    def missing_column(self, error: Error) -> str | None:
        """The column whose absence an error tells of, if it does."""
        match = _MISSING_COLUMN.search(error.message)
        return match[1] if match else None

    def scope(self, before: str, after: str) -> tuple[str, ...]:
        """The columns in scope at a place, as far as DuckDB can be brought to tell: the error about an absurd call names them."""
        try:
            self.connection.execute(f"{EXPLAIN}{before}abs(struct_pack(*COLUMNS(*))){after}")
        except duckdb.Error as error:
            match = _SCOPE.search(str(error))
            if match:
                return tuple(name for name, _ in duckdb.sqltype(match[1]).children)
        return ()

    def has_function(self, name: str) -> bool:
        """Asked anew when something else than a query has run on a connection of ours: a macro may have been made or dropped."""
        known = functions.known(self._key)
        if name not in known:
            known[name] = self._has_function(name)
        return known[name]

    def once(self, key: str, make: Callable[[], T]) -> T:
        """Something that all connections of this process to the database share, made by the first that asks."""
        return functions.once(self._key, key, make)

    def _has_function(self, name: str) -> bool:
        if name.lower() in _keywords():
            return True
        try:  # binding a call asks the functions, macros and table functions at once, thirty times faster than duckdb_functions()
            self.side.execute(f"EXPLAIN SELECT {quote_identifier(name)}()")
        except duckdb.Error as error:
            return not re.match(r"Catalog Error: Scalar Function with name .* does not exist!", str(error), re.DOTALL)
        return True

    def sample_clause(self, seed: int, rows: int) -> str:
        """What follows ``FROM (query)``: the sample depends on the rows and the seed, not on their order or the threads."""
        return f" AS __sqlml_rows ORDER BY hash(__sqlml_rows, {seed}) LIMIT {rows}"

    def interrupt(self) -> None:
        self.interrupts.interrupt()

    def progress(self) -> float | None:
        """What part of the running statement is done, 0 to 1."""
        percent = self.connection.query_progress()
        return percent / 100 if percent >= 0 else None

    # --- running ----------------------------------------------------------------------------------------------------

    def run(self, text: str, parameters: Any = ()) -> Stream:
        """Run one statement of the database."""
        try:
            with self.interrupts.statement():
                select = self._selects.of(text)
                if select is None:
                    return self._execute(text, parameters)
                short = self._selects.run_short(select, text, _bound(parameters)) if select.short else None
                if short is None:
                    return self._select(select, text, parameters)
                self._reading = None if isinstance(short.batches, FewRows) else weakref.ref(short.batches)
                return short
        except duckdb.Error as error:
            raise self._placed_error(error, text, parameters) from None

    def _placed_error(self, error: duckdb.Error, text: str, parameters: Any) -> DatabaseError:
        """The error with its place: a lazy relation's error does not tell it, that of binding the same text again does."""
        found = engine_error(error, text)
        if "\nLINE " not in str(error):
            try:
                self.connection.execute(EXPLAIN + text, _bound(parameters))
            except duckdb.Error as again:
                located = _shifted(engine_error(again, EXPLAIN + text), text)
                if located.span is not None and located.message == found.message:  # EXPLAIN may refuse what could be run
                    return located
        return found

    def run_many(self, text: str, parameters: Sequence[Sequence[Any]]) -> None:
        """Run one statement for each row of parameters, all of them or none; of an INSERT all rows at once."""
        insert = insert_of(text, parameters) if len(parameters) > 1 and not self._has_own_parents(text) else None
        try:
            self._selects.of(text)  # which notes a BEGIN
            functions.changed(self._key)
            if insert is not None:
                self._insert(*insert)
                return
            with self._atomic():
                self.connection.executemany(text, [list(row) for row in parameters])
        except duckdb.Error as error:
            raise engine_error(error, text) from None

    @contextmanager
    def _atomic(self) -> Generator[None]:
        """A transaction, where the user has none open."""
        if self.transaction() is not None:
            yield
            return
        self.connection.begin()
        try:
            yield
        except BaseException:
            self.connection.rollback()
            raise
        self.connection.commit()

    def _has_own_parents(self, text: str) -> bool:
        """Whether a statement names a table with a foreign key to itself: DuckDB looks for parents before any row is in."""
        query = (
            "SELECT table_name FROM duckdb_constraints() WHERE constraint_type = 'FOREIGN KEY' AND referenced_table = table_name"
        )
        try:
            return any(name.lower() in text.lower() for (name,) in self.connection.execute(query).fetchall())
        except duckdb.Error:
            return False  # an aborted transaction says so when the statement comes

    def _insert(self, text: str, rows: pa.Table) -> None:
        self.connection.register(PARAMETERS, rows)
        try:
            self.connection.execute(text)
        finally:
            self.connection.unregister(PARAMETERS)

    def _select(self, select: Select, text: str, parameters: Any) -> Stream:
        relation = self.connection.sql(select.statement, params=_bound(parameters))
        columns = columns_of(relation.columns, relation.types)
        reader = relation.to_arrow_reader(BATCH_ROWS)
        batches = guarded(reader, text, partial(select.note_result, columns, reader.schema))
        self._reading = weakref.ref(batches)
        return Stream(columns, reader.schema, batches)

    def _execute(self, text: str, parameters: Any) -> Stream:
        import pyarrow as pa

        run = own_setting(self.connection, text) if self.keeps_settings else text
        try:
            cursor = self.connection.execute(run, _bound(parameters))
        finally:
            functions.changed(self._key)
        described = cursor.description or []
        columns = columns_of([d[0] for d in described], [d[1] for d in described])
        rows = cursor.fetchall() if described else []
        names = [c.name for c in columns]
        if names == ["Count"] and len(rows) == 1:
            return Stream((), pa.schema([]), whole(), rows[0][0], has_rows=False)
        if not described or names in (["Count"], ["Success"]):
            return Stream((), pa.schema([]), whole(), has_rows=False)
        table = pa.table([pa.array([row[i] for row in rows]) for i in range(len(names))], names=names)
        return Stream(columns, table.schema, whole(*table.to_batches()))

    def check_query(self, query: str) -> duckdb.Statement:
        """The text as DuckDB reads it.  ``BindError`` unless it is exactly one SELECT-like statement, so that describing it can
        change nothing.
        """
        try:
            statements = self.connection.extract_statements(query)
        except duckdb.Error as error:
            raise engine_error(error, query) from None
        if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
            raise BindError("the query after AS must be one SELECT (or FROM, WITH, VALUES, TABLE)")
        return statements[0]

    def estimate_rows(self, query: str, parameters: Any = ()) -> int | None:
        """How many rows DuckDB expects of a query: exact for a whole table, else its optimizer's estimate."""
        try:
            rows = self.connection.execute(f"EXPLAIN (FORMAT JSON) {query}", _bound(parameters)).fetchall()
        except duckdb.Error as error:
            raise engine_error(error, "") from None
        return expected_rows(json.loads(rows[0][1])[0]) if rows else None

    def transaction(self) -> int | None:
        """The number of the user's open transaction, or None: within one, the number stays the same."""
        if not self._selects.begun:
            return None
        try:
            first, second = (self.connection.execute("SELECT txid_current()").fetchall()[0][0] for _ in range(2))
        except duckdb.Error:
            return ABORTED  # an aborted transaction answers nothing until it is rolled back
        self._selects.begun = first == second
        return int(first) if first == second else None

    def table_rows(self, parts: Sequence[str]) -> int | None:
        """How many rows a table or view has, by its name's parts; None where there is none.

        Asks the catalog first: inside a transaction an error about a missing table would abort it.
        """
        database, schema, name = ([None] * (3 - len(parts)) + list(parts))[-3:]
        query = (
            "SELECT 1 FROM (SELECT database_name, schema_name, table_name FROM duckdb_tables() "
            "UNION ALL SELECT database_name, schema_name, view_name FROM duckdb_views()) "
            "WHERE lower(table_name) = lower($1) AND lower(schema_name) = lower(coalesce($2, current_schema())) "
            "AND lower(database_name) IN (lower(coalesce($3, current_database())), 'temp')"
        )
        table = ".".join(quote_identifier(part) for part in parts)
        try:
            if not self.connection.execute(query, [name, schema, database]).fetchall():
                return None
            return int(self.connection.execute(f"SELECT count(*) FROM {table}").fetchall()[0][0])  # noqa: S608
        except duckdb.Error as error:
            raise engine_error(error, "") from None

    def create_function(
        self,
        name: str,
        body: Callable[..., Any],
        parameters: Sequence[str],
        result: str,
        *,
        arrow: bool,
        transaction: bool = False,
    ) -> None:
        """Make a Python function callable in SQL, for good; again is nothing.

        ``arrow``: called with chunks of rows as Arrow arrays, NULLs included, and pure; otherwise called once for each row, and
        each time anew.  ``transaction``: within the user's transaction, gone if it rolls back.
        """
        connection = self.connection if transaction else self.side
        how: dict[str, Any] = {"type": "arrow", "null_handling": "special"} if arrow else {"side_effects": True}
        functions.create(self._key, body, lambda: connection.create_function(name, body, list(parameters), result, **how))

    def register(self, name: str, rows: pa.Table | pa.RecordBatchReader) -> None:
        """Let statements of this connection read Arrow rows under a name; a reader's go to a temporary table, perhaps on disk."""
        import pyarrow as pa

        try:
            if isinstance(rows, pa.Table):
                self.connection.register(name, rows)
                return
            source = f"{name}_rows"
            self.connection.register(source, rows)
            try:
                self.connection.execute(f"CREATE TEMP TABLE {quote_identifier(name)} AS FROM {quote_identifier(source)}")
            finally:
                self.connection.unregister(source)
        except duckdb.Error as error:
            raise engine_error(error, "") from None

    def stream(self, name: str, rows: pa.RecordBatchReader) -> None:
        """Let one statement of this connection read Arrow rows under a name as they come."""
        try:
            self.connection.register(name, rows)
        except duckdb.Error as error:
            raise engine_error(error, "") from None

    def unregister(self, name: str) -> bool:
        """Forget a table of ``register``; False where the connection is busy, or its transaction aborted."""
        try:
            self.connection.unregister(name)
            self.connection.execute(f"DROP TABLE IF EXISTS temp.main.{quote_identifier(name)}")
        except duckdb.Error:
            return False
        return True

    def write(self, parts: Sequence[str], schema: pa.Schema, batches: Iterable[pa.RecordBatch], mode: str) -> int:
        """Write rows into a table, all or nothing: one statement reads them as they come."""
        with apart(schema, batches, self._is_reading) as rows:
            return self._write(parts, schema, rows, mode)

    def into_sql(self, parts: Sequence[str], mode: str) -> str:
        """What stands before a SELECT whose rows go into a table."""
        table = ".".join(quote_identifier(part) for part in parts)
        return {
            "create": f"CREATE TABLE {table} AS ",
            "replace": f"CREATE OR REPLACE TABLE {table} AS ",
            "append": f"INSERT INTO {table} BY NAME ",
        }[mode]

    def _is_reading(self) -> bool:
        """Whether the last query's rows are still on their way: DuckDB runs nothing else then."""
        batches = None if self._reading is None else self._reading()
        return batches is not None and inspect.getgeneratorstate(batches) != inspect.GEN_CLOSED

    def _write(self, parts: Sequence[str], schema: pa.Schema, batches: Iterable[pa.RecordBatch], mode: str) -> int:
        import pyarrow as pa

        rows = 0

        def counted() -> Generator[pa.RecordBatch, None, None]:
            nonlocal rows
            for batch in batches:
                rows += batch.num_rows
                yield batch

        name = f"__sqlml_{uuid.uuid4().hex[:12]}"
        self.stream(name, pa.RecordBatchReader.from_batches(schema, counted()))
        try:
            self.connection.execute(f"{self.into_sql(parts, mode)}FROM {name}")
        except duckdb.Error as error:
            raise engine_error(error, "") from None
        finally:
            self.unregister(name)
        return rows

    def attach_schema(self, name: str) -> None:
        """A database in memory, attached under a name: nothing is written to the user's file."""
        attached.add(name.lower())
        self.define(f"ATTACH IF NOT EXISTS ':memory:' AS {quote_identifier(name)}")

    def has_schema(self, name: str) -> bool:
        """Whether there is a schema of this name, DuckDB's own too, or a database that is not our attached one, in any case."""
        query = (
            "SELECT 1 FROM duckdb_schemas() WHERE lower(schema_name) = lower($1) "
            "UNION ALL SELECT 1 FROM duckdb_databases() WHERE lower(database_name) = lower($1) AND (path IS NOT NULL OR NOT $2)"
        )
        return bool(self.side.execute(query, [name, name.lower() in attached]).fetchall())

    def define(self, statement: str) -> None:
        """Make or drop something of ours that all connections share: a view of the schema ``sqlml``, a macro."""
        with functions.one_at_a_time():
            try:
                self.side.execute(statement)
            except duckdb.Error as error:
                raise engine_error(error, statement) from None

    # --- what views call --------------------------------------------------------------------------------------------

    def create_macro(self, schema: str, name: str, parameters: Sequence[str], body: str) -> None:
        """A macro of our schema, in place of one that may be there."""
        arguments = ", ".join(quote_identifier(parameter) for parameter in parameters)
        self.define(f"CREATE OR REPLACE MACRO {_macro_sql(schema, name)}({arguments}) AS {body}")

    def drop_macro(self, schema: str, name: str) -> None:
        self.define(f"DROP MACRO IF EXISTS {_macro_sql(schema, name)}")

    def views_with(self, text: str) -> list[tuple[str, str]]:
        """The views whose SQL contains a text: name and SQL."""
        query = "SELECT view_name, sql FROM duckdb_views() WHERE contains(sql, ?)"
        return [(row[0], row[1]) for row in self.side.execute(query, [text]).fetchall()]

    def missing_function(self, error: Error) -> str | None:
        """The function whose absence an error tells of, if it does."""
        match = _MISSING_FUNCTION.search(error.message)
        return match[1] if match else None

    def refused_macro(self, error: Error) -> str | None:
        """The macro that an error says was called with other arguments than it takes, if it does."""
        match = _WRONG_ARGUMENTS.search(error.message)
        return match[1] if match else None

    def names(self) -> dict[str, tuple[str, ...]]:
        """Tables and columns, for completion."""
        hidden = "database_name NOT IN ('system', 'temp') AND NOT starts_with(database_name, '__') AND NOT internal"
        questions = (
            f"SELECT table_name FROM duckdb_tables() WHERE {hidden} UNION ALL "  # noqa: S608
            f"SELECT view_name FROM duckdb_views() WHERE {hidden}",
            f"SELECT DISTINCT column_name FROM duckdb_columns() WHERE {hidden} ORDER BY 1",  # noqa: S608
        )
        tables, columns = (self.side.execute(question).fetchall() for question in questions)
        return {"tables": tuple(r[0] for r in tables), "columns": tuple(r[0] for r in columns)}


_MISSING_COLUMN = re.compile(r'(?:Referenced column|does not have a column named) "(.+?)"(?: not found in FROM clause|$)')
_MISSING_FUNCTION = re.compile(r"Scalar Function with name (.+?) does not exist!")
_WRONG_ARGUMENTS = re.compile(r'Macro "(.+?)"\(\) does not support the supplied arguments')
_SCOPE = re.compile(r"'abs\((STRUCT\(.*\))\)'")


@cache
def _keywords() -> frozenset[str]:
    """Words that can stand before a bracket without being a function's name: ``VALUES (1)``, ``NOT IN (2)``."""
    query = "SELECT keyword_name FROM duckdb_keywords() WHERE keyword_category <> 'unreserved'"
    with duckdb.connect(MEMORY) as connection:
        return frozenset(row[0] for row in connection.execute(query).fetchall())


def _macro_sql(schema: str, name: str) -> str:
    return f"{quote_identifier(schema)}.main.{quote_identifier(name)}"


def _shifted(error: DatabaseError, text: str) -> DatabaseError:
    """An error about ``EXPLAIN text`` as one about ``text``."""
    if error.span is not None:
        start = error.span[0] - len(EXPLAIN)
        error.span = (start, error.span[1] - len(EXPLAIN)) if start >= 0 else None
        error.source = text if error.span else None
    return error


def _bound(parameters: Any) -> Any:
    if not parameters:
        return None
    return dict(parameters) if isinstance(parameters, dict) else list(parameters)
