"""PostgreSQL as the place where data lives.

All of a connection's work is done on one session of the server, in autocommit mode, so transactions and temporary tables are the
user's own.  A query is described first (prepared, not run), then read by binary COPY as Arrow batches: one statement, so one
snapshot of the data, however long it takes to read.
"""

from __future__ import annotations

import re
import weakref
from collections.abc import Callable, Collection, Generator, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from sqlml_dialect import quote_identifier
from sqlml_dialect.tokens import scan, split_statements, words

from sqlml.address import read_address
from sqlml.contracts import Stream
from sqlml.engines.inserts import values_at
from sqlml.engines.postgres.catalog import (
    READABLE,
    all_names,
    built_in_functions,
    find_relation,
    is_function,
    table_sql,
    type_infos,
)
from sqlml.engines.postgres.chunks import Chunk
from sqlml.engines.postgres.errors import shown_place
from sqlml.engines.postgres.link import COPY, Link
from sqlml.engines.postgres.parameters import Bound, bind_values
from sqlml.engines.postgres.reading import BatchOf, Reading
from sqlml.engines.postgres.runs import Runs
from sqlml.engines.postgres.scope import scope_query
from sqlml.engines.postgres.types import ResultColumn, TypeInfo, arrow_zone, exact, result_column, uncast, unknown_types
from sqlml.engines.postgres.write import write_table
from sqlml.errors import BindError, Error, NotSupportedError, OperationalError
from sqlml.types import Column

if TYPE_CHECKING:
    import pyarrow as pa

INSERT_ROWS = 1000
"""Rows of values in one INSERT of ``run_many``."""
_READS = words("SELECT WITH VALUES TABLE")
_WRITES = words("INSERT UPDATE DELETE MERGE")
_MISSING_COLUMN = re.compile(r'column (?:"(.+)"|(?:.+\.)?(.+)) does not exist')  # no quotes where it is qualified


class PostgresEngine:
    """The engine of one connection to one PostgreSQL database."""

    name = "postgres"
    dialect = "postgres"
    notice: str | None = None

    def __init__(self, link: Link) -> None:
        self._link = link
        self._runs = Runs(link)
        self._types: dict[tuple[int, int], TypeInfo] = {}
        self._built_in: frozenset[str] | None = None
        self._names: dict[str, tuple[str, ...]] = {}

    @classmethod
    def open(cls, url: str) -> PostgresEngine:
        """Connect to ``postgresql://user@host:port/database``.  ``OperationalError`` with the reason where that fails."""
        read_address(url)  # before what is misread in it is looked for as a host
        link = Link(url)
        try:
            return cls(link)
        except BaseException:
            link.close()
            raise

    @property
    def place(self) -> str:
        """Host, port and database: what may be shown of the URL."""
        return shown_place(self._link.url)

    @property
    def generation(self) -> int:
        """How many sessions of the server this connection has had: one more after each loss, without the temporary things."""
        return self._link.generation

    def close(self) -> None:
        if self._runs.reading is not None:
            self._runs.reading.abandon()
        self._link.close()

    def interrupt(self) -> None:
        self._runs.stop()

    def listen(self, tell: Callable[[str], None]) -> None:
        """Tell somebody what the server says beside its answers to the user's statements."""
        self._link.notices.tell = tell

    # --- questions about statements ---------------------------------------------------------------------------------

    def describe(self, query: str, parameters: Any = ()) -> tuple[Column, ...]:
        """The columns of a query, bound but not run.  ``BindError`` where the text is not one query that only reads."""
        if len(split_statements(query)) != 1:
            raise BindError("the query after AS must be one SELECT (or WITH, VALUES, TABLE)")
        bound = _bound(query, parameters)
        with self._runs.statement(heard=False), self._runs.unharmed():
            fields = self._describe(bound)
        if not fields or not _only_reads(bound.text):
            raise BindError("the query after AS must be one SELECT (or WITH, VALUES, TABLE)")
        return tuple(result.column for result in fields)

    def bind(self, text: str, parameters: Any = ()) -> None:
        """Check a statement without running it: its names and types, as the server does to prepare it."""
        bound = _bound(text, parameters)
        with self._runs.statement(heard=False), self._runs.unharmed():
            self._runs.guard(bound, lambda: self._link.describe(bound.text), retry=True)

    def missing_column(self, error: Error) -> str | None:
        """The column whose absence an error tells of: ``column "a" does not exist``, ``column t.a does not exist``."""
        match = _MISSING_COLUMN.fullmatch(error.message)
        return (match[1] or match[2]) if match else None

    def scope(self, before: str, after: str) -> tuple[str, ...]:
        """The columns in scope at a place: those of its SELECT's FROM clause, where that can stand alone."""
        query = scope_query(before, after)
        if query is None:
            return ()
        try:
            with self._runs.unharmed():
                return tuple(dict.fromkeys(field.column.name for field in self._describe(_bound(query, ()))))
        except Error:
            return ()

    def sample_clause(self, seed: int, rows: int) -> str:
        """What follows ``FROM (query)``: the first rows by a hash of their text and the seed, whatever order they come in."""
        return f" AS __sqlml_rows ORDER BY hashtextextended(__sqlml_rows::text, {seed % 2**63}) LIMIT {rows}"

    def estimate_rows(self, query: str, parameters: Any = ()) -> int | None:
        """How many rows the server's planner expects."""
        bound = _bound(query, parameters)
        explain = f"EXPLAIN (FORMAT JSON) {bound.text}"
        with self._runs.unharmed():
            [(plan,)] = self._runs.guard(Bound("", ""), lambda: self._link.ask(explain), retry=True)
        rows = plan[0]["Plan"].get("Plan Rows")
        return None if rows is None else int(rows)

    # --- running ----------------------------------------------------------------------------------------------------

    def run(self, text: str, parameters: Any = ()) -> Stream:
        """Run one statement.  A query's first batch is there when this returns; the others come as they are read."""
        return self._run(_bound(text, parameters))

    def run_exact(self, text: str, parameters: Any = (), *, used: Collection[str]) -> Stream:
        """The same for rows that go back: numeric without limits and arrays come as their texts, but arrays that are ``used``."""
        return self._run(_bound(text, parameters), frozenset(used))

    def _run(self, bound: Bound, used: frozenset[str] | None = None) -> Stream:
        if self._runs.ends_lost(bound.text):
            return _nothing()
        undone = _first_key(bound.text) in ("COMMIT", "END") and self.transaction() == -1
        _refuse_copy(bound)
        with self._runs.statement():
            fields = self._describe(bound)
            if used is not None:
                fields = [exact(field, is_used=field.column.name.lower() in used) for field in fields]
            self._link.notices.forget()  # the statement says the same again when it runs
            if not fields:
                stream = _nothing(self._runs.guard(bound, lambda: self._link.execute(bound.text)))
            else:
                stream = self._query(bound, fields) if _is_copied(bound.text) else self._whole(bound, fields)
            self._runs.ran(bound.text)
        if undone:
            raise OperationalError("the transaction had failed: nothing of it was committed, it was rolled back")
        return stream

    def run_many(self, text: str, parameters: Sequence[Sequence[Any]]) -> None:
        """Run one statement for each row of parameters, all of them or none."""
        rows = _joined(text, [_bound(text, row) for row in parameters])
        if rows:
            self._runs.ends_lost(text)
            with self._runs.statement(), self._runs.atomic():
                for bound in rows:
                    self._runs.guard(bound, partial(self._link.execute, bound.text))

    def transaction(self) -> int | None:
        """The number of the user's open transaction, or None: within one, the number stays the same."""
        return self._runs.transaction()

    def _describe(self, bound: Bound) -> list[ResultColumn]:
        """The columns of a statement; none where it gives no rows."""
        fields = self._runs.guard(bound, lambda: self._link.describe(bound.text), retry=True)
        unknown = [key for key in unknown_types(fields) if key not in self._types]
        self._types.update(type_infos(self._runs.ask, unknown))
        zone = arrow_zone(self._link.time_zone())
        return [result_column(field, self._types, zone) for field in fields]

    def _query(self, bound: Bound, fields: Sequence[ResultColumn]) -> Stream:
        """Read a query by COPY.  One that changes rows is read to its end at once: it is not half done if nobody reads it."""
        reads = _only_reads(bound.text)
        sent, fields = _castable(bound.text, fields)
        inside = self._runs.transaction() is not None
        schema = _schema(fields)
        batch_of = _decoder(fields, schema)

        def start() -> tuple[Reading, pa.RecordBatch | None]:
            reading = Reading(self._link, self._link.copy_out(sent), batch_of, in_transaction=inside)
            return reading, reading.next()

        placed = replace(bound, before=len(COPY) + sent.index(bound.text))
        reading, first = self._runs.guard(placed, start, retry=reads)
        self._runs.reading = reading
        batches = self._batches(reading, first, placed)
        if not reads:
            whole = list(batches)
            return Stream(_columns(fields), schema, _given(whole), sum(batch.num_rows for batch in whole))
        weakref.finalize(batches, reading.abandon).atexit = False  # also where nobody begins to read them
        return Stream(_columns(fields), schema, batches)

    def _batches(self, reading: Reading, first: pa.RecordBatch | None, bound: Bound) -> Generator[pa.RecordBatch, None, None]:
        try:
            batch = first
            while batch is not None:
                yield batch
                try:
                    batch = reading.next()
                except Error:
                    raise
                except Exception as error:
                    raise self._runs.failure(error, bound) from None
                self._link.notices.pass_on()
        finally:
            reading.abandon()

    def _whole(self, bound: Bound, fields: Sequence[ResultColumn]) -> Stream:
        """What COPY cannot carry, such as SHOW, EXPLAIN, FETCH and EXECUTE: all rows at once."""
        fields = uncast(fields)
        chunk, count = self._runs.guard(bound, lambda: self._link.whole(bound.text))
        schema = _schema(fields)
        batches = [] if chunk is None else [_decoder(fields, schema)(chunk, lambda: None)]
        return Stream(_columns(fields), schema, _given(batches), count)

    # --- the catalog ------------------------------------------------------------------------------------------------

    def quote(self, name: str) -> str:
        return quote_identifier(name)

    def fold(self, name: str) -> str:
        return name.lower()

    def has_schema(self, name: str) -> bool:
        """Whether the database has a schema of this name, or has it itself."""
        question = "SELECT 1 FROM pg_namespace WHERE nspname = $1 UNION ALL SELECT 1 WHERE current_database() = $1"
        return bool(self._runs.ask(question, [name]))

    def has_function(self, name: str) -> bool:
        if self.transaction() == -1:
            return False
        if self._built_in is None:
            self._built_in = built_in_functions(self._runs.ask)
        return name.lower() in self._built_in or is_function(self._runs.ask, name.lower())

    def table_rows(self, parts: Sequence[str]) -> int | None:
        """How many rows a table or view has, by its name's parts as PostgreSQL knows it; None where there is none."""
        if self.transaction() == -1:
            return None
        with self._runs.unharmed():
            found = find_relation(self._runs.ask, parts)
            if found is None or found[2] not in READABLE:
                return None
            return int(self._runs.ask(f"SELECT count(*) FROM {table_sql(found[:2])}")[0][0])  # noqa: S608

    def names(self) -> Mapping[str, tuple[str, ...]]:
        """Tables and columns, for completion; those of before while a result is read or the transaction is aborted."""
        if not self._runs.is_reading() and self.transaction() != -1:
            self._names = all_names(self._runs.ask)
        return self._names or {"tables": (), "columns": ()}

    # --- tables of ours ---------------------------------------------------------------------------------------------

    def register(self, name: str, rows: pa.Table | pa.RecordBatchReader) -> None:
        """Copy Arrow rows into a temporary table of this session."""
        import pyarrow as pa

        batches = rows.to_batches() if isinstance(rows, pa.Table) else rows
        write_table(self._runs, ["pg_temp", name], rows.schema, batches, "replace")

    def unregister(self, name: str) -> bool:
        """Drop a table of ``register``; False where rows are still being read, or the transaction is aborted."""
        if self._runs.is_reading() or self.transaction() == -1:
            return False
        self._runs.execute(f"DROP TABLE IF EXISTS pg_temp.{quote_identifier(name)}", retry=True)
        return True

    def write(self, parts: Sequence[str], schema: pa.Schema, batches: Iterable[pa.RecordBatch], mode: str) -> int:
        """Write rows into a table by binary COPY, all or nothing; lists of structs, structs and maps become jsonb."""
        with self._runs.statement():
            return write_table(self._runs, parts, schema, batches, mode)


def _bound(text: str, parameters: Any) -> Bound:
    """A statement with its values, without the semicolon at its end."""
    pieces = split_statements(text)
    return bind_values(text[: pieces[0].end] if len(pieces) == 1 else text, parameters)


def _joined(text: str, rows: Sequence[Bound]) -> Sequence[Bound]:
    """An INSERT's rows as few statements of many rows each; any other statement's as they are."""
    place = values_at(text) if len(rows) > 1 else None
    if place is None:
        return rows
    place += len("VALUES")
    head, values = rows[0].text[:place], [row.text[place:] for row in rows]
    return [
        Bound(text, f"{head}{', '.join(values[first : first + INSERT_ROWS])}", ours=True)
        for first in range(0, len(values), INSERT_ROWS)
    ]


def _first_key(text: str) -> str:
    first = next((token for token in scan(text) if token.text != "("), None)
    return first.key if first is not None else ""


def _is_copied(text: str) -> bool:
    """Whether COPY takes a statement."""
    return _first_key(text) in _READS | _WRITES


def _only_reads(text: str) -> bool:
    """Whether a statement is a query without INSERT, UPDATE, DELETE or MERGE inside."""
    if _first_key(text) not in _READS:
        return False
    tokens = list(scan(text))
    return not any(t.key in _WRITES and before.text == "(" for before, t in pairwise(tokens))


def _refuse_copy(bound: Bound) -> None:
    keys = [token.key for token in scan(bound.text)] if _first_key(bound.text) == "COPY" else []
    if {"STDIN", "STDOUT"} & set(keys):
        raise NotSupportedError(
            "COPY from or to the client is not possible here",
            hint="read with SELECT, and write with INSERT or from an Arrow table; COPY of the server's own files works",
        )


def _castable(text: str, fields: Sequence[ResultColumn]) -> tuple[str, Sequence[ResultColumn]]:
    """The statement within one that casts what has no Arrow form; columns keep their order, names are given back by place."""
    if all(field.cast is None for field in fields):
        return text, fields
    names = [f"c{number}" for number in range(len(fields))]
    items = [name if field.cast is None else f"{name}::{field.cast}" for name, field in zip(names, fields, strict=True)]
    if _first_key(text) in _WRITES:
        return f"WITH q({', '.join(names)}) AS (\n{text}\n) SELECT {', '.join(items)} FROM q", fields  # noqa: S608
    if not _only_reads(text):
        return text, uncast(fields)
    return f"SELECT {', '.join(items)} FROM (\n{text}\n) AS q({', '.join(names)})", fields  # noqa: S608


def _columns(fields: Sequence[ResultColumn]) -> tuple[Column, ...]:
    return tuple(field.column for field in fields)


def _schema(fields: Sequence[ResultColumn]) -> pa.Schema:
    import pyarrow as pa

    return pa.schema([pa.field(field.column.name, field.arrow) for field in fields])


def _decoder(fields: Sequence[ResultColumn], schema: pa.Schema) -> BatchOf:
    """From rows as the server sends them to batches."""
    import pyarrow as pa

    from sqlml.engines.postgres.decode import Decoder

    decoder = Decoder([field.form for field in fields], [field.column.name for field in fields])

    def batch_of(chunk: Chunk, listen: Callable[[], None]) -> pa.RecordBatch:
        arrays = [
            array if field.convert is None else field.convert(array, field.column.name)
            for array, field in zip(decoder.decode(chunk, listen), fields, strict=True)
        ]
        return pa.RecordBatch.from_arrays(arrays, schema=schema)

    return batch_of


def _nothing(count: int = -1) -> Stream:
    import pyarrow as pa

    return Stream((), pa.schema([]), _given([]), count, has_rows=False)


def _given(batches: Iterable[pa.RecordBatch]) -> Generator[pa.RecordBatch, None, None]:
    """Batches that are all there, as a stream."""
    yield from batches
