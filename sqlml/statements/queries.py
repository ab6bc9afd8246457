"""Queries of the database with calls of ours in them: bound, described and run, with errors in the words of what was typed."""

from __future__ import annotations

import re
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from sqlml_dialect import (
    Span,
)

from sqlml import errors
from sqlml.binder.select_items import items_of
from sqlml.binder.table_calls import TablePiece
from sqlml.binder.text import Sql
from sqlml.catalog import Catalog
from sqlml.contracts import Stream, Target
from sqlml.errors import BindError, Error, InternalError
from sqlml.statements.binding import Binding
from sqlml.statements.missing import explain_missing
from sqlml.statements.places import Places
from sqlml.statements.relations import Relation
from sqlml.statements.scored import answered, answered_columns
from sqlml.statements.scoring import Runs
from sqlml.statements.table_functions import check_values, only_looks, tables_of, values_in
from sqlml.types import Column

if TYPE_CHECKING:
    import pyarrow as pa

T = TypeVar("T")


class Queries(Binding):
    """Binds and runs the queries of one connection."""

    def __init__(
        self,
        places: Places,
        catalog: Catalog,
        target: Target,
        schema: str,
        notice: Callable[[str], None],
        relations: Mapping[str, Relation] | None = None,
    ) -> None:
        super().__init__(places, catalog, target, schema, notice, relations)
        self._registered: dict[str, int | None] = {}  # tables of ours, and the transaction that they were made in
        self._unused: list[str] = []  # those of them whose statement is over

    def _runs(self) -> Runs:
        return self

    def describe(self, sql: Sql, parameters: Any = ()) -> tuple[Column, ...]:
        """The columns of a query, without running it."""
        try:
            with self._empty_tables(sql, parameters) as values:
                columns = self._guard(sql, lambda text: self._places.engine(sql.at).describe(text, values))
                return answered_columns(columns, items_of(sql))
        except BindError as error:
            raise error.located(sql.source, sql.span) from None

    def run(self, sql: Sql, parameters: Any = ()) -> Stream:
        """Run one statement of the database."""
        stream = self._run(sql, parameters)
        items = items_of(sql)
        return answered(stream, items) if items and stream.has_rows else stream

    def _run(self, sql: Sql, parameters: Any) -> Stream:
        if not tables_of(sql):
            stream = self._guard(sql, lambda text: self._places.engine(sql.at).run(text, parameters))
            return replace(stream, batches=self._translated(sql, stream.batches))
        if only_looks(sql.text):
            with self._empty_tables(sql, parameters) as values:
                stream = self._guard(sql, lambda text: self._engine.run(text, values))
                return replace(stream, batches=_again(list(stream.batches)))
        return self._run_with_tables(sql, parameters)

    def _run_with_tables(self, sql: Sql, parameters: Any) -> Stream:
        """Compute what the statement's calls stand for, in its transaction, then run it; their tables go when it is over."""
        self._free_tables()
        names = [piece.name for piece in tables_of(sql)]
        try:
            for piece, table in [(piece, _computed(piece, parameters)) for piece in tables_of(sql)]:
                self._register(piece.name, table)
            stream = self._guard(sql, lambda text: self._engine.run(text, values_in(sql.text, parameters)))
        except BaseException:
            self._free_tables(names)
            raise
        if not stream.has_rows:
            self._free_tables(names)
            return stream
        batches = self._to_the_end(self._translated(sql, stream.batches), names)
        weakref.finalize(batches, self._unused.extend, names)  # also where nobody begins to read them
        return replace(stream, batches=batches)

    def _to_the_end(
        self, batches: Generator[pa.RecordBatch, None, None], names: list[str]
    ) -> Generator[pa.RecordBatch, None, None]:
        yield from batches
        self._free_tables(names)

    @contextmanager
    def _empty_tables(self, sql: Sql, parameters: Any) -> Iterator[Any]:
        """The tables of a statement's calls without their rows, for a while; the values that are left for the database."""
        tables = tables_of(sql)
        if not tables:
            yield parameters
            return
        self._free_tables()
        try:
            for piece in tables:
                if piece.table is not None:
                    self._register(piece.name, piece.table.empty(parameters))
            yield values_in(sql.text, parameters)
        finally:
            self._free_tables([piece.name for piece in tables])

    def _register(self, name: str, table: pa.Table | pa.RecordBatchReader) -> None:
        self._engine.register(name, table)
        self._registered[name] = self._engine.transaction()

    def _free_tables(self, names: Iterable[str] = ()) -> None:
        """Let go of tables whose statements are over.

        What was made outside the open transaction waits for its end: a rollback would bring it back.  So does what cannot be
        let go of while the connection is busy.
        """
        self._unused.extend(names)
        now = self._engine.transaction() if self._unused else None
        for name in [self._unused.pop() for _ in range(len(self._unused))]:
            made_in = self._registered.get(name, now)
            if now in (None, made_in) and (name not in self._registered or self._engine.unregister(name)):
                self._registered.pop(name, None)
            else:
                self._unused.append(name)

    def run_bound(self, source: str, span: Span, parameters: Any = ()) -> Stream:
        """Bind and run a stretch of the source; where columns are missing for a model, say all of them."""
        try:
            sql = self.bind(source, span)
            if tables_of(sql):
                check_values(sql, parameters)
            return self.run(sql, parameters)
        except Error as error:
            if self._engine.missing_column(error) is None:
                raise

            def bind_error(missing: Mapping[Span, frozenset[str]]) -> Error | None:
                return self._bind_error(self.bind(source, span, missing), parameters)

            found = self.find(source, span)
            raise explain_missing(error, source, span, found, self._engine, self._catalog, bind_error) from None

    def _bind_error(self, sql: Sql, parameters: Any) -> Error | None:
        """The error of binding a statement without running it; None where it binds."""
        try:
            with self._empty_tables(sql, parameters) as values:
                self._guard(sql, lambda text: self._engine.bind(text, values))
        except Error as error:
            return error
        return None

    def _guard(self, sql: Sql, action: Callable[[str], T]) -> T:
        """Run ``action`` on the text; views' functions are kept up to date, errors point into what was typed."""
        views = self._views if sql.at is None else None
        if views is not None:
            views.refresh()
        made: set[str] = set()
        while True:
            try:
                return action(sql.text)
            except Error as error:
                name = views.supply(error) if views is not None else None
                if name is None or name in made:
                    raise self._placed(sql, error) from None
                made.add(name)

    def _translated(self, sql: Sql, batches: Generator[pa.RecordBatch, None, None]) -> Generator[pa.RecordBatch, None, None]:
        try:
            yield from batches
        except Error as error:
            raise self._placed(sql, error) from None

    def _placed(self, sql: Sql, error: Error) -> Error:
        if self._views is not None and (of_view := self._views.explain(error)) is not None:
            return of_view
        if error.span is not None:
            error.span = sql.place(error.span)
            error.source = sql.source
        if sql.at is not None:
            where = f"the query runs in {sql.at}, in the SQL of {self._places.engine(sql.at).dialect}"
            error.hint = f"{error.hint}\n{where}" if error.hint else where
        return _without_internals(error)


def _computed(piece: TablePiece, parameters: Any) -> pa.Table | pa.RecordBatchReader:
    if piece.table is None:
        raise InternalError(f"the table {piece.name} has nothing to compute")
    return piece.table.compute(parameters)


def _again(batches: list[pa.RecordBatch]) -> Generator[pa.RecordBatch, None, None]:
    """Batches that were read already, as a stream."""
    yield from batches


def _without_internals(error: Error) -> Error:
    """The database's message without the names that only we know."""
    udf = re.search(r"Python exception occurred while executing the UDF: (\w+): (.*)", error.message)
    if udf is None:
        return error
    cls = getattr(errors, udf[1], InternalError)
    if not issubclass(cls, Error):
        cls, message = InternalError, f"the function of a model failed: {udf[1]}: {udf[2]}"
    else:
        message = udf[2]
    return cls(message, source=error.source, span=error.span, hint=error.hint)
