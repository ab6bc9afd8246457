"""Queries of the database with calls of ours in them: bound, described and run, with errors in the words of what was typed."""

from __future__ import annotations

import re
import uuid
import weakref
from collections.abc import Callable, Collection, Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import cached_property, partial
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from sqlml_dialect import (
    Span,
)
from sqlml_dialect.similar import nearest
from sqlml_dialect.tokens import name_value, scan

from sqlml import errors
from sqlml.binder.labels import check_label_values
from sqlml.binder.models import resolve_model
from sqlml.binder.named_columns import named_columns
from sqlml.binder.parameters import Parameters
from sqlml.binder.pushed import pushed_filters
from sqlml.binder.select_items import items_of
from sqlml.binder.table_calls import TablePiece, check_values, only_looks, tables_of, values_in
from sqlml.binder.text import Piece, Sql
from sqlml.contracts import FewRows, Stream, UnfitArgument
from sqlml.errors import BindError, EngineError, Error, InternalError
from sqlml.registry import missing_extra
from sqlml.statements.binding import Binding
from sqlml.statements.bound_texts import BoundTexts
from sqlml.statements.changes import CHANGES
from sqlml.statements.connection_table import ConnectionTable
from sqlml.statements.missing import all_calls, explain_missing
from sqlml.types import Column

if TYPE_CHECKING:
    import pyarrow as pa

    from sqlml.statements.scoring import Runs

T = TypeVar("T")


class Queries(Binding):
    """Binds and runs the queries of one connection."""

    @cached_property
    def _bound(self) -> BoundTexts:
        return BoundTexts(lambda: (self._catalog.moment(), CHANGES.count))

    def _runs(self) -> Runs:
        return self

    def describe(self, sql: Sql, parameters: Any = ()) -> tuple[Column, ...]:
        """The columns of a query, without running it."""
        try:
            with self._empty_tables(sql, parameters) as values:
                columns = self._guard(sql, lambda text: self.places.engine(sql.at).describe(text, values))
                if not (items := items_of(sql)):
                    return columns
                from sqlml.statements.scored import answered_columns

                return answered_columns(columns, items)
        except BindError as error:
            raise error.located(sql.source, sql.span) from None

    def run(self, sql: Sql, parameters: Any = (), used: Collection[str] | None = None) -> Stream:
        """Run one statement of the database.

        ``used``, the columns that a model reads, is given for rows that go back into that database: see ``ExactEngine``.
        """
        stream = self._run(sql, parameters, used)
        items = items_of(sql)
        if not items or not stream.has_rows:
            return stream
        from sqlml.statements.scored import answered

        return answered(stream, items)

    def _run(self, sql: Sql, parameters: Any, used: Collection[str] | None) -> Stream:
        if not tables_of(sql):
            stream = self._guard(sql, lambda text: self.places.run(sql, text, parameters, used))
            batches = stream.batches
            if not isinstance(batches, FewRows):  # which are there, without an error
                batches = self._translated(sql, batches)
            return Stream(stream.columns, stream.schema, batches, stream.rowcount, stream.has_rows)  # replace() takes longer
        if only_looks(sql.text):
            with self._empty_tables(sql, parameters) as values:
                stream = self._guard(sql, lambda text: self._engine.run(text, values))
                return replace(stream, batches=_again(list(stream.batches)))
        if not any(isinstance(piece.table, ConnectionTable) for piece in tables_of(sql)):
            return self._run_with_tables(sql, parameters)
        return self._run_with_columns(sql, parameters)

    def _run_with_columns(self, sql: Sql, parameters: Any) -> Stream:
        """Run a statement with the columns that it names of connections' tables; a name that is nobody's is told before any row
        is brought.
        """
        error = self._bind_error(sql, parameters)
        if error is not None and self._engine.missing_column(error) is not None:
            raise error
        needed = replace(sql, pieces=tuple(_needing(sql.text, piece) for piece in sql.pieces))
        return self._run_with_tables(needed, parameters)

    def _run_with_tables(self, sql: Sql, parameters: Any) -> Stream:
        """Compute what the statement's calls stand for, in its transaction, then run it; their tables go when it is over."""
        self._lent.free()
        names = [piece.name for piece in tables_of(sql)]
        of_tables: list[Error] = []
        try:
            with _told_instead(of_tables):
                for piece, table in [(piece, _computed(piece, parameters)) for piece in tables_of(sql)]:
                    self._lent.register(piece.name, _noted(table, of_tables))
                stream = self._guard(sql, lambda text: self._engine.run(text, values_in(sql.text, parameters)))
        except BaseException:
            self._lent.free(names)
            raise
        if not stream.has_rows:
            self._lent.free(names)
            return stream
        batches = self._to_the_end(self._translated(sql, stream.batches), names, of_tables)
        weakref.finalize(batches, self._lent.put_aside, names)  # also where nobody begins to read them
        return replace(stream, batches=batches)

    def _to_the_end(
        self, batches: Generator[pa.RecordBatch, None, None], names: list[str], of_tables: list[Error]
    ) -> Generator[pa.RecordBatch, None, None]:
        with _told_instead(of_tables):
            yield from batches
        self._lent.free(names)

    @contextmanager
    def _empty_tables(self, sql: Sql, parameters: Any) -> Iterator[Any]:
        """The tables of a statement's calls without their rows, for a while; the values that are left for the database."""
        tables = tables_of(sql)
        if not tables:
            yield parameters
            return
        self._lent.free()
        try:
            for piece in tables:
                if piece.table is not None:  # as a reader: DuckDB's errors call an empty Arrow table a values list
                    self._lent.register(piece.name, piece.table.empty(parameters).to_reader())
            yield values_in(sql.text, parameters)
        finally:
            self._lent.free([piece.name for piece in tables])

    def run_bound(self, source: str, span: Span, parameters: Any = (), *, casts: bool = False) -> Stream:
        """Bind and run a stretch of the source; where columns are missing for a model, say all of them.

        Columns go to models as they are; with ``casts`` in the types of the inputs, where the database has said that it must be,
        and in a transaction, which its saying so would abort.
        """
        casts = casts or not self.inside or self._engine.transaction() is not None
        try:
            self.check_labels(source, span, parameters)
            sql = self._bind_again(source, span, parameters, casts)
            if tables_of(sql):
                check_values(sql, parameters)
            return self.run(sql, parameters)
        except UnfitArgument:
            if casts:
                raise
            return self.run_bound(source, span, parameters, casts=True)
        except Error as error:
            if self._engine.missing_column(error) is None:
                raise

            def bind_error(missing: Mapping[Span, frozenset[str]]) -> Error | None:
                return self._bind_error(self.bind(source, span, missing), parameters)

            found, scope = self.find(source, span), partial(self._scope, source, span, parameters)
            raise explain_missing(error, source, found, self._engine, self._catalog, bind_error, scope) from None

    def _bind_again(self, source: str, span: Span, parameters: Any, casts: bool) -> Sql:
        """A stretch of the source, bound; as before, where programs send the same text again and nothing has changed since: no
        model, no connection, no table, macro or setting.
        """
        found = self._bound.get(source, span, casts)
        if found is not None:
            return found
        sql = self.bind_there(source, span, parameters)
        if sql is not None:  # by its values, too
            return sql
        sql = self.bind(source, span, casts=casts)
        if not tables_of(sql):
            if self._stays(sql):
                self._bound.put(source, span, sql, casts)
            return sql
        return sql if casts else self.bind(source, span)  # tables are of one run, and computed once

    def _stays(self, sql: Sql) -> bool:
        """Whether what a query calls is there as long as nothing changes: what was made in a transaction goes with its ROLLBACK,
        and what is another process's may go at any moment.
        """
        calls = not all(piece.verbatim for piece in sql.pieces)
        return not calls or (self.inside and self._engine.transaction() is None)

    def check_labels(self, source: str, span: Span, parameters: Any) -> None:
        """``BindError`` where a parameter of a query is to be a class and has the value of none."""
        if parameters and "predict_proba" in source[slice(*span)].lower():
            calls = all_calls(self.find(source, span))
            check_label_values(Parameters(source, span, parameters), calls, lambda ref: resolve_model(self._catalog, ref, source))

    def run_with(self, table: pa.Table, source: str, span: Span, place: Span, parameters: Any = ()) -> Stream:
        """Bind and run a stretch of the source with a table in one place of it."""
        name = f"__sqlml_{uuid.uuid4().hex[:12]}"
        self._lent.free()
        self._lent.register(name, table)
        text = f"{source[span[0] : place[0]]}{name}{source[place[1] : span[1]]}"
        try:
            stream = self.run_bound(text, (0, len(text)), parameters)
        except BaseException:
            self._lent.free([name])
            raise
        batches = self._to_the_end(stream.batches, [name], [])
        weakref.finalize(batches, self._lent.put_aside, [name])  # also where nobody begins to read them
        return replace(stream, batches=batches)

    def _scope(self, source: str, span: Span, parameters: Any, place: Span) -> tuple[str, ...]:
        """The columns in scope at a place of a query, with other places' tables in it as they are at home."""
        sql = self.bind(source, span)
        if not tables_of(sql):
            return self._engine.scope(source[span[0] : place[0]], source[place[1] : span[1]])
        before = "".join(piece.text for piece in sql.pieces if piece.span is not None and piece.span[1] <= place[0])
        after = "".join(piece.text for piece in sql.pieces if piece.span is not None and piece.span[0] >= place[1])
        with self._empty_tables(sql, parameters):
            return self._engine.scope(before, after)

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
        views = self.views if sql.at is None else None
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
        if self.views is not None and (of_view := self.views.explain(error)) is not None:
            return of_view
        if error.span is not None:
            error.span = sql.place(error.span)
            error.source = sql.source
        if sql.at is None and isinstance(error, EngineError) and error.span is not None:
            error.hint = self._near_connection(sql.source[error.span[0] :]) or error.hint
        if sql.at is not None:
            where = f"the query runs in {sql.at}, in the SQL of {self.places.engine(sql.at).dialect}"
            error.hint = f"{error.hint}\n{where}" if error.hint else where
        return _without_internals(error)

    def _near_connection(self, text: str) -> str | None:
        """What a name before a dot may have meant, where a text begins with one that is nearly a connection's."""
        known = self.places.known()
        name, dot = [*islice(scan(text), 2), None, None][:2]
        if name is None or dot is None or dot.text != "." or name_value(name).lower() in known:
            return None
        near = nearest(name_value(name), known.values())
        return f"did you mean {near}.…? {near} is a connection" if near else None


def _needing(query: str, piece: Piece) -> Piece:
    """A connection's table, of which only the columns and rows are brought that the query names."""
    if not isinstance(piece, TablePiece) or not isinstance(piece.table, ConnectionTable):
        return piece
    names, filters = named_columns(query, piece.name), pushed_filters(query, piece.name)
    return replace(piece, table=replace(piece.table, names=names, filters=filters))


def _computed(piece: TablePiece, parameters: Any) -> pa.Table | pa.RecordBatchReader:
    if piece.table is None:
        raise InternalError(f"the table {piece.name} has nothing to compute")
    return piece.table.compute(parameters)


def noting(batches: Generator[pa.RecordBatch, None, None], errors: list[Error]) -> Generator[pa.RecordBatch, None, None]:
    """The same batches; an error of reading them is noted, since a database that reads them tells its text alone."""
    with closing(batches):
        try:
            yield from batches
        except Error as error:
            errors.append(error)
            raise


def _noted(rows: pa.Table | pa.RecordBatchReader, errors: list[Error]) -> pa.Table | pa.RecordBatchReader:
    import pyarrow as pa

    if isinstance(rows, pa.Table):
        return rows
    return pa.RecordBatchReader.from_batches(rows.schema, noting((batch for batch in rows), errors))


@contextmanager
def _told_instead(noted: list[Error]) -> Iterator[None]:
    """An error that was noted takes the place of the one that the database makes of it."""
    try:
        yield
    except Error:
        if noted:
            raise noted[0] from None
        raise


def _again(batches: list[pa.RecordBatch]) -> Generator[pa.RecordBatch, None, None]:
    """Batches that were read already, as a stream."""
    yield from batches


def _without_internals(error: Error) -> Error:
    """The database's message without the names that only we know."""
    udf = re.search(r"Python exception occurred while executing the UDF: (\w+): (.*)", error.message)
    if udf is None:
        return error
    module = re.match(r"No module named '([\w.]+)'", udf[2]) if udf[1] == "ModuleNotFoundError" else None
    if module is not None:
        return missing_extra(ModuleNotFoundError(name=module[1]))
    cls = getattr(errors, udf[1], None)
    if not isinstance(cls, type) or not issubclass(cls, Error):
        cls, message = InternalError, f"the function of a model failed: {udf[1]}: {udf[2]}"
    else:
        message = udf[2]
    return cls(message, source=error.source, span=error.span, hint=error.hint)
