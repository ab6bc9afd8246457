"""Where queries run: at home, in the database of the connection, or in that of a connection that the query names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlml_dialect import QualifiedName, Span, quote_identifier

from sqlml.binder.connections import RemoteTable, Tables, begins_with_from, find_tables, is_query
from sqlml.binder.text import Piece, Sql
from sqlml.contracts import Engine
from sqlml.errors import BindError, Error, did_you_mean

if TYPE_CHECKING:
    import pyarrow as pa


class Places:
    """The home and the connections of a session; an engine is opened when a statement first needs it.

    ``known``: the connections there are, name in lower case → name; ``open_engine`` opens one by its name; ``notice`` gets what
    the person should know of it.
    """

    def __init__(
        self,
        home: Engine,
        known: Callable[[], Mapping[str, str]] = dict,
        open_engine: Callable[[str], Engine] | None = None,
        notice: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.home = home
        self.known = known
        self._open_engine = open_engine
        self._notice = notice
        self._engines: dict[str, Engine] = {}

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
            if self._engines[key].notice:
                self._notice(f"{known[key]}: {self._engines[key].notice}")
        return self._engines[key]

    def forget(self, name: str) -> None:
        """Close a connection's engine: its options have changed, or it is gone."""
        engine = self._engines.pop(name.lower(), None)
        if engine is not None:
            engine.close()

    def tables(self, source: str, span: Span) -> Tables:
        """The tables of connections in a stretch of text."""
        text = source[slice(*span)].lower()
        known = {key: name for key, name in self.known().items() if key in text}
        return find_tables(source, span, known) if known else Tables()

    def table(self, name: QualifiedName) -> tuple[str | None, tuple[str, ...]]:
        """A table's place and its name there: ``pg.public.scores`` is ``public.scores`` of the connection ``pg``."""
        known = self.known() if len(name.parts) > 1 else {}
        connection = known.get(name.parts[0].name.lower())
        fold = self.engine(connection).fold
        parts = name.parts[1:] if connection else name.parts
        return connection, tuple(part.name if part.quoted else fold(part.name) for part in parts)

    def remote_sql(self, source: str, span: Span, tables: Tables, connection: str) -> Sql:
        """A query whose tables are all of one connection, in the words of its database: the connection's name is taken off."""
        quote = self.engine(connection).quote
        pieces = [Piece("SELECT * ")] if begins_with_from(source, span) else []
        position = span[0]
        for table in tables.remote:
            pieces.append(Piece(source[position : table.span[0]], (position, table.span[0]), verbatim=True))
            pieces.append(Piece(_written(table, quote), table.span))
            position = table.span[1]
        pieces.append(Piece(source[position : span[1]], (position, span[1]), verbatim=True))
        return Sql(source, tuple(piece for piece in pieces if piece.text), connection)

    def runs_there(self, source: str, span: Span, tables: Tables) -> str | None:
        """The connection that a stretch of text can run in as a whole."""
        return tables.only if tables.only and is_query(source, span) else None

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


def _written(table: RemoteTable, quote: Callable[[str], str]) -> str:
    """A name as it was written; a database with other quotes than SQL's gets its own."""
    if quote("x") == quote_identifier("x"):
        return ".".join(table.written)
    return ".".join(quote(part) for part in table.parts)


@dataclass(frozen=True)
class ConnectionTable:
    """A whole table of a connection, for a query that runs at home."""

    table: RemoteTable
    places: Places

    def empty(self, parameters: Any) -> pa.Table:
        """Its columns."""
        return self._reader(" LIMIT 0").read_all()

    def compute(self, parameters: Any) -> pa.RecordBatchReader:
        """Its rows, as they come."""
        return self._reader("")

    def _reader(self, limit: str) -> pa.RecordBatchReader:
        import pyarrow as pa

        engine = self._engine()
        stream = engine.run(f"SELECT * FROM {_written(self.table, engine.quote)}{limit}")  # noqa: S608
        return pa.RecordBatchReader.from_batches(stream.schema, stream.batches)

    def _engine(self) -> Engine:
        return self.places.engine(self.table.connection)


def changes_hint(connection: str) -> str:
    """What to do instead of changing a connection's tables from here."""
    return f"PREDICT MODEL … INTO {connection}.… writes there; what else changes its tables is for that database itself to run"


def alias_of(table: RemoteTable) -> str:
    """The name that a table has in its query, unless the query gives it another."""
    return "" if table.aliased else f" AS {quote_identifier(table.parts[-1])}"
