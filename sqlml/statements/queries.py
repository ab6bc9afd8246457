"""Queries of the database with calls of ours in them: bound, described and run, with errors in the words of what was typed."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from sqlml_dialect import (
    Calls,
    DialectError,
    ModelRef,
    Query,
    Span,
    find_calls,
    quote_identifier,
)
from sqlml_dialect.calls import BUILTINS, may_have_calls
from sqlml_dialect.tokens import Kind, scan

from sqlml import errors
from sqlml.binder.calls import CallBinder, view_call_sql
from sqlml.binder.models import resolve_model, signature
from sqlml.binder.text import Sql, number_parameters, verbatim
from sqlml.bundles.model import Model
from sqlml.catalog import Catalog, Version
from sqlml.contracts import Stream, Target
from sqlml.engines.duckdb import DuckDBEngine
from sqlml.errors import BindError, Error, InternalError, parse_error
from sqlml.statements.missing import all_calls, explain_missing
from sqlml.statements.views import ViewFunctions
from sqlml.types import Column

if TYPE_CHECKING:
    import pyarrow as pa

T = TypeVar("T")

_VIEW = re.compile(r"\s*create\s+(or\s+replace\s+)?(temp\s+|temporary\s+|recursive\s+)*(view|macro|function)\b", re.IGNORECASE)


class Queries:
    """Binds and runs the queries of one connection.

    ``schema`` is the name of our schema in the database.  ``notice`` gets what the person should know.
    """

    def __init__(
        self, engine: DuckDBEngine, catalog: Catalog, target: Target, schema: str, notice: Callable[[str], None]
    ) -> None:
        self._engine = engine
        self._catalog = catalog
        self._target = target
        self._schema = schema
        self._notice = notice
        self._views = ViewFunctions(engine, catalog, schema, self.call)
        self._views.restore()
        self._hidden: set[str] = set()  # model names that are the database's own functions

    # --- binding ----------------------------------------------------------------------------------------------------

    def find(self, source: str, span: Span) -> Calls:
        """The calls of ours in a stretch of text."""
        text = source[span[0] : span[1]]
        models = self._functions(text)
        if not models and not may_have_calls(text):
            return Calls()
        lowered = text.lower()
        skip = {name for name in (*BUILTINS, *models) if name in lowered and self._engine.has_function(name)}
        try:
            self._tell_hidden(text, skip.intersection(models))
            return find_calls(text, [m for m in models if m not in skip], span[0], skip=skip)
        except DialectError as error:
            raise parse_error(error).moved(source, span[0]) from None

    def _tell_hidden(self, text: str, models: set[str]) -> None:
        """Say once that a model named like a function of the database has none of its own, where such a function is called."""
        if models <= self._hidden:
            return
        called = {call.model.name.text.lower() for call in all_calls(find_calls(text, models, skip=BUILTINS))}
        for name in sorted(called & models - self._hidden):
            self._hidden.add(name)
            self._notice(f"{name} is a function of the database: the model of that name is reached by PREDICT({name})")

    def tell_if_hidden(self, model: str) -> None:
        """Say that a model has no function of its own, where the database has one of its name."""
        if self._engine.has_function(model):
            self._notice(f"{model} is a function of the database: the model of that name is reached by PREDICT({model})")

    def _functions(self, text: str) -> list[str]:
        """The models whose name occurs in a text, so that most statements ask the catalog for nothing more."""
        lowered = text.lower()
        return [name.lower() for name in self._catalog.model_names() if name.lower() in lowered]

    def bind(self, source: str, span: Span, missing: Mapping[Span, frozenset[str]] | None = None) -> Sql:
        """A stretch of the source as SQL for the database."""
        found = self.find(source, span)
        if not found.calls:
            return verbatim(source, span)
        return number_parameters(self._binder(source, self._keeps_names(source, span), missing).bind(span, found), span)

    def predict_table(
        self, source: str, ref: ModelRef, version: Version, query: Query, missing: frozenset[str] = frozenset()
    ) -> Sql:
        """``(SELECT the query's columns, the prediction's columns …)`` for a PREDICT MODEL statement."""
        binder = self._binder(source, False, {ref.span: missing})
        return binder.predict_table(ref, version, self.bind(source, query.span), ref.span)

    def call(self, version: Version, output: str) -> str:
        """SQL that calls a version with every input taken by name from the scope."""
        return self._call_sql(version, output, {c.name: quote_identifier(c.name) for c in version.inputs})

    def added_columns(self, version: Version) -> tuple[str, ...]:
        """The names of the columns that PREDICT MODEL adds."""
        return self._target.added_columns(signature(version))

    def sample_clause(self, seed: int, rows: int) -> str:
        """What follows ``FROM (query)`` to keep a seeded sample of its rows."""
        return self._engine.sample_clause(seed, rows)

    def _binder(self, source: str, in_view: bool, missing: Mapping[Span, frozenset[str]] | None) -> CallBinder:
        def call_sql(ref: ModelRef, version: Version, output: str, arguments: Mapping[str, str]) -> str:
            if in_view:
                self._views.ensure(ref, output)
                return view_call_sql(self._schema, ref, version, output, arguments)
            return self._call_sql(version, output, arguments)

        return CallBinder(source, lambda ref: resolve_model(self._catalog, ref, source), call_sql, missing or {})

    def _call_sql(self, version: Version, output: str, arguments: Mapping[str, str]) -> str:
        load = partial(Model.open, version.bundle, version.sha256)
        return self._target.call_sql(version.uid, output, signature(version), load, arguments)

    @staticmethod
    def _keeps_names(source: str, span: Span) -> bool:
        """Whether the database keeps the text (a view, a macro) and binds it again later."""
        words = [t.text for t in scan(source, *span) if t.kind is Kind.WORD]
        return bool(_VIEW.match(" ".join(words[:6])))

    # --- running ----------------------------------------------------------------------------------------------------

    def describe(self, sql: Sql, parameters: Any = ()) -> tuple[Column, ...]:
        """The columns of a query, without running it."""
        try:
            return self._guard(sql, lambda text: self._engine.describe(text, parameters))
        except BindError as error:
            raise error.located(sql.source, sql.span) from None

    def run(self, sql: Sql, parameters: Any = ()) -> Stream:
        """Run one statement of the database."""
        stream = self._guard(sql, lambda text: self._engine.run(text, parameters))
        return replace(stream, batches=self._translated(sql, stream.batches))

    def run_bound(self, source: str, span: Span, parameters: Any = ()) -> Stream:
        """Bind and run a stretch of the source; where columns are missing for a model, say all of them."""
        try:
            return self.run(self.bind(source, span), parameters)
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
            self._guard(sql, lambda text: self._engine.bind(text, parameters))
        except Error as error:
            return error
        return None

    def _guard(self, sql: Sql, action: Callable[[str], T]) -> T:
        """Run ``action`` on the text; views' functions are kept up to date, errors point into what was typed."""
        self._views.refresh()
        made: set[str] = set()
        while True:
            try:
                return action(sql.text)
            except Error as error:
                name = self._views.supply(error)
                if name is None or name in made:
                    raise self._placed(sql, error) from None
                made.add(name)

    def _translated(self, sql: Sql, batches: Generator[pa.RecordBatch, None, None]) -> Generator[pa.RecordBatch, None, None]:
        try:
            yield from batches
        except Error as error:
            raise self._placed(sql, error) from None

    def _placed(self, sql: Sql, error: Error) -> Error:
        if (of_view := self._views.explain(error)) is not None:
            return of_view
        if error.span is not None:
            error.span = sql.place(error.span)
            error.source = sql.source
        return _without_internals(error)


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
