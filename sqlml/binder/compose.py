"""A query that is to be deployed: its parameters, models and tables settled, its SELECTs turned into steps over columns.

    text → Select (sqlml_dialect.selects) → once to see how parameters are used, once more with their types → Composition

Every expression becomes a *unit*: its calls, parameters and qualified columns written as plain names, checked and bound by the
private database.  A unit that is nothing but such a name is not computed at all.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

from sqlml_dialect import DialectError, Ident, Span, quote_identifier
from sqlml_dialect.selects import Equality, Item, Select, Source, read_select
from sqlml_dialect.tokens import Kind as TokenKind
from sqlml_dialect.tokens import name_value, scan

from sqlml.binder.compose_expressions import MATRIX, Expressions, Names, Unit, plain
from sqlml.binder.compose_parameters import ParameterTypes
from sqlml.binder.compose_scope import Columns, Computed, Scope, Value
from sqlml.binder.compose_steps import Steps
from sqlml.catalog import Version
from sqlml.composition.copies import INTEGERS, KEY_KINDS
from sqlml.composition.plan import Composition, LookUp, Part, Step
from sqlml.composition.plan import Result as ResultColumn
from sqlml.errors import BindError, listing, parse_error
from sqlml.features.database import known_type
from sqlml.plan import InputColumn
from sqlml.types import SQL_TYPE, Column, Kind


@dataclass(frozen=True)
class Settled:
    """A query, settled: what is computed, the versions in the order of its parts, and where its tables' names stand."""

    composition: Composition
    versions: tuple[Version, ...]
    places: tuple[Span, ...]  # of the look-ups, in order


def compose(source: str, span: Span, endpoint: str, names: Names) -> Settled:
    """Settle a query; nothing is copied and nothing runs.  ``BindError`` and ``NotSupportedError`` point at the place."""
    try:
        tree = read_select(source, span)
    except DialectError as error:
        raise parse_error(error) from None
    types = ParameterTypes(source)
    types.note_casts(span)
    _check_marks(source, span)
    _Compiler(Expressions(source, names, types)).compile(tree)
    types.settle()
    terms = Expressions(source, names, types)
    compiler = _Compiler(terms)
    results = compiler.results(compiler.compile(tree))
    _check_models(source, span, terms.versions)
    parameters = _checked(source, span, types.check())
    parts = tuple(Part(version.uid, version.name) for version in terms.versions)
    steps = tuple(_with_copy(step, endpoint) for step in terms.steps.finish([result.slot for result in results]))
    composition = Composition(source[slice(*span)], parameters, parts, steps, results, types.example())
    used = {look_up.number for look_up in composition.look_ups}
    places = tuple(place for number, place in enumerate(compiler.places) if number in used)
    return Settled(composition, tuple(terms.versions), places)


def _check_models(source: str, span: Span, versions: Sequence[Version]) -> None:
    if not versions:
        raise BindError(
            "the query calls no model", source=source, span=span, hint="PREDICT(churn) or PREDICT_PROBA(churn, 'yes') would"
        )


def _checked(source: str, span: Span, parameters: tuple[InputColumn, ...]) -> tuple[InputColumn, ...]:
    if not parameters:
        raise BindError(
            "the query has no parameters: every request would get the same answer", source=source, span=span,
            hint="a value of the request is written with a dollar: PREDICT(churn USING $age, $job), WHERE c.id = $id",
        )  # fmt: skip
    return parameters


def _with_copy(step: Step, endpoint: str) -> Step:
    """A look-up with the name of its copy: the endpoint's own, and another for other columns, as both may be read at once."""
    if not isinstance(step, LookUp):
        return step
    columns = [asdict(column) for column in (*step.keys, *step.columns)]
    mark = json.dumps([endpoint.lower(), step.number, step.table, len(step.keys), columns])
    return replace(step, copy=hashlib.sha256(mark.encode()).hexdigest()[:16])


def _check_marks(source: str, span: Span) -> None:
    """Refuse parameters without names."""
    for token in scan(source, *span):
        if token.kind is TokenKind.PARAM and (token.text[0] == "?" or token.text[1:].isdigit()):
            raise BindError(
                f"the parameter {token.text} has no name, and a request gives its values by name", source=source,
                span=(token.start, token.end), hint="write $age, $job, …",
            )  # fmt: skip


@dataclass
class _Table:
    """A table that is read by key: its columns are noted as they are asked for."""

    number: int
    table: str
    columns: Mapping[str, Column]
    steps: Steps
    stage: int = 1

    def names(self) -> Sequence[str]:
        return tuple(self.columns)

    def value(self, name: str) -> Value:
        column = self.input(name)
        slot = self.steps.take(self.number, column)
        stored = "BIGINT" if column.sql_type in INTEGERS else SQL_TYPE[column.kind]
        own = known_type(column.sql_type)
        return Value(slot, stored, column.kind, self.stage, own if own and own != stored else None)

    def input(self, name: str) -> InputColumn:
        column = self.columns[name]
        if column.kind is None:
            raise BindError(f"{self.table}.{name} is of a type that cannot be looked up ({column.sql_type})")
        return InputColumn(column.name, column.sql_type, column.kind)


@dataclass
class _Compiler:
    """One pass over the SELECTs; ``places`` are those of the names of the tables that are looked up."""

    terms: Expressions
    places: list[Span] = field(default_factory=list)

    # --- SELECTs ---

    def compile(self, tree: Select, outer: Mapping[str, Columns] | None = None) -> list[tuple[str, Value, Span]]:
        """The columns of a SELECT: name, value and place."""
        named = dict(outer or {})
        for name, query in tree.named:
            named[name.name.lower()] = Computed(self._inner(query, named))
        scope = Scope()
        for index, source in enumerate(tree.sources):
            self._add_source(scope, source, source.on if index else tree.where, named, joined=index > 0)
        if tree.where and not tree.sources:
            raise self.terms.error(
                "WHERE names the key of a table, and there is no FROM",
                tree.where[0].span,
                "put the condition into the items: CASE WHEN … THEN … END",
            )
        return [column for item in tree.items for column in self._item(item, scope)]

    def _inner(self, tree: Select, named: Mapping[str, Columns]) -> dict[str, Value]:
        """The columns of a query in FROM or WITH, by name."""
        found: dict[str, Value] = {}
        for name, value, span in self.compile(tree, named):
            if name.lower() in {known.lower() for known in found}:
                raise self.terms.error(f"two columns of this query are called {name}", span, "give one another name with AS")
            found[name] = value
        return found

    def _item(self, item: Item, scope: Scope) -> list[tuple[str, Value, Span]]:
        if item.star is not None:
            with self.terms.located(item.span):
                found = [(name, value, item.span) for name, _, value in scope.stars(item.star, plain)]
            if not found:
                raise self.terms.error("* stands for the columns of a table, and there is no FROM", item.span, "name the columns")
            return found
        value = self.terms.value(item.span, scope)
        name = item.alias.name if item.alias else _own_name(self.terms.source, item.span)
        if item.alias is not None:
            scope.items.setdefault(name.lower(), value)
        return [(name, value, item.span)]

    def results(self, columns: Sequence[tuple[str, Value, Span]]) -> tuple[ResultColumn, ...]:
        """The columns of the answer.  ``BindError`` for types that an answer cannot have."""
        found: list[ResultColumn] = []
        for name, value, span in columns:
            if any(name.lower() == known.name.lower() for known in found):
                raise self.terms.error(f"two columns of the answer are called {name}", span, "give one another name with AS")
            found.append(self._result(name, value, span))
        return tuple(found)

    def _result(self, name: str, value: Value, span: Span) -> ResultColumn:
        if value.classes:
            return ResultColumn(name, self.terms.steps.answer_too(value.slot, MATRIX), Kind.NUMBERS, "DOUBLE[]", value.classes)
        if value.kind is None:
            shown = value.cast or value.sql_type
            one = shown.startswith("STRUCT") and not shown.endswith("]")
            hint = "take one field of it: (…).name" if one else "take one value of it, or CAST(… AS VARCHAR)"
            raise self.terms.error(f"the column {name} is of a type that an answer cannot have ({shown})", span, hint)
        return ResultColumn(name, value.slot, value.kind, value.cast or value.sql_type)

    # --- sources ---

    def _add_source(
        self, scope: Scope, source: Source, conditions: Sequence[Equality], named: Mapping[str, Columns], *, joined: bool
    ) -> None:
        alias = source.alias.name if source.alias else source.name.parts[-1].name if source.name else None
        if alias is not None and alias.lower() in scope.aliases:
            raise self.terms.error(f"two sources are called {alias}", source.span, "give one another name with AS")
        name = source.name.text.lower() if source.name and len(source.name.parts) == 1 else None
        if source.query is None and name not in named:
            scope.sources.append((alias, self._table(scope, source, conditions, alias or "", joined=joined)))
            return
        if joined:
            raise self.terms.error(
                "only a table that is read by its key can be joined",
                source.span,
                "put the query first: FROM (SELECT …) q LEFT JOIN t ON …",
            )
        if conditions:
            raise self.terms.error(
                "WHERE names the key of the table behind FROM, and there is a query",
                conditions[0].span,
                "put the condition into the items: CASE WHEN … THEN … END",
            )
        columns = (
            named[name] if source.query is None and name else Computed(self._inner(source.query, named)) if source.query else None
        )
        if columns is not None:
            scope.sources.append((alias, columns))

    def _table(self, scope: Scope, source: Source, conditions: Sequence[Equality], alias: str, *, joined: bool) -> Columns:
        if source.name is None:
            raise TypeError("a source without a name is no table")
        span = source.name.span
        text = self.terms.source[slice(*span)]
        columns = {column.name: column for column in self.terms.ask.columns(span)}
        table = _Table(len(self.places), text, columns, self.terms.steps)
        if not conditions and not source.using:
            key = next((name for name in columns if name.lower() in ("id", "key")), next(iter(columns), "id"))
            where = f"LEFT JOIN {text} ON {alias}.{key} = …" if joined else f"WHERE {alias}.{key} = ${key}"
            raise self.terms.error(f"the query would read all of {text}: a table is read by its key", span, f"write {where}")
        self.places.append(span)
        pairs = [self._key(table, alias, condition, scope) for condition in conditions]
        pairs += [self._using(table, column, scope) for column in source.using]
        names = [key.name for key, _ in pairs]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise self.terms.error(f"the key {twice} of {text} is compared twice", source.span, "compare it once")
        table.stage = 1 + max(stage for _, (_, stage) in pairs)
        keys, values = [key for key, _ in pairs], [slot for _, (slot, _) in pairs]
        self.terms.steps.look_up(table.number, text, keys, values, table.stage)
        return table

    def _using(self, table: _Table, column: Ident, scope: Scope) -> tuple[InputColumn, tuple[str, int]]:
        with self.terms.located(column.span):
            key = self._key_column(table, column.name, column.span)
            value = scope.column(column.name)
        return key, self.terms.as_kind(Unit(quote_identifier(column.name), {column.name.lower(): value}, None), key.kind)

    def _key(self, table: _Table, alias: str, equality: Equality, scope: Scope) -> tuple[InputColumn, tuple[str, int]]:
        """The column of a table's key, and the slot and stage of what it is compared with."""
        sides = [equality.left, equality.right]
        named = [self._own_column(table, alias, side) for side in sides]
        if (named[0] is None) == (named[1] is None):
            raise self.terms.error(
                f"{self.terms.source[slice(*equality.span)]} does not compare {table.table} with something else", equality.span,
                f"a table is read by its key alone: {alias}.key = $key, or = a column of what stands before it",
            )  # fmt: skip
        index = 0 if named[0] is not None else 1
        with self.terms.located(sides[index]):
            key = self._key_column(table, named[index] or "", sides[index])
        other = sides[1 - index]
        unit = self.terms.unit(other, scope)
        self.terms.note_use(unit, key.kind, f"the key {key.name} of {table.table}", other)
        return key, self.terms.as_kind(unit, key.kind)

    def _own_column(self, table: _Table, alias: str, span: Span) -> str | None:
        """The column of a table that one side of a comparison names, if it names one."""
        tokens = list(scan(self.terms.source, *span))
        texts = [name_value(token) for token in tokens]
        if len(tokens) == 3 and tokens[1].key == "." and texts[0].lower() == alias.lower():
            return texts[2]
        alone = len(tokens) == 1 and tokens[0].kind in (TokenKind.WORD, TokenKind.QUOTED)
        return texts[0] if alone and texts[0].lower() in {name.lower() for name in table.names()} else None

    def _key_column(self, table: _Table, name: str, span: Span) -> InputColumn:
        found = next((known for known in table.names() if known.lower() == name.lower()), None)
        if found is None:
            raise self.terms.error(f"{table.table} has no column {name}", span, f"it has: {listing(table.names())}")
        column = table.input(found)
        if column.kind not in KEY_KINDS:
            raise self.terms.error(
                f"{found} of {table.table} is {column.sql_type}: no key", span, "compare a number, a text or a date"
            )
        return column


def _own_name(source: str, span: Span) -> str:
    """The name of an item without AS: a column's own, else the text."""
    tokens = list(scan(source, *span))
    names = tokens[::2]
    is_column = len(tokens) % 2 and all(t.key == "." for t in tokens[1::2])
    if is_column and all(t.kind in (TokenKind.WORD, TokenKind.QUOTED) for t in names):
        return name_value(tokens[-1])
    if len(tokens) == 1 and tokens[0].kind is TokenKind.PARAM:
        return tokens[0].text[1:]
    return " ".join(source[slice(*span)].split())
