"""The expressions of a query that is deployed: names settled, calls taken out as questions to models, types bound.

expression → unit: its calls, parameters and qualified columns as plain names → checked and bound by the private database
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from sqlml_dialect import Argument, Calls, Ident, ModelCall, ModelRef, Span, quote_identifier
from sqlml_dialect.fitted import column_name, name_span
from sqlml_dialect.tokens import Kind as TokenKind
from sqlml_dialect.tokens import Token, name_value, scan

from sqlml.binder.calls import asked_output, bind_arguments
from sqlml.binder.compose_parameters import ParameterTypes
from sqlml.binder.compose_scope import Scope, Value
from sqlml.binder.compose_steps import Steps
from sqlml.binder.text import Sql, verbatim
from sqlml.catalog import Version
from sqlml.errors import BindError, Error, NotSupportedError, listing
from sqlml.features.checking import TransformError, Wording, changing, check_expression
from sqlml.features.database import ComputeError, bind, functions, known_type
from sqlml.features.sqltypes import kind_of
from sqlml.plan import InputColumn
from sqlml.types import SQL_TYPE, Column, Kind, label_text

PLACE = "a query that is deployed"
_WORDS = Wording(
    place=PLACE,
    own_functions="it is computed where there is no database, so it can only use the database's own functions",
    same="the same request must always get the same answer; give it as a parameter",
    query="read a table by its key: FROM t WHERE t.key = $key, or LEFT JOIN t ON t.key = …\n"
    "what looks at many rows belongs into a view of its own; REFRESH ENDPOINT copies its rows again",
    rows="the query answers each row of a request by itself\n"
    "compute it in a view with one row for each key, and read that by its key; REFRESH ENDPOINT copies its rows again",
    parameter="name it: $age",
)
MATRIX = "matrix"


@dataclass(frozen=True)
class Names:
    """What the compiler asks of the session.

    ``find`` gives the calls of ours in a stretch of the source, ``resolve`` a reference's version, ``columns`` those of the table
    whose name stands at a place.
    """

    find: Callable[[Span], Calls]
    resolve: Callable[[ModelRef], Version]
    columns: Callable[[Span], Sequence[Column]]


@dataclass(frozen=True)
class Unit:
    """An expression with plain names: its SQL, what it reads, and its DuckDB type (None: not known yet)."""

    sql: str
    given: Mapping[str, Value]
    sql_type: Any

    @property
    def direct(self) -> Value | None:
        """The column that it names, where it is nothing else."""
        text = self.sql.strip()
        while text.startswith("(") and text.endswith(")") and column_name(text[1:-1].strip()):
            text = text[1:-1].strip()
        name = column_name(text)
        return None if name is None else self.given.get(name.lower())

    @property
    def stage(self) -> int:
        return max((value.stage for value in self.given.values()), default=0)


@dataclass
class Expressions:
    """The expressions of one pass over a query; what they need is collected in ``steps``, the models that they call in order."""

    source: str
    ask: Names
    types: ParameterTypes
    versions: list[Version] = field(default_factory=list)
    steps: Steps = field(default_factory=Steps)

    def value(self, span: Span, scope: Scope) -> Value:
        """An expression's value under its own type."""
        unit = self.unit(span, scope)
        direct = unit.direct
        if direct is not None:
            return direct
        if unit.sql_type is None:
            return Value("", "INTEGER", None, unit.stage + 1)  # of the first pass: nobody computes it
        kind = kind_of(unit.sql_type)
        sql_type = _result_type(unit.sql_type, kind)
        return Value(self.steps.compute(unit.sql, unit.given, sql_type, unit.stage + 1), sql_type, kind, unit.stage + 1)

    def as_kind(self, unit: Unit, kind: Kind) -> tuple[str, int]:
        """The slot of an expression as a model or a key takes it, and the stage after which it is known."""
        direct = unit.direct
        if direct is not None and (direct.kind is kind or not self.types.settled):
            return direct.slot, direct.stage
        return self.steps.compute(unit.sql, unit.given, SQL_TYPE[kind], unit.stage + 1), unit.stage + 1

    def note_use(self, unit: Unit, kind: Kind, what: str, span: Span, example: Any = None) -> None:
        direct = unit.direct
        if direct is not None and direct.slot.startswith("p:"):
            self.types.use(direct.slot[2:], kind, what, span, example)

    def unit(self, span: Span, scope: Scope) -> Unit:
        """Check and bind an expression."""
        text = self.source[slice(*span)]
        given: dict[str, Value] = {}
        sql = self._rewrite(span, scope, given)
        try:
            check_expression(text, sql, lambda names: self._resolve(names, text, scope, given), _WORDS)
        except TransformError as error:
            raise self._moved(error, span) from None
        except ComputeError as error:
            raise self.error(str(error), span, None) from None
        return Unit(sql, given, self._bind(sql, given, span))

    def _moved(self, error: BindError, span: Span) -> BindError:
        place = (error.span[0] + span[0], error.span[1] + span[0]) if error.span is not None else span
        return BindError(error.message, source=self.source, span=place, hint=error.hint)

    def _resolve(self, names: Sequence[str], text: str, scope: Scope, given: dict[str, Value]) -> None:
        name = names[0]
        key = name.lower()
        if key in given:
            return
        try:
            found = scope.lookup(name)
            if found is None and len(names) == 1 and key in functions().changing:
                raise changing(text, name, _WORDS)
            if found is None and len(names) > 1 and not scope.items.keys() & {key}:
                raise BindError(f"there is no {name} behind FROM")
            given[key] = found or scope.column(name)
        except TransformError:
            raise
        except BindError as error:
            raise TransformError(error.message, span=name_span(text, name), hint=error.hint) from None

    def _bind(self, sql: str, given: Mapping[str, Value], span: Span) -> Any:
        """The type of an expression; None where it cannot be known yet."""
        columns = ", ".join(
            f"CAST(NULL AS {value.cast or value.sql_type}) AS {quote_identifier(name)}" for name, value in given.items()
        )
        try:
            return bind(f"SELECT (\n{sql}\n) AS __x FROM (SELECT {columns or '0'})")[0]  # noqa: S608 - checked before
        except ComputeError as error:
            if not self.types.settled:
                return None
            first = str(error).strip().split("\n")[0].partition(" Error: ")
            raise self.error(first[2] or first[0], span, None) from None

    # --- names written plainly ---

    def _rewrite(self, span: Span, scope: Scope, given: dict[str, Value]) -> str:
        """An expression with its calls, parameters and qualified columns as plain names, which ``given`` gets."""
        calls = {call.span[0]: call for call in self.ask.find(span).calls}
        tokens = list(scan(self.source, *span))
        pieces: list[str] = []
        position, index = span[0], 0
        while index < len(tokens):
            token = tokens[index]
            made, length = self._written(tokens, index, calls, scope, given)
            if made is not None:
                pieces += [self.source[position : token.start], made]
                position = tokens[index + length - 1].end
            index += length
        return "".join([*pieces, self.source[position : span[1]]])

    def _written(
        self, tokens: Sequence[Token], index: int, calls: Mapping[int, ModelCall], scope: Scope, given: dict[str, Value]
    ) -> tuple[str | None, int]:
        """What stands in place of the token at an index (None: itself), and how many tokens that replaces."""
        token = tokens[index]
        call = calls.get(token.start)
        if call is not None:
            length = sum(call.span[0] <= t.start < call.span[1] for t in tokens[index:])
            return self._call(call, scope, given), length
        if token.kind is TokenKind.PARAM:
            value = self._parameter(token.text[1:], (token.start, token.end))
            return _give(given, f"${value.slot[2:]}", value), 1
        behind_dot = index and tokens[index - 1].key == "."
        dotted = [t.key for t in tokens[index + 1 : index + 2]] == ["."] and len(tokens) > index + 2
        is_name = token.kind in (TokenKind.WORD, TokenKind.QUOTED)
        if is_name and dotted and not behind_dot and name_value(token).lower() in scope.aliases:
            return self._qualified(token, tokens[index + 2], scope, given)
        return None, 1

    def _qualified(self, alias: Token, column: Token, scope: Scope, given: dict[str, Value]) -> tuple[str | None, int]:
        if column.kind not in (TokenKind.WORD, TokenKind.QUOTED):
            return None, 1
        span = (alias.start, column.end)
        with self.located(span):
            value = scope.qualified(name_value(alias), name_value(column))
        return _give(given, f"{name_value(alias)}.{name_value(column)}", value), 3

    def _parameter(self, name: str, span: Span) -> Value:
        written = self.types.seen(name, span)
        known = self.types.known.get(name.lower())
        if known is None:
            if self.types.settled:
                self.types.check()
            return Value(f"p:{written}", '"NULL"', None)
        return Value(f"p:{written}", SQL_TYPE[known.kind], known.kind)

    # --- calls ---

    def _call(self, call: ModelCall, scope: Scope, given: dict[str, Value]) -> str:
        """SQL over plain names that stands for a call."""
        if call.function.startswith("ml."):
            raise NotSupportedError(
                f"{call.function.upper()} cannot stand in {PLACE}", source=self.source, span=call.span,
                hint="PREDICT(m), PREDICT_PROBA(m, 'class') and the models' own functions can",
            )  # fmt: skip
        version = self.ask.resolve(call.model)
        if version.uid not in {known.uid for known in self.versions}:
            self.versions.append(version)
        output = asked_output(self.source, call, version)
        inputs = self._inputs(call, version, scope)
        part = next(i for i, known in enumerate(self.versions) if known.uid == version.uid)
        slot, stage = self.steps.ask(part, inputs, output or "probs")
        value = _answer_value(slot, stage, version, output or "probs")
        name = _give(given, f"__{slot}", value)
        if output is not None or call.extra is None:
            return name
        return f"({name})[CAST(({self._rewrite(call.extra.span, scope, given)}) AS VARCHAR)]"

    def _inputs(self, call: ModelCall, version: Version, scope: Scope) -> dict[str, tuple[str, int]]:
        """The slot and stage of each of a model's inputs."""
        columns = {column.name: column for column in version.inputs}
        if call.using is None and scope.sources:
            return self._from_scope(call, version, scope)
        using = (Argument("*", star="*", span=call.span),) if call.using is None else call.using
        call = replace(call, using=tuple(_named(argument) for argument in using))
        given = bind_arguments(self.source, call, version, lambda span: verbatim(self.source, span))
        return {name: self._input(columns[name], sql, call, version, scope) for name, sql in given.items()}

    def _input(self, column: InputColumn, sql: Sql, call: ModelCall, version: Version, scope: Scope) -> tuple[str, int]:
        written = next((piece.span for piece in sql.pieces if piece.verbatim), None)
        unit = self.unit(written, scope) if written else self._named_unit(sql.text, column, call, version, scope)
        what = f"the input {column.name} of {version.name}"
        self.note_use(unit, column.kind, what, written or call.span, version.example.get(column.name))
        return self.as_kind(unit, column.kind)

    def _named_unit(self, text: str, column: InputColumn, call: ModelCall, version: Version, scope: Scope) -> Unit:
        """An input that no expression gives: a parameter of its name, or a column that a star stands for."""
        given: dict[str, Value] = {}
        if not scope.sources and column.name.lower() not in scope.items:
            value = self._parameter(column.name, call.span)
            return Unit(_give(given, f"${value.slot[2:]}", value), given, None)
        prefix = text.removesuffix(quote_identifier(column.name)).removesuffix(".")
        try:
            value = scope.qualified(plain(prefix), column.name) if prefix else scope.column(column.name)
        except BindError as error:
            raise self._missing([column.name], call, version, scope, error.hint) from None
        return Unit(_give(given, f"{prefix}.{column.name}", value), given, None)

    def _from_scope(self, call: ModelCall, version: Version, scope: Scope) -> dict[str, tuple[str, int]]:
        """Every input by its name from the sources."""
        with self.located(call.span):
            found = {column.name: scope.lookup(column.name) for column in version.inputs}
        missing = [name for name, value in found.items() if value is None]
        if missing:
            raise self._missing(missing, call, version, scope, None)
        kinds = {column.name: column.kind for column in version.inputs}
        units = {name: Unit(quote_identifier(name), {name.lower(): value}, None) for name, value in found.items() if value}
        for name, unit in units.items():
            self.note_use(unit, kinds[name], f"the input {name} of {version.name}", call.span, version.example.get(name))
        return {name: self.as_kind(unit, kinds[name]) for name, unit in units.items()}

    def _missing(self, missing: Sequence[str], call: ModelCall, version: Version, scope: Scope, hint: str | None) -> BindError:
        return BindError(
            f"model {version.name} needs columns that this query does not have: {listing(missing)}", source=self.source,
            span=call.span, hint=f"it has: {listing(scope.names()) or 'none'}\n"
            f"take them from the request: PREDICT({call.model.text} USING *, ${missing[0]} …)",
        )  # fmt: skip

    # --- errors ---

    def error(self, message: str, span: Span, hint: str | None) -> BindError:
        return BindError(message, source=self.source, span=span, hint=hint)

    @contextmanager
    def located(self, span: Span) -> Iterator[None]:
        """Gives errors from inside a ``with`` a place."""
        try:
            yield
        except Error as error:
            raise error.located(self.source, span) from None


def _give(given: dict[str, Value], name: str, value: Value) -> str:
    """Note what a plain name means; the name as SQL has it."""
    given[name.lower()] = value
    return quote_identifier(name)


def _answer_value(slot: str, stage: int, version: Version, output: str) -> Value:
    """What a model answers, as SQL sees it."""
    if output == "probs":
        return Value(slot, "MAP(VARCHAR, DOUBLE)", None, stage, classes=tuple(label_text(label) for label in version.classes))
    if output.startswith("proba:"):
        return Value(slot, "DOUBLE", Kind.NUMBER, stage)
    if output.startswith("reasons:"):
        return Value(slot, "STRUCT(feature VARCHAR, value VARCHAR, contribution DOUBLE)[]", None, stage)
    found = known_type(version.result) or version.result
    return Value(slot, found, kind_of(bind(f"SELECT CAST(NULL AS {found})")[0]), stage)


def _result_type(sql_type: Any, kind: Kind | None) -> str:
    """The type that an expression's value is kept in: its own; an untyped NULL is a text."""
    text = str(sql_type)
    return "VARCHAR" if sql_type.id == "null" else text if kind is not None or known_type(text) else "VARCHAR"


def _named(argument: Argument) -> Argument:
    """``$age`` by itself is called age."""
    tokens = list(scan(argument.text))
    if argument.name is None and argument.star is None and len(tokens) == 1 and tokens[0].kind is TokenKind.PARAM:
        return replace(argument, name=Ident(argument.text.strip()[1:]))
    return argument


def plain(written: str) -> str:
    """A name as it is meant."""
    tokens = list(scan(written))
    return name_value(tokens[0]) if len(tokens) == 1 else written
