"""Queries of the database with calls of ours in them: bound, described and run, with errors in the words of what was typed."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import duckdb
from sqlml_dialect import (
    Calls,
    DialectError,
    ModelCall,
    ModelRef,
    Query,
    Span,
    find_calls,
    name_sql,
    quote_identifier,
    quote_string,
)
from sqlml_dialect.calls import BUILTINS, may_have_calls
from sqlml_dialect.tokens import Kind, scan

from sqlml import errors
from sqlml.binder.calls import CallBinder, macro_name, parse_macro_name, view_call_sql
from sqlml.binder.models import resolve_model, signature
from sqlml.binder.text import Sql, number_parameters, verbatim
from sqlml.bundles.model import Model
from sqlml.catalog import Catalog, Version
from sqlml.contracts import Target
from sqlml.engines.duckdb import DuckDBEngine, Stream
from sqlml.errors import BindError, DatabaseError, Error, InternalError, NotSupportedError, listing, parse_error
from sqlml.types import Column

if TYPE_CHECKING:
    import pyarrow as pa

T = TypeVar("T")

_MISSING_COLUMN = re.compile(r'Referenced column "(.+?)" not found in FROM clause')
_MISSING_MACRO = re.compile(r"Scalar Function with name (.+?) does not exist!")
_WRONG_ARGUMENTS = re.compile(r'Macro "(.+?)"\(\) does not support the supplied arguments')
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
        self._macros: dict[str, str] = {}  # macro → uid of the version that it calls
        self._seen_revision = -1
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
        called = {call.model.name.text.lower() for call in _all_calls(find_calls(text, models, skip=BUILTINS))}
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
                name = macro_name("probs" if output.startswith("proba:") else output, ref)
                if name not in self._macros:
                    self._make_macro(name)
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
        return self.explain_missing(source, span, parameters, lambda: self.run(self.bind(source, span), parameters))

    def explain_missing(self, source: str, span: Span, parameters: Any, action: Callable[[], T]) -> T:
        """Run ``action``; an error about a column that a call of ours takes from the scope becomes the list of all that lack."""
        try:
            return action()
        except Error as error:
            if _MISSING_COLUMN.search(error.message):
                raise self._missing_columns(source, span, parameters, error) from None
            raise

    def _missing_columns(self, source: str, span: Span, parameters: Any, error: Error) -> Error:
        calls = {call.span: call for call in _all_calls(self.find(source, span))}
        missing: dict[Span, frozenset[str]] = {}
        current: Error | None = error
        while current is not None:
            match = _MISSING_COLUMN.search(current.message)
            call = calls.get(current.span) if match and current.span else None
            name = self._input_name(source, call, match[1]) if call and match else None
            if call is None or name is None or name in missing.get(call.span, frozenset()):
                break
            missing[call.span] = missing.get(call.span, frozenset()) | {name}
            current = self._bind_error(self.bind(source, span, missing), parameters)
        if not missing:
            return error
        place, names = next(iter(missing.items()))
        version = resolve_model(self._catalog, calls[place].model, source)
        return missing_columns_error(source, place, version, names, self._scope(source, span, calls[place]))

    def _input_name(self, source: str, call: ModelCall, column: str) -> str | None:
        version = resolve_model(self._catalog, call.model, source)
        return next((c.name for c in version.inputs if c.name.lower() == column.lower()), None)

    def _bind_error(self, sql: Sql, parameters: Any) -> Error | None:
        """The error of binding a statement without running it; None where it binds."""
        try:
            self._guard(sql, lambda text: self._engine.run(f"EXPLAIN {text}", parameters), len("EXPLAIN "))
        except Error as error:
            return error
        return None

    def _scope(self, source: str, span: Span, call: ModelCall) -> tuple[str, ...]:
        """The columns in scope at a call, as far as the database can be brought to tell; else nothing."""
        probe = "abs(struct_pack(*COLUMNS(*)))"  # no such function: the error tells the struct's type
        text = f"EXPLAIN {source[span[0] : call.span[0]]}{probe}{source[call.span[1] : span[1]]}"
        try:
            self._engine.run(text)
        except DatabaseError as error:
            match = re.search(r"'abs\((STRUCT\(.*\))\)'", error.message)
            if match:
                return tuple(name for name, _ in duckdb.sqltype(match[1]).children)
        return ()

    def _guard(self, sql: Sql, action: Callable[[str], T], shift: int = 0) -> T:
        """Run ``action`` on the text; views' functions are kept up to date, errors point into what was typed."""
        self._refresh_macros()
        made: set[str] = set()
        while True:
            try:
                return action(sql.text)
            except Error as error:
                name = self._missing_macro(error)
                if name is None or name in made:
                    raise self._placed(sql, error, shift) from None
                made.add(name)

    def _translated(self, sql: Sql, batches: Generator[pa.RecordBatch, None, None]) -> Generator[pa.RecordBatch, None, None]:
        try:
            yield from batches
        except Error as error:
            raise self._placed(sql, error, 0) from None

    def _placed(self, sql: Sql, error: Error, shift: int) -> Error:
        wrong = _WRONG_ARGUMENTS.search(error.message)
        if wrong and parse_macro_name(wrong[1]):
            return self._view_error(wrong[1])
        if error.span is not None:
            error.span = sql.place((error.span[0] - shift, error.span[1] - shift))
            error.source = sql.source
        return _without_internals(error)

    # --- functions that views call ----------------------------------------------------------------------------------

    def restore_macros(self) -> None:
        """Make what the views of the database call, so that they can be read again after a new connection."""
        mark = f"{name_sql(self._schema)}.main."
        query = f"SELECT sql FROM duckdb_views() WHERE contains(sql, {quote_string(mark)})"  # noqa: S608
        for (text,) in self._engine.side.execute(query).fetchall():
            for token in scan(text):
                name = token.text.strip('"').replace('""', '"')
                if token.kind is Kind.QUOTED and parse_macro_name(name) and name not in self._macros:
                    self._try_macro(name)

    def _try_macro(self, name: str) -> None:
        try:
            self._make_macro(name)
        except BindError:
            return  # its model is gone: the view says so when it is read

    def _missing_macro(self, error: Error) -> str | None:
        """Make the macro whose absence an error tells of; its name, or None where that is not the matter."""
        match = _MISSING_MACRO.search(error.message)
        if match is None or parse_macro_name(match[1]) is None:
            return None
        try:
            self._make_macro(match[1])
        except BindError as gone:
            views = ", ".join(view for view, _ in self._views_with(match[1]))
            raise BindError(f"the view {views} calls a model that is gone: {gone.message}" if views else gone.message) from None
        return match[1]

    def _make_macro(self, name: str) -> None:
        parsed = parse_macro_name(name)
        if parsed is None:
            return
        output, model, number, alias = parsed
        version = self._catalog.resolve(model, number, alias)
        parameters = ", ".join(quote_identifier(c.name) for c in version.inputs)
        body = self.call(version, output)
        place = f"{quote_identifier(self._schema)}.main.{quote_identifier(name)}"
        if self._engine.transaction() is not None:  # what others make meanwhile, an open transaction does not see
            raise NotSupportedError(
                f"inside an open transaction no view or macro can begin to call {version.name}", hint="COMMIT or ROLLBACK first"
            )
        self._engine.define(f"CREATE OR REPLACE MACRO {place}({parameters}) AS {body}")
        self._macros[name] = version.uid

    def _refresh_macros(self) -> None:
        """Let the macros in use follow models and aliases that have moved; not inside a transaction, which would not see it."""
        if not self._macros or (revision := self._catalog.models_revision()) == self._seen_revision:
            return
        self._seen_revision = revision
        for name, uid in list(self._macros.items()):
            parsed = parse_macro_name(name)
            try:
                if parsed and self._catalog.resolve(parsed[1], parsed[2], parsed[3]).uid != uid:
                    self._make_macro(name)
            except BindError:
                # The model was dropped: a view that still calls it must say so when it is read.
                self._engine.define(f"DROP MACRO IF EXISTS {quote_identifier(self._schema)}.main.{quote_identifier(name)}")
                del self._macros[name]

    def _view_error(self, macro: str) -> Error:
        """A view's call no longer fits the version that it now means: name the view and the columns."""
        _, model, number, alias = parse_macro_name(macro) or ("", "", None, None)
        version = self._catalog.resolve(model, number, alias)
        inputs = {c.name.lower(): c.name for c in version.inputs}
        for view, text in self._views_with(macro):
            given = _named_arguments(text, macro)
            lacks = [name for key, name in inputs.items() if key not in {g.lower() for g in given}]
            extra = [name for name in given if name.lower() not in inputs]
            if lacks or extra:
                parts = [f"needs {listing(lacks)}"] if lacks else []
                parts += [f"has no {listing(extra)}"] if extra else []
                return BindError(
                    f"the view {view} calls the model {model}, whose version {version.version} {' and '.join(parts)}",
                    hint=f"make the view again, or pin a version in it: PREDICT({model}@n)",
                )
        return BindError(f"a view calls the model {model} with other inputs than {version.name} has", hint="make the view again")

    def _views_with(self, macro: str) -> list[tuple[str, str]]:
        pattern = quote_string(f"%{quote_identifier(macro)}%".replace("_", "\\_"))
        query = f"SELECT view_name, sql FROM duckdb_views() WHERE sql LIKE {pattern} ESCAPE '\\'"  # noqa: S608
        return [(row[0], row[1]) for row in self._engine.side.execute(query).fetchall()]


def missing_columns_error(source: str, span: Span, version: Version, missing: frozenset[str], have: tuple[str, ...]) -> BindError:
    """``model deposit@1 needs columns that this query does not have: …``, with what it has and how to give them."""
    names = [c.name for c in version.inputs if c.name in missing]
    present = {name.lower(): name for name in have}
    used = [c.name for c in version.inputs if c.name.lower() in present and c.name not in missing]
    example = ", ".join([*used[:2], f"… AS {name_sql(names[0])}", *(["…"] if len(names) > 1 else [])])
    hint = (f"it has: {listing(have, 20)}\n" if have else "") + (
        f"give them in the query, or pass them: PREDICT({version.model} USING {example})"
    )
    return BindError(
        f"model {version.name} needs columns that this query does not have: {listing(names, 5)}",
        source=source, span=span, hint=hint,
    )  # fmt: skip


def _all_calls(found: Calls) -> list[ModelCall]:
    calls: list[ModelCall] = []
    todo = list(found.calls)
    while todo:
        call = todo.pop(0)
        calls.append(call)
        todo += call.inner
    return calls


def _named_arguments(view: str, macro: str) -> list[str]:
    """The names before ``:=`` in a view's call of a macro."""
    tokens = list(scan(view))
    names: list[str] = []
    for index, token in enumerate(tokens):
        if token.kind is Kind.QUOTED and token.text == quote_identifier(macro):
            depth = 0
            for before, here in zip(tokens[index:], tokens[index + 1 :], strict=False):
                depth += {"(": 1, ")": -1}.get(here.text, 0)
                if here.text == ":=" and depth == 1:
                    names.append(before.text.strip('"').replace('""', '"'))
                if depth == 0:
                    break
    return names


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
