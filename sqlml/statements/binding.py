"""Queries of a connection as SQL for the database that their tables are in: our calls and other places' tables replaced."""

from __future__ import annotations

import re
import uuid
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from sqlml_dialect import (
    Calls,
    DialectError,
    ModelCall,
    ModelRef,
    Query,
    Span,
    find_calls,
    quote_identifier,
)
from sqlml_dialect.calls import BUILTINS, may_have_calls
from sqlml_dialect.table_functions import TABLE_FUNCTIONS
from sqlml_dialect.tokens import Kind, Token, scan

from sqlml.binder.calls import CallBinder, view_call_sql
from sqlml.binder.models import resolve_model
from sqlml.binder.remote_tables import RemoteTable, Tables, alias_of, find_tables, is_query
from sqlml.binder.select_items import is_select_item, item_sql, items_of
from sqlml.binder.table_calls import Computed, TablePiece, table_piece, tables_of
from sqlml.binder.text import Sql, number_parameters, verbatim
from sqlml.catalog import Catalog, Version
from sqlml.contracts import Notice, Target
from sqlml.errors import BindError, NotSupportedError, ProgrammingError, did_you_mean, listing, parse_error
from sqlml.statements.connection_table import ConnectionTable
from sqlml.statements.lent_tables import LentTables
from sqlml.statements.log_relations import FileRelation
from sqlml.statements.missing import all_calls
from sqlml.statements.own_database import calls_functions
from sqlml.statements.places import Places, changes_hint
from sqlml.statements.relations import Relation
from sqlml.statements.schema import RelationTable
from sqlml.statements.views import ViewFunctions

if TYPE_CHECKING:
    from sqlml.statements.scoring import Runs
    from sqlml.statements.table_functions import TableFunctions

_KEPT = re.compile(
    r"\s*(?:create\s+(?:or\s+replace\s+)?(?:temp\s+|temporary\s+|recursive\s+|materialized\s+)*(?P<made>view|macro|function)|(?P<prepared>prepare))\b",
    re.IGNORECASE,
)
PREPARED = "prepared statement"
_GIVES_ITEMS = ("postgres", "spark")
"""Engines that take a name in double quotes for nothing but a name (SQLite makes a text of one that it does not know)."""
_NUMBERS_VALUES = ("postgres",)
"""Engines that take ``$1``: an item's arguments stand in the order of the model's inputs, not in that of the values."""
ROWS_ALIAS = "__sqlml_rows"
_SPECIAL = ("transform", "anomalies")
"""Outputs that no model has of its own: see ``TableFunctions.special``."""
_FOLLOW = frozenset({"view", "macro", "function"})
"""What keeps a query and runs it again later; all but PREPARE, which does not outlive the connection, follow a model's alias."""


class Binding(ABC):
    """Binds the queries of one connection.

    ``places`` is where they may run, ``schema`` the name of our schema in the database.  ``notice`` gets what the person should
    know.  ``relations`` are those that the database itself cannot show live: they are copied to it for the statement that reads
    them.  ``views``: what the views call already, as another connection of this process knows it.
    """

    def __init__(
        self,
        places: Places,
        catalog: Catalog,
        target: Target,
        schema: str,
        notice: Notice,
        relations: Mapping[str, Relation | FileRelation] | None = None,
        views: ViewFunctions | None = None,
    ) -> None:
        self.places = places
        self._engine = places.home
        self._catalog = catalog
        self._target = target
        self._schema = schema
        self._notice = notice
        self._relations = relations or {}
        self._lent = LentTables(self._engine)
        calls = self._engine if calls_functions(self._engine) else None
        self.inside = calls is not None
        """Whether the database calls models from inside its queries."""
        self.views = None if calls is None else ViewFunctions(calls, catalog, schema, self.call, views)
        """What the database's views call."""
        if self.views is not None and views is None:
            self.views.restore()
        self._hidden: set[str] = set()  # model names that are the database's own functions

    @cached_property
    def _tables(self) -> TableFunctions:
        from sqlml.statements.table_functions import TableFunctions  # and with it all that measures models

        return TableFunctions(self._catalog, self._runs())

    @property
    def schema(self) -> str:
        """The name of our schema in the database."""
        return self._schema

    @abstractmethod
    def _runs(self) -> Runs:
        """Who describes and runs queries."""

    def find(self, source: str, span: Span) -> Calls:
        """The calls of ours in a stretch of text."""
        text = source[span[0] : span[1]]
        models = self._functions(text)
        if not models and not may_have_calls(text):
            return Calls()
        lowered = text.lower()
        names = (name for name in (*BUILTINS, *TABLE_FUNCTIONS, *models) if name in lowered and _may_be_called(name, lowered))
        skip = {name for name in names if self._is_databases(name)}
        try:
            self._tell_hidden(text, skip.intersection(models))
            return find_calls(text, [m for m in models if m not in skip], span[0], skip=skip)
        except DialectError as error:
            raise parse_error(error).moved(source, span[0]) from None

    def _is_databases(self, name: str) -> bool:
        """Whether the database has a function of this name that is no model's."""
        own = {f.name.lower() for f in self._catalog.functions() if f.connection is None} if not self.inside else set()
        return name not in own and self._engine.has_function(name)

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
        if self._is_databases(model.lower()):
            self._notice(f"{model} is a function of the database: the model of that name is reached by PREDICT({model})")

    def _functions(self, text: str) -> list[str]:
        """The models whose name occurs in a text, so that most statements ask the catalog for nothing more."""
        lowered = text.lower()
        return [name.lower() for name in self._catalog.model_names() if name.lower() in lowered]

    def scores_inside(self, sql: Sql) -> bool:
        """Whether a query's rows can be scored where they are."""
        return sql.at is None and self.inside

    def bind(self, source: str, span: Span, missing: Mapping[Span, frozenset[str]] | None = None, *, casts: bool = True) -> Sql:
        """A stretch of the source as SQL for the database that its tables are in.

        ``casts``: columns are cast to the types of the models' inputs; else they are given as they are where the models may read
        them so, and ``UnfitArgument`` comes of running it where one cannot.
        """
        found = self.find(source, span)
        tables = self.places.tables(source, span)
        place = None if found.calls else self.places.runs_there(source, span, tables)
        if place is not None:
            return self.places.remote_sql(source, span, tables, place)
        brought = self._brought(source, span, tables)
        if not found.calls and not brought:
            return verbatim(source, span)
        binder = self._binder(source, self._kept_by(source, span), missing, span, brought, casts=casts)
        return number_parameters(binder.bind(span, found), span)

    def bind_there(self, source: str, span: Span, parameters: Any = ()) -> Sql | None:
        """A query over one connection's tables whose calls are whole columns of its result, as SQL for that connection.

        Its database then gives the rows that the query asks for, and no others are brought; this side answers the calls.  None
        where that cannot be: bound as ever, the query works at home or says what is wrong with it.  ``parameters`` are the
        values that it will be run with.
        """
        tables = self.places.tables(source, span)
        at = self.places.runs_there(source, span, tables)
        if at is None:
            return None
        found = self.find(source, span)
        if not found.calls or not all(_is_plain_item(source, span, call) for call in found.calls):
            return None
        engine = self.places.engine(at)
        if engine.name not in _GIVES_ITEMS:
            return None
        if engine.name not in _NUMBERS_VALUES and any(token.kind is Kind.PARAM for token in scan(source, *span)):
            return None

        def item(call: ModelCall, version: Version, output: str, arguments: Mapping[str, Sql]) -> Sql:
            inputs = {column.name: arguments[column.name] for column in version.inputs}
            return item_sql(source, call.span, inputs, f"__sqlml_{uuid.uuid4().hex[:8]}_", version, output)

        def call_sql(*_: object) -> str:
            raise NotSupportedError(f"{engine.name} cannot look up the class that each row names")

        named = self.places.pieces_there(tables, at)
        binder = CallBinder(source, lambda ref: resolve_model(self._catalog, ref, source), call_sql, item=item, tables=named)
        try:
            sql = replace(binder.bind(span, found), at=at)
            sql = number_parameters(sql, span) if parameters else sql  # without values a ? is PostgreSQL's operator
            engine.describe(sql.text, parameters)
        except (ProgrammingError, NotSupportedError):
            return None
        return sql

    def _brought(self, source: str, span: Span, tables: Tables) -> tuple[TablePiece, ...]:
        """The pieces that stand for tables copied into the database for the statement: of connections, of the catalog."""
        found: list[tuple[RemoteTable, Computed]] = [(t, ConnectionTable(t, self.places, source)) for t in tables.remote]
        if self._relations and self._schema in source[slice(*span)].lower():
            for table in find_tables(source, span, {self._schema: self._schema}).remote:
                found.append((table, RelationTable(self._relation(table, source))))
        for table in tables.remote:
            if table.changes:
                raise NotSupportedError(
                    f"{source[slice(*table.span)]} is a table of the connection {table.connection}",
                    source=source, span=table.span, hint=changes_hint(table.connection),
                )  # fmt: skip
        kept_by = self._kept_by(source, span) if found else None
        if kept_by is not None:
            raise NotSupportedError(
                f"{source[slice(*found[0][0].span)]} is copied here for one statement, and a {kept_by} would read it again",
                source=source, span=found[0][0].span, hint="keep its rows: CREATE TABLE … AS SELECT …",
            )  # fmt: skip
        return tuple(table_piece(f"__sqlml_{uuid.uuid4().hex[:12]}", made, t.span, alias_of(t)) for t, made in found)

    def copied_relation(self, name: str) -> Relation | FileRelation | None:
        """A relation of ours that the database does not show live; None where it does."""
        return self._relations.get(name)

    def _relation(self, table: RemoteTable, source: str) -> Relation | FileRelation:
        name = table.parts[-1].lower()
        if name not in self._relations:
            hint = did_you_mean(name, self._relations) or f"there are: {listing(self._relations, 40)}"
            raise BindError(f"there is no relation {self._schema}.{table.parts[-1]}", source=source, span=table.span, hint=hint)
        return self._relations[name]

    def projected(self, sql: Sql, names: Iterable[str], sample: tuple[int, int] | None = None) -> Sql:
        """Some columns of a query; ``sample`` is a seed and a number of rows."""
        if items_of(sql):
            raise NotSupportedError(
                f"{self._engine.name} cannot compute a model's answer inside this query", source=sql.source, span=sql.span,
                hint="PREDICT MODEL m INTO t AS … puts it into a table first",
            )  # fmt: skip
        engine = self.places.engine(sql.at)
        columns = ", ".join(engine.quote(name) for name in names)
        rows = engine.sample_clause(*sample) if sample else f" AS {ROWS_ALIAS}"
        return sql.wrapped(f"SELECT {columns} FROM (", f"\n){rows}")  # noqa: S608

    def estimate_rows(self, sql: Sql, parameters: Any = ()) -> int | None:
        """How many rows the database expects; None where a table of ours, computed first, is part of the query."""
        return None if tables_of(sql) else self.places.engine(sql.at).estimate_rows(sql.text, parameters)

    def predict_table(
        self, source: str, ref: ModelRef, version: Version, query: Query, missing: frozenset[str] = frozenset()
    ) -> Sql:
        """``(SELECT the query's columns, the prediction's columns …)`` for a PREDICT MODEL statement."""
        binder = self._binder(source, None, {ref.span: missing})
        return binder.predict_table(ref, version, self.bind(source, query.span), ref.span)

    def call(self, version: Version, output: str) -> str:
        """SQL that calls a version with every input taken by name from the scope."""
        return self._call_sql(version, output, {c.name: quote_identifier(c.name) for c in version.inputs})

    def added_columns(self, version: Version) -> tuple[str, ...]:
        """The names of the columns that PREDICT MODEL adds."""
        return tuple(name for name, _ in version.added)

    def _binder(
        self,
        source: str,
        kept_by: str | None,
        missing: Mapping[Span, frozenset[str]] | None,
        span: Span = (0, 0),
        brought: tuple[TablePiece, ...] = (),
        *,
        casts: bool = True,
    ) -> CallBinder:
        told: set[str] = set()
        casts = casts or kept_by is not None  # what is kept may read other columns one day

        def call_sql(ref: ModelRef, version: Version, output: str, arguments: Mapping[str, str], plain: Collection[str]) -> str:
            if kept_by == PREPARED and ref.version is None and version.name not in told:
                told.add(version.name)
                self._notice(
                    f"the prepared statement stays with {version.name}: PREPARE it anew where it is to take another version"
                )
            if kept_by not in (None, PREPARED) and (self.views is None or kept_by not in _FOLLOW):
                raise _kept_error(kept_by, version, source, ref.span, self._engine.name)
            if self.views is not None and kept_by in _FOLLOW:
                self._call_sql(version, output, arguments)  # says what is wrong with it
                self.views.ensure(ref, output)
                return view_call_sql(self._schema, ref, version, output, arguments)
            try:
                return self._call_sql(version, output, arguments, plain)
            except NotSupportedError as error:
                raise error.located(source, ref.span) from None

        def rows(call: ModelCall, version: Version, output: str, body: Sql) -> TablePiece:
            if kept_by is not None:
                raise _kept_error(kept_by, version, source, call.span, self._engine.name)
            return self._tables.rows(call, version, output, number_parameters(body, span))

        def table(call: ModelCall, version: Version, body: Sql | None) -> TablePiece:
            numbered = None if body is None else number_parameters(body, span)
            return self._tables.bind(call, version, numbered, source, kept_by)

        def resolve(ref: ModelRef) -> Version:
            return resolve_model(self._catalog, ref, source)

        def item(call: ModelCall, version: Version, output: str, arguments: Mapping[str, Sql]) -> Sql | None:
            try:
                self._call_sql(version, output, dict.fromkeys(arguments, "NULL"))
            except NotSupportedError as error:
                if kept_by is None and is_query(source, span) and is_select_item(source, span, call.span):
                    inputs = {column.name: arguments[column.name] for column in version.inputs}
                    return item_sql(source, call.span, inputs, f"__sqlml_{uuid.uuid4().hex[:8]}_", version, output)
                instead = (
                    f"as a column of the outermost SELECT, by itself, it is computed here; "
                    f"else PREDICT MODEL {version.name} INTO t AS …"
                )
                hint = f"{error.hint}\n{instead}" if error.hint else instead
                raise NotSupportedError(error.message, source=source, span=call.span, hint=hint) from None
            return None

        if self.inside:
            return CallBinder(source, resolve, call_sql, missing or {}, table, tables=brought, casts=casts)
        return CallBinder(source, resolve, call_sql, missing or {}, table, rows, item, brought, self._target.class_sql)

    def _call_sql(self, version: Version, output: str, arguments: Mapping[str, str], plain: Collection[str] = ()) -> str:
        special = self._tables.special(version, output) if output.partition(":")[0] in _SPECIAL else None
        if special is not None:
            name, signature, of_rows = special
            return self._target.call_sql(name, "full", signature, of_rows, arguments)
        from sqlml.bundles.model import Model

        load = partial(Model.open, version.bundle, version.sha256)
        return self._target.call_sql(version.uid, output, version.signature, load, arguments, plain)

    def _kept_by(self, source: str, span: Span) -> str | None:
        """What keeps the text and runs it again later, if the statement makes such a thing: a view, a macro …"""
        tokens = tuple(scan(source, *span))
        match = _KEPT.match(" ".join([t.text for t in tokens if t.kind is Kind.WORD][:6]))
        if match is None:
            return _keeps_expressions(tokens)
        return match["made"].lower() if match["made"] else PREPARED


def _may_be_called(name: str, text: str) -> bool:
    """Whether a bracket, or a comment before one, may follow a name, so that most names are not asked of the database."""
    return re.search(rf'{re.escape(name)}(?!\w)[@\w."]*\s*(?:\(|/\*|--)', text) is not None


def _is_plain_item(source: str, span: Span, call: ModelCall) -> bool:
    """Whether a call is a column of the query's result by itself, with no other call inside."""
    return not call.inner and not call.function.startswith("ml.") and is_select_item(source, span, call.span)


def _keeps_expressions(tokens: Sequence[Token]) -> str | None:
    """What a definition makes that keeps the expressions in it: an index, a column's default, a policy; a query's rows do not."""
    keys = [token.key for token in tokens if token.kind is Kind.WORD]
    if not keys or keys[0] not in ("CREATE", "ALTER"):
        return None
    if keys[0] == "CREATE" and "TABLE" in keys[1:5] and _makes_rows(tokens):
        return None
    if keys[0] == "ALTER" and "USING" in keys and not {"GENERATED", "DEFAULT", "CHECK"} & set(keys):
        return None  # a column's values are computed anew, once
    kinds = ("TABLE", "INDEX", "POLICY", "TRIGGER", "RULE", "STATISTICS", "DOMAIN", "TYPE", "PROCEDURE")
    found = next((key for key in keys[1:5] if key in kinds), None)
    return found.lower() if found else "definition"


def _makes_rows(tokens: Sequence[Token]) -> bool:
    """Whether a CREATE TABLE is one of a query's rows: its AS stands outside of brackets, in which columns are defined."""
    depth = 0
    for token in tokens:
        depth += (token.key == "(") - (token.key == ")")
        if token.key == "AS" and depth == 0:
            return True
    return False


def _kept_error(kept_by: str | None, version: Version, source: str, span: Span, engine: str) -> NotSupportedError:
    if engine == "duckdb":
        hint = f"a view may: CREATE VIEW v AS SELECT *, PREDICT({version.model}) … follows the model"
    else:
        hint = f"DEPLOY MODEL {version.name} TO DATABASE AS FUNCTION {version.model} makes one that stays; call that one"
    return NotSupportedError(
        f"{_a(kept_by)} in {engine} cannot call {version.name}: the function that this connection makes goes with it",
        source=source, span=span, hint=hint,
    )  # fmt: skip


def _a(kept_by: str | None) -> str:
    return "a table's definition" if kept_by == "table" else f"{'an' if kept_by == 'index' else 'a'} {kept_by}"
