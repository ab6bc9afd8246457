"""Our calls inside the database's queries: each becomes a call of a version's function, with its arguments bound by name.

The database itself resolves the names: an argument taken from the scope becomes the input's name, quoted and unqualified.  What
is missing or ambiguous is the database's to say; ``sqlml.statements.queries`` turns its words into ours.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlml_dialect import Argument, Calls, Ident, ModelCall, ModelRef, Span, quote_identifier, quote_string

from sqlml.binder.labels import class_index
from sqlml.binder.options import bind_options, check_literals
from sqlml.binder.parameters import Parameters
from sqlml.binder.table_calls import ROW_FUNCTIONS, TablePiece, row_table
from sqlml.binder.text import Piece, Sql, fill, hole, made, replace_calls
from sqlml.catalog import Version
from sqlml.errors import BindError, count_of, did_you_mean, listing
from sqlml.registry import get_algorithm
from sqlml.types import BOOLEAN_WORDS, Task, label_text

DEFAULT_REASONS = 3
_A_COLUMN = re.compile(r'(?:\w+\.|"(?:[^"]|"")*"\.)*"(?:[^"]|"")*"')


def map_class_sql(probs: str, label: str) -> str:
    """A class's probability in DuckDB's map."""
    return f"({probs})[CAST(({label}) AS VARCHAR)]"


def _boolean_label(label: str) -> str:
    """The label of a boolean class that a row or a parameter names, in the words that a literal may have, in DuckDB's SQL."""
    words = " ".join(f"WHEN {quote_string(word)} THEN '{str(value).lower()}'" for word, value in BOOLEAN_WORDS.items())
    return f"CASE lower(CAST(({label}) AS VARCHAR)) {words} END"


@dataclass(frozen=True)
class CallBinder:
    """Turns calls into SQL.

    ``missing``: inputs to take as NULL, by the place of the call, to find out what else is missing.  ``table`` gives the piece
    that stands for a call whose table is computed before the statement runs, from its query with the calls in it bound; ``rows``
    the same for calls that answer row by row, where the database cannot call models itself.  ``item`` gives what stands for a
    call that the database cannot compute at all, None for one that it can.  ``tables`` are pieces for tables of other places.
    ``class_sql`` picks the probability of a class out of all of them.  ``casts``: columns are cast to their inputs' types like
    every other argument.
    """

    source: str
    resolve: Callable[[ModelRef], Version]
    call_sql: Callable[[ModelRef, Version, str, Mapping[str, str], Collection[str]], str]
    missing: Mapping[Span, frozenset[str]] = field(default_factory=dict)
    table: Callable[[ModelCall, Version, Sql | None], TablePiece] | None = None
    rows: Callable[[ModelCall, Version, str, Sql], TablePiece] | None = None
    item: Callable[[ModelCall, Version, str, Mapping[str, Sql]], Sql | None] | None = None
    tables: tuple[Piece, ...] = ()
    class_sql: Callable[[str, str], str] = map_class_sql
    casts: bool = True

    def bind(self, span: Span, found: Calls) -> Sql:
        """A stretch of the source with its calls bound."""
        return replace_calls(self.source, span, found, lambda call: self._bind_call(call, found), self.tables)

    def _bind_call(self, call: ModelCall, found: Calls) -> Sql:
        version = self.resolve(call.model)
        inner = Calls(call.inner, found.unnamed)
        if call.function in ROW_FUNCTIONS:
            return self._bind_rows(call, version, inner)
        if call.function.startswith("ml."):
            return self._bind_table(call, version, inner)
        arguments = bind_arguments(self.source, call, version, lambda span: self.bind(span, inner))
        for name in self.missing.get(call.span, frozenset()):
            arguments[name] = made(self.source, "NULL", call.span)
        output = asked_output(self.source, call, version)
        if self.item is not None and output is not None:
            item = self.item(call, version, output, arguments)
            if item is not None:
                return item
        holes = {name: hole(number) for number, name in enumerate(arguments)}
        plain = self._plain({name: sql.text for name, sql in arguments.items()})
        label = (self.bind(call.extra.span, inner),) if call.extra else ()
        if output is not None:
            template = self.call_sql(call.model, version, output, holes, plain)
            return fill(self.source, template, tuple(arguments.values()), call.span)
        wanted = hole(len(holes))
        if self.class_sql is map_class_sql and version.classes and all(isinstance(value, bool) for value in version.classes):
            wanted = _boolean_label(wanted)
        template = self.class_sql(self.call_sql(call.model, version, "probs", holes, plain), wanted)
        return fill(self.source, template, (*arguments.values(), *label), call.span)

    def _bind_table(self, call: ModelCall, version: Version, inner: Calls) -> Sql:
        """A call whose table is computed first."""
        if self.table is None:
            message = f"{call.function.upper()} cannot stand here"
            raise BindError(message, source=self.source, span=call.span, hint="it stands where a table does, in a query")
        return Sql(self.source, (self.table(call, version, self._bind_query(call, inner)),))

    def _bind_rows(self, call: ModelCall, version: Version, inner: Calls) -> Sql:
        """A call that answers each row of its query by itself: a SELECT in its place."""
        query = self._bind_query(call, inner)
        shown = call.function.upper()
        if query is None:
            message = f"{shown} takes a model and a query: {shown}(MODEL m, (SELECT …))"
            raise BindError(message, source=self.source, span=call.span)
        check_literals(call.options, shown, self.source)
        options = bind_options(call.options, ROW_FUNCTIONS[call.function], shown, Parameters(self.source, call.span))
        output = self._row_output(call, version, options)
        if self.rows is not None:
            return Sql(self.source, (self.rows(call, version, output, query),))
        if output == "full":
            return self.predict_table(call.model, version, query, call.span)
        drop: tuple[str, ...] = ()
        arguments = self._all_inputs(version, call.span)
        if output == "transform":
            drop = tuple(name for name, sql in arguments.items() if sql != "NULL")
        try:
            made_call = self.call_sql(call.model, version, output, arguments, self._plain(arguments))
        except BindError as error:
            raise error.located(self.source, call.span) from None
        return row_table(self.source, made_call, query, call.span, drop=drop)

    def _row_output(self, call: ModelCall, version: Version, options: Mapping[str, Any]) -> str:
        """What a version is asked for, as a target names it."""
        match call.function:
            case "ml.predict":
                return "full"
            case "ml.explain_predict":
                check_explains(version, self.source, call.span, call.function.upper())
                return f"explain:{options['top_k_features']}"
            case "ml.detect_anomalies":
                return f"anomalies:{options['contamination'] if options['contamination'] is not None else ''}"
            case _:
                return "transform"

    def _bind_query(self, call: ModelCall, inner: Calls) -> Sql | None:
        """A call's own query with the calls in it bound; of ``TABLE t`` all its rows."""
        query = call.query
        if query is None:
            return None
        whole = query.text.startswith("SELECT * FROM ") and self.source[query.span[0] : query.span[1]] != query.text
        return Sql(self.source, (Piece(query.text, query.span),)) if whole else self.bind(query.span, inner)

    def _all_inputs(self, version: Version, span: Span) -> dict[str, str]:
        """Every input by its name, those that are missing as NULL."""
        arguments = {column.name: quote_identifier(column.name) for column in version.inputs}
        return arguments | dict.fromkeys(self.missing.get(span, frozenset()), "NULL")

    def _plain(self, arguments: Mapping[str, str]) -> frozenset[str]:
        """The inputs that are given a column, which a function may take as it is."""
        return frozenset() if self.casts else frozenset(name for name, sql in arguments.items() if _A_COLUMN.fullmatch(sql))

    def predict_table(self, ref: ModelRef, version: Version, query: Sql, span: Span) -> Sql:
        """``(SELECT the query's columns, the prediction's columns FROM (query))``"""
        arguments = self._all_inputs(version, span)
        call = self.call_sql(ref, version, "full", arguments, self._plain(arguments))
        return row_table(self.source, call, query, span)


def asked_output(source: str, call: ModelCall, version: Version) -> str | None:
    """What a call asks a version for, as a target names it; None: the probability of a class that each row names."""
    match call.function:
        case "predict_proba":
            return _proba(source, call, version)
        case "predict_reasons":
            check_explains(version, source, call.span)
            return f"reasons:{_count(source, call)}"
        case _:
            return "predict"


def _proba(source: str, call: ModelCall, version: Version) -> str | None:
    check_one_target(version, "PREDICT_PROBA", source, call.span)
    if version.task is not Task.CLASSIFICATION:
        raise BindError(
            f"model {version.name} is a {version.task} model: it has no probabilities",
            source=source,
            span=call.span,
            hint=f"PREDICT({call.model.text}) gives its prediction",
        )
    if call.extra is None:
        return "probs"
    index = class_index(source, call, version)
    return None if index is None else f"proba:{index}"


def check_one_target(version: Version, what: str, source: str, span: Span) -> None:
    """``BindError`` for a model of several targets, whose answers must be told apart."""
    if len(version.targets) > 1:
        names = [target.name for target in version.targets]
        raise BindError(
            f"{what} is for models of one target; {version.name} has {count_of(len(names), 'target')}: {listing(names)}",
            source=source, span=span,
            hint=f"PREDICT({version.model}).{names[0]}, or PREDICT MODEL {version.model} AS …, gives each",
        )  # fmt: skip


def check_explains(version: Version, source: str, span: Span, what: str = "PREDICT_REASONS") -> None:
    """``BindError`` unless the model's predictions can be taken apart into contributions."""
    check_one_target(version, what, source, span)
    if version.task is Task.TRANSFORM or not get_algorithm(version.algorithm).explains:
        raise BindError(
            f"the predictions of {version.algorithm} have no contributions to explain them by", source=source, span=span,
            hint="trees, linear models, naive_bayes and kmeans have: SHOW ALGORITHMS lists all",
        )  # fmt: skip


def bind_arguments(source: str, call: ModelCall, version: Version, bind: Callable[[Span], Sql]) -> dict[str, Sql]:
    """Input name → SQL.  ``BindError`` for a name that is no input, an unnamed expression, or inputs not given."""
    inputs = [column.name for column in version.inputs]
    if call.using is None:
        return {name: made(source, quote_identifier(name), call.span) for name in inputs}
    by_key = {name.lower(): name for name in inputs}
    given: dict[str, Sql] = {}
    named: set[str] = set()
    positional = call.function == "model" and all(a.star is None and not a.named for a in call.using)
    if positional:
        return _bind_positions(source, call, version, bind)
    for argument in call.using:
        if argument.star is not None:
            given |= {name: made(source, _qualified(argument.star, name), argument.span) for name in inputs}
            continue
        name = _argument_name(source, argument, call, version)
        key = by_key.get(name.name.lower())
        if key is None:
            raise BindError(
                f"model {version.name} has no input {name.name}",
                source=source,
                span=argument.span,
                hint=did_you_mean(name.name, inputs) or f"its inputs: {listing(inputs)}",
            )
        if key in named:
            raise BindError(f"the input {key} is given twice", source=source, span=argument.span, hint="give it once")
        named.add(key)
        given[key] = bind(_expression_span(source, argument)).wrapped("(", ")")
    missing = [name for name in inputs if name not in given]
    if missing:
        raise BindError(
            f"model {version.name} needs columns that this call does not give: {listing(missing)}",
            source=source,
            span=call.span,
            hint="give them by name, or put a * first to take the rest from the query: "
            f"PREDICT({call.model.text} USING *, {missing[0]} …)" if call.function != "model"
            else f"give them by name, as in {call.model.text}({missing[0]} := …)",
        )  # fmt: skip
    return given


def _bind_positions(source: str, call: ModelCall, version: Version, bind: Callable[[Span], Sql]) -> dict[str, Sql]:
    inputs = [column.name for column in version.inputs]
    using = call.using or ()
    if len(using) != len(inputs):
        raise BindError(
            f"{call.model.text}() takes {count_of(len(inputs), 'argument')}, got {len(using)}",
            source=source,
            span=call.span,
            hint=f"in this order: {listing(inputs, 30)}\n"
            f"or by name: {call.model.text}({inputs[0]} := …), or {call.model.text}(*)",
        )
    return {name: bind(argument.span).wrapped("(", ")") for name, argument in zip(inputs, using, strict=True)}


def _argument_name(source: str, argument: Argument, call: ModelCall, version: Version) -> Ident:
    if argument.name is not None and (call.function != "model" or argument.named):
        return argument.name
    if call.function == "model":
        raise BindError(
            "an argument by position cannot stand beside named ones or a star", source=source, span=argument.span,
            hint=f"name it: {call.model.text}({version.inputs[0].name} := {argument.text})",
        )  # fmt: skip
    raise BindError(
        f"the expression {argument.text} needs the name of the input that it stands for",
        source=source,
        span=argument.span,
        hint=f"write {argument.text} AS {version.inputs[0].name}  (inputs: {listing(c.name for c in version.inputs)})",
    )


def _expression_span(source: str, argument: Argument) -> Span:
    """The place of the expression alone, without ``AS name`` or ``name :=``."""
    start = source.find(argument.text, *argument.span)
    return (start, start + len(argument.text))


def _qualified(star: str, name: str) -> str:
    return star.removesuffix("*") + quote_identifier(name)


def _count(source: str, call: ModelCall) -> int:
    if call.extra is None:
        return DEFAULT_REASONS
    text = call.extra.text.strip()
    if not re.fullmatch(r"\d{1,4}", text) or int(text) < 1:
        raise BindError(
            f"the number of reasons is a whole number from 1 on (got {text})", source=source, span=call.extra.span,
            hint=f"as in PREDICT_REASONS({call.model.text}, 3)",
        )  # fmt: skip
    return int(text)


def view_call_sql(schema: str, ref: ModelRef, version: Version, output: str, arguments: Mapping[str, str]) -> str:
    """The call as a view keeps it: a macro of the schema that follows the reference, its arguments by name."""
    index = int(output.partition(":")[2]) if output.startswith("proba:") else None
    name = macro_name("probs" if index is not None else output, ref)
    named = ", ".join(f"{quote_identifier(name)} := {sql}" for name, sql in arguments.items())
    call = f"{quote_identifier(schema)}.main.{quote_identifier(name)}({named})"
    if index is None:
        return call
    key = label_text(version.classes[index]).replace("'", "''")
    return f"({call})['{key}']"


def macro_name(output: str, ref: ModelRef) -> str:
    """``predict:churn@3``, ``reasons:3:churn``"""
    return f"{output}:{ref.text}"


def parse_macro_name(name: str) -> tuple[str, str, int | None, str | None] | None:
    """(output, model, version, alias) of a macro's name; None where it is not one of ours."""
    match = re.fullmatch(
        r"(predict|probs|full|transform|reasons:\d+|explain:\d+|anomalies:[\d.e-]*):(.+?)(?:@(\d+)|@([^@]+))?", name, re.DOTALL
    )
    if match is None:
        return None
    return match[1], match[2], int(match[3]) if match[3] else None, match[4]
