"""The seam of engines: where data lives."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from sqlml.types import Column

if TYPE_CHECKING:
    import pyarrow as pa

    from sqlml.errors import Error


class FewRows(Generator["pa.RecordBatch", None, None]):
    """The batches of a result whose few ``rows`` an engine has as Python's values: one, which ``make`` makes of them when it is
    asked for.  Who wants Python's values takes the rows, and spares both ways.
    """

    def __init__(self, rows: Sequence[tuple[Any, ...]], make: Callable[[], pa.RecordBatch]) -> None:
        self.rows = rows
        self._make = make
        self._is_over = not rows

    def send(self, value: None, /) -> pa.RecordBatch:
        if self._is_over:
            raise StopIteration
        self._is_over = True
        return self._make()

    def throw(self, *raised: Any) -> pa.RecordBatch:
        self._is_over = True
        return super().throw(*raised)


@dataclass(frozen=True)
class Stream:
    """A result: its columns, and its rows as Arrow batches that may still be on their way (or ``FewRows``).

    ``rowcount`` counts changed rows, -1 where there is nothing to count; ``has_rows`` is False for DDL and DML.
    """

    columns: tuple[Column, ...]
    schema: pa.Schema
    batches: Generator[pa.RecordBatch, None, None]
    rowcount: int = -1
    has_rows: bool = True


class Engine(Protocol):
    """A database that is read from, as one connection sees it.

    What more one can is a protocol of its own, below: an engine that has its methods has the ability, and whoever needs it asks
    by ``isinstance``.  ``notice`` is what a person should know of it when it is first used, such as that it is slow.  Its errors
    are PEP 249's, with the database's own message and, where it tells, the place in the text it was given.
    """

    name: str
    dialect: str
    notice: str | None

    def quote(self, name: str) -> str:
        """A name as this database's SQL takes it, whatever its letters."""

    def fold(self, name: str) -> str:
        """The name that this database understands by one without quotes."""

    def describe(self, query: str, parameters: Any = ()) -> tuple[Column, ...]:
        """The columns of a query, bound but not run.  ``BindError`` where the text is not one query."""

    def run(self, text: str, parameters: Any = ()) -> Stream:
        """Run one statement."""

    def bind(self, text: str, parameters: Any = ()) -> None:
        """Check a statement against the database without running it; raises what running it would raise at once."""

    def sample_clause(self, seed: int, rows: int) -> str:
        """What follows ``FROM (query)`` to keep a seeded sample of its rows, the same whatever their order."""

    def table_rows(self, parts: Sequence[str]) -> int | None:
        """How many rows a table has, by its name's parts; None where there is none."""

    def estimate_rows(self, query: str, parameters: Any = ()) -> int | None:
        """How many rows the database expects of a query, without running it; None where it cannot tell."""

    def interrupt(self) -> None:
        """Stop what runs, from another thread."""

    def close(self) -> None:
        """Close the connection."""


@runtime_checkable
class WritableEngine(Engine, Protocol):
    """An engine whose tables can be written to: PREDICT … INTO."""

    def write(self, parts: Sequence[str], schema: pa.Schema, batches: Iterable[pa.RecordBatch], mode: str) -> int:
        """Write rows into a table, by its name's parts; how many there were.

        ``mode``: ``create`` a new table, ``replace`` what may be there, ``append`` by the columns' names.  All or nothing, within
        the user's transaction where one is open.  ``batches`` may be read from the same connection.
        """


class HomeEngine(WritableEngine, Protocol):
    """An engine that can be a connection's own database: all that is not ours is run there, inside the user's transactions."""

    def run_many(self, text: str, parameters: Sequence[Sequence[Any]]) -> None:
        """Run one statement for each row of parameters."""

    def missing_column(self, error: Error) -> str | None:
        """The column whose absence an error tells of, if it does."""

    def scope(self, before: str, after: str) -> tuple[str, ...]:
        """The columns in scope between two pieces of a statement, where the database can be brought to tell."""

    def has_schema(self, name: str) -> bool:
        """Whether names may begin with this one: a schema or database, the database's own too, but not ours."""

    def has_function(self, name: str) -> bool:
        """Whether the database itself knows a function of this name, or the name cannot be one's."""

    def transaction(self) -> int | None:
        """The number of the user's open transaction, -1 where it is aborted and waits for ROLLBACK; None where none is open."""

    def register(self, name: str, rows: pa.Table | pa.RecordBatchReader) -> None:
        """Let statements of this connection read Arrow rows under a name, until ``unregister``; in a transaction too.

        A reader's rows are taken at once, in bounded memory.
        """

    def unregister(self, name: str) -> bool:
        """Forget a table of ``register``; True where it is gone, False where that must wait, since the connection is busy."""

    def names(self) -> Mapping[str, tuple[str, ...]]:
        """``tables`` and ``columns``, for completion."""


@runtime_checkable
class ExactEngine(Protocol):
    """An engine whose database has values that Arrow holds only in part."""

    def run_exact(self, text: str, parameters: Any = (), *, used: Collection[str]) -> Stream:
        """As ``run``, for rows that ``write`` puts back: such values come as their texts, which are theirs again in the table.

        ``used`` are columns, in lower case, that a model reads: they stay what ``run`` makes them, unless a text will do.
        """


@runtime_checkable
class TellingEngine(Protocol):
    """An engine whose database says something beside its answers, as PostgreSQL does by RAISE NOTICE."""

    def listen(self, tell: Callable[[str], None]) -> None:
        """Whom to tell: called while a statement runs, on its own thread."""


@runtime_checkable
class ProgressEngine(Protocol):
    """An engine that knows how far it is with the statement it runs."""

    def progress(self) -> float | None:
        """What part of it is done, 0 to 1, None where that is not known; to be called from another thread."""


@runtime_checkable
class FunctionEngine(HomeEngine, Protocol):
    """A home that calls Python functions from inside its queries, on Arrow chunks: predictions are made where the rows are,
    views can call models, and the catalog's relations are live views.
    """

    keeps_settings: bool
    """Whether SET is for this connection alone wherever that can be, also where the database would set it for all."""

    def stream(self, name: str, rows: pa.RecordBatchReader) -> None:
        """Let one statement of this connection read Arrow rows under a name as they come, until ``unregister``."""

    def into_sql(self, parts: Sequence[str], mode: str) -> str:
        """What stands before a SELECT whose rows go into a table, by its name's parts; the modes are those of ``write``."""

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

    def attach_schema(self, name: str) -> None:
        """Make a schema of ours that nothing on disk knows of; again is nothing."""

    def define(self, statement: str) -> None:
        """Make or drop something of ours that all connections share: a view of the schema ``sqlml``, a macro."""

    def create_macro(self, schema: str, name: str, parameters: Sequence[str], body: str) -> None:
        """A macro of our schema, in place of one that may be there."""

    def drop_macro(self, schema: str, name: str) -> None:
        """Drop a macro of our schema."""

    def views_with(self, text: str) -> list[tuple[str, str]]:
        """The views whose SQL contains a text: name and SQL."""

    def missing_function(self, error: Error) -> str | None:
        """The function whose absence an error tells of, if it does."""

    def refused_macro(self, error: Error) -> str | None:
        """The macro that an error says was called with other arguments than it takes, if it does."""
