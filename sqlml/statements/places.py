"""Where queries run: at home, in the database of the connection, or in that of a connection that the query names."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack, closing, suppress
from itertools import pairwise, takewhile
from typing import TYPE_CHECKING, Any

from sqlml_dialect import QualifiedName, Span
from sqlml_dialect.tokens import name_value, scan, words

from sqlml.binder.remote_tables import Tables, begins_with_from, explains_query, find_tables, is_query, table_text
from sqlml.binder.text import Piece, Sql
from sqlml.contracts import Engine, ExactEngine, HomeEngine, Notice, Stream, TellingEngine, WritableEngine
from sqlml.errors import BindError, Error, NotSupportedError, did_you_mean
from sqlml.statements.own_database import calls_functions

if TYPE_CHECKING:
    import pyarrow as pa


EXPLAINS = ("duckdb", "postgres", "spark")
"""Engines that take EXPLAIN before a query."""
_BODY = words("SELECT WITH VALUES SET WHERE")


class Places:
    """The home and the connections of a session; an engine is opened when a statement first needs it.

    ``known``: the connections there are, name in lower case → name; ``open_engine`` opens one by its name; ``notice`` gets what
    the person should know of it.
    """

    def __init__(
        self,
        home: HomeEngine,
        known: Callable[[], Mapping[str, str]] = dict,
        open_engine: Callable[[str], Engine] | None = None,
        notice: Notice = lambda text: None,
    ) -> None:
        self.home = home
        self.known = known
        self._open_engine = open_engine
        self._notice = notice
        self._engines: dict[str, Engine] = {}
        _listen(home, notice)

    def engine(self, name: str | None) -> Engine:
        """The engine of a connection, or that of home.  ``BindError`` where there is no connection of the name."""
        if name is None:
            return self.home
        known = self.known()
        key = name.lower()
        if key not in known or self._open_engine is None:
            hint = did_you_mean(name, known.values()) or (
                "SHOW CONNECTIONS lists all" if known else "CREATE CONNECTION makes one"
            )
            raise BindError(f"unknown connection {name}", hint=hint)
        if key not in self._engines:
            self._engines[key] = self._open_engine(known[key])
            _listen(self._engines[key], self._notice)
            if self._engines[key].notice:
                self._notice(f"{known[key]}: {self._engines[key].notice}")
        return self._engines[key]

    def run(self, sql: Sql, text: str, parameters: Any, used: Collection[str] | None = None) -> Stream:
        """Run a query in its place.  ``used``, what a model reads, is given for rows that go back there: see ``ExactEngine``."""
        engine = self.engine(sql.at)
        if used is not None and isinstance(engine, ExactEngine):
            return engine.run_exact(text, parameters, used=used)
        return engine.run(text, parameters)

    def forget(self, name: str) -> None:
        """Close a connection's engine: its options have changed, or it is gone."""
        engine = self._engines.pop(name.lower(), None)
        if engine is not None:
            engine.close()

    def tables(self, source: str, span: Span) -> Tables:
        """The tables of connections in a stretch of text."""
        text = source[slice(*span)].lower()
        if "." not in text:  # as the name of every such table has
            return Tables()
        known = {key: name for key, name in self.known().items() if key in text}
        return find_tables(source, span, known) if known else Tables()

    def table(self, name: QualifiedName) -> tuple[str | None, tuple[str, ...]]:
        """A table's place and its name there: ``pg.public.scores`` is ``public.scores`` of the connection ``pg``."""
        known = self.known() if len(name.parts) > 1 else {}
        connection = known.get(name.parts[0].name.lower())
        fold = self.engine(connection).fold
        parts = name.parts[1:] if connection else name.parts
        return connection, tuple(part.name if part.quoted else fold(part.name) for part in parts)

    def engine_name(self, sql: Sql) -> str:
        """The name of the database where a query runs."""
        return self.engine(sql.at).name

    def changed(self, text: str) -> str | None:
        """The connection whose table a statement that is no query would change or look at: its name stands before its query."""
        known = self.known()
        tokens = takewhile(lambda token: token.key not in _BODY, scan(text))
        named = (name_value(token).lower() for token, dot in pairwise(tokens) if dot.text == ".")
        return next((known[name] for name in named if name in known), None)

    def table_rows(self, table: QualifiedName) -> int | None:
        """How many rows a table has, wherever it is; None where there is none."""
        place, parts = self.table(table)
        return self.engine(place).table_rows(parts)

    def into_sql(self, table: QualifiedName, mode: str) -> str | None:
        """What stands before a SELECT that calls models so that its rows go into a table, in one statement of the database.

        None where the table is elsewhere, or the database cannot call models from inside its queries.
        """
        place, parts = self.table(table)
        return self.home.into_sql(parts, mode) if place is None and calls_functions(self.home) else None

    def write(self, table: QualifiedName, stream: Stream, mode: str, source: str | None = None) -> int:
        """Write a result of ``source`` (None: home) into a table, wherever that is; how many rows there were.

        In the database that they come from, columns keep the types that they have there.
        """
        place, parts = self.table(table)
        schema = stream.schema if place == source else _without_types(stream.schema)
        with closing(stream.batches) as batches:  # where the write fails, what is read must not stay open
            return self._writable(place).write(parts, schema, batches, mode)

    def check_writable(self, table: QualifiedName) -> None:
        """``NotSupportedError`` for a table of a connection that only reads."""
        self._writable(self.table(table)[0])

    def _writable(self, place: str | None) -> WritableEngine:
        engine = self.engine(place)
        if not isinstance(engine, WritableEngine):
            raise NotSupportedError(
                f"the {engine.dialect} database behind {place} can only be read from",
                hint="write at home, or to a connection of TYPE postgres or spark",
            )
        return engine

    def remote_sql(self, source: str, span: Span, tables: Tables, connection: str) -> Sql:
        """A query whose tables are all of one connection, in the words of its database: the connection's name is taken off."""
        quote = self.engine(connection).quote
        pieces = [Piece("SELECT * ")] if begins_with_from(source, span) else []
        position = span[0]
        for table in tables.remote:
            pieces.append(Piece(source[position : table.span[0]], (position, table.span[0]), verbatim=True))
            pieces.append(Piece(table_text(table, quote), table.span))
            position = table.span[1]
        pieces.append(Piece(source[position : span[1]], (position, span[1]), verbatim=True))
        return Sql(source, tuple(piece for piece in pieces if piece.text), connection)

    def pieces_there(self, tables: Tables, connection: str) -> tuple[Piece, ...]:
        """The tables of a query by the names that they have in their database."""
        quote = self.engine(connection).quote
        return tuple(Piece(table_text(table, quote), table.span) for table in tables.remote)

    def runs_there(self, source: str, span: Span, tables: Tables) -> str | None:
        """The connection that a stretch of text can run in as a whole: a query, or EXPLAIN of one where its database has that."""
        if tables.only is None or is_query(source, span):
            return tables.only
        return tables.only if explains_query(source, span) and self.engine(tables.only).name in EXPLAINS else None

    def interrupt(self) -> None:
        """Stop what runs, wherever it does; from any thread."""
        for engine in (self.home, *tuple(self._engines.values())):
            with suppress(Error):  # one that cannot be told must not spare the others
                engine.interrupt()

    def close(self) -> None:
        """Close them all, home last; what one raises does not spare the others."""
        with ExitStack() as stack:
            stack.callback(self.home.close)
            for engine in self._engines.values():
                stack.callback(engine.close)
            self._engines = {}


def _without_types(schema: pa.Schema) -> pa.Schema:
    for index, field in enumerate(schema):
        schema = schema.set(index, field.remove_metadata())
    return schema


def _listen(engine: Engine, notice: Notice) -> None:
    if isinstance(engine, TellingEngine):
        engine.listen(notice)


def changes_hint(connection: str) -> str:
    """What to do instead of changing a connection's tables from here."""
    return (
        f"what changes tables of {connection} is for that database itself to run; "
        f"PREDICT MODEL … INTO {connection}.… writes to one of type postgres or spark"
    )
