"""``ML.xyz(MODEL m, …)``: the functions that give a table, and their arguments.

Behind the model come, in any order and each at most once, a query in parentheses or ``TABLE t``, options as
``STRUCT(3 AS top_k_features)`` or ``{'threshold': 0.5}``, and a list of thresholds, bare or as ``GENERATE_ARRAY(0.1, 0.9, 0.1)``.
Which options a function takes is not known here.
"""

from __future__ import annotations

from fractions import Fraction
from math import lcm
from typing import NoReturn

from sqlml_dialect.call_nodes import ModelCall
from sqlml_dialect.clause_nodes import Ident, Option, Query, Value
from sqlml_dialect.cursor import NAMES, Cursor
from sqlml_dialect.errors import DialectError
from sqlml_dialect.similar import nearest
from sqlml_dialect.tokens import words
from sqlml_dialect.values import parse_number, parse_pair, parse_value

SCHEMA = "ml"

# The functions that are about rows: without a query there is nothing to say.
NEED_ROWS = frozenset({"ml.predict", "ml.transform", "ml.explain_predict", "ml.detect_anomalies"})

TABLE_FUNCTIONS = NEED_ROWS | words(
    """
    ml.evaluate ml.confusion_matrix ml.roc_curve ml.precision_recall_curve ml.calibration_curve ml.training_info
    ml.feature_info ml.weights ml.centroids ml.principal_components ml.principal_component_info ml.feature_importance
    ml.global_explain ml.trial_info
    """
)
"""Every function that stands where a table does and takes ``MODEL m`` first, in lower case."""

THRESHOLDS = "thresholds"
_MAX_ITEMS = 20_000
_OPERATORS = words("AND AS AT BETWEEN COLLATE FILTER GLOB ILIKE IN IS ISNULL LIKE NOT NOTNULL OR ORDER SIMILAR")
_ARGUMENTS = "a query in parentheses, TABLE and a table's name, STRUCT(value AS name), {'name': value} or a list"


def check_function(cursor: Cursor, name: Ident) -> None:
    """Raise for ``ML.name(MODEL m …``, which no database can mean, where there is no such function."""
    follows = cursor.peek(1)
    if cursor.peek().key != "MODEL" or follows.kind not in NAMES or follows.key in _OPERATORS:
        return
    meant = nearest(name.name, sorted(function.partition(".")[2].upper() for function in TABLE_FUNCTIONS))
    hint = f"did you mean ML.{meant}?" if meant else f"there are {', '.join(sorted(TABLE_FUNCTIONS)).upper()}"
    raise DialectError(f"unknown function ML.{name.name}", cursor.text, name.span, hint=hint)


def parse_table_function(cursor: Cursor, function: str, closing: int) -> ModelCall:
    """Read the arguments of a table function, from behind its bracket to the one that closes it."""
    shown = function.upper()
    if cursor.peek().key != "MODEL":
        name = cursor.peek().text if cursor.at_name() else "churn"
        rows = ", (SELECT …)" if function in NEED_ROWS else ""
        cursor.fail("MODEL", hint=f"write {shown}(MODEL {name}{rows})")
    cursor.take()
    model = cursor.model_ref()
    arguments = _Arguments(cursor)
    while cursor.position != closing:
        if cursor.peek().key != ",":
            cursor.fail('"," or the end of the call')
        cursor.take()
        arguments.take()
    if arguments.query is None and function in NEED_ROWS:
        hint = f"write {shown}(MODEL {model.text}, (SELECT …)) or {shown}(MODEL {model.text}, TABLE t)"
        cursor.fail("a query", cursor.tokens[closing], message=f"{shown} needs the rows: a query or a table", hint=hint)
    return ModelCall(function, model, query=arguments.query, options=tuple(arguments.options.values()))


class _Arguments:
    """What stands behind the model, as it is read."""

    def __init__(self, cursor: Cursor) -> None:
        self.cursor = cursor
        self.query: Query | None = None
        self.options: dict[str, Option] = {}
        self.taken: set[str] = set()

    def take(self) -> None:
        """Read one argument, whichever it is."""
        cursor = self.cursor
        key = cursor.peek().key
        if key in {"(", "TABLE"}:
            self._once("a query or a table")
            self.query = _parse_table(cursor) if key == "TABLE" else _parse_query(cursor)
        elif cursor.at_words("STRUCT", "("):
            self._once("STRUCT(…) or {…}")
            cursor.take()
            self._add(() if cursor.accept("(", ")") else cursor.in_parens(lambda: _parse_struct_item(cursor)))
        elif key == "{":
            self._once("STRUCT(…) or {…}")
            self._add(_parse_struct(cursor))
        elif key == "[" or cursor.at_words("GENERATE_ARRAY", "("):
            self._once("a list of thresholds")
            start = cursor.peek().start
            value = _parse_option_value(cursor)
            span = cursor.taken_since(start)
            self._add((Option(Ident(THRESHOLDS, span=span), value, value_span=span, span=span),))
        else:
            self._fail_unknown()

    def _once(self, what: str) -> None:
        """Refuse a second argument of one kind."""
        if what in self.taken:
            token = self.cursor.peek()
            raise DialectError(f"{what} is given twice", self.cursor.text, (token.start, token.end))
        self.taken.add(what)

    def _add(self, options: tuple[Option, ...]) -> None:
        """Keep options, none twice."""
        for option in options:
            name = option.name.name.lower()
            if name in self.options:
                raise DialectError(f"option {option.name.name} is given twice", self.cursor.text, option.span)
            self.options[name] = option

    def _fail_unknown(self) -> NoReturn:
        """Raise for what can be no argument."""
        cursor = self.cursor
        hints = dict.fromkeys(("SELECT", "FROM", "WITH", "VALUES"), "put the query between parentheses: (SELECT …)")
        hint = hints.get(cursor.peek().key)
        if hint is None and cursor.at_name():
            name, is_option = cursor.peek().text, cursor.peek(1).key in {"=", ":=", "=>"}
            hint = f"write STRUCT({cursor.peek(2).text} AS {name})" if is_option else f"write TABLE {name}"
        cursor.fail(_ARGUMENTS, hint=hint)


def _parse_query(cursor: Cursor) -> Query:
    """``(query)``"""
    stop = cursor.closing()
    cursor.take()
    query = cursor.query_until(stop)
    cursor.take()
    return query


def _parse_table(cursor: Cursor) -> Query:
    """``TABLE t``, as the query of all its rows."""
    start = cursor.take().start
    name = cursor.qualified_name("a table's name")
    table = cursor.text[slice(*name.span)]
    return Query(f"SELECT * FROM {table}", span=(start, name.span[1]))  # noqa: S608 - a name, as it was written


def _parse_struct_item(cursor: Cursor) -> Option:
    """``value AS name``"""
    start = cursor.peek().start
    if cursor.at_name() and cursor.peek(1).key in {"=", ":=", "=>", ":"}:
        key, given = cursor.peek().text, cursor.peek(2).text
        cursor.fail("a value AS an option's name", hint=f"write STRUCT({given} AS {key}) or {{'{key}': {given}}}")
    value = _parse_option_value(cursor)
    value_span = cursor.taken_since(start)
    if cursor.peek().key != "AS":
        cursor.fail("AS and an option's name", hint=f"write STRUCT({cursor.text[slice(*value_span)]} AS threshold)")
    cursor.take()
    name = cursor.ident("an option's name")
    return Option(name, value, value_span=value_span, span=cursor.taken_since(start))


def _parse_struct(cursor: Cursor) -> tuple[Option, ...]:
    """``{'name': value, …}``"""
    cursor.take()
    options = () if cursor.peek().key == "}" else cursor.listed(lambda: _parse_struct_pair(cursor))
    cursor.end_list("}")
    return options


def _parse_struct_pair(cursor: Cursor) -> Option:
    """``'name': value``"""
    key = cursor.peek()
    name, value, value_start = parse_pair(cursor, _parse_option_value)
    span = cursor.taken_since(key.start)
    return Option(Ident(name, span=(key.start, key.end)), value, value_span=(value_start, span[1]), span=span)


def _parse_option_value(cursor: Cursor) -> Value:
    """A literal, or GENERATE_ARRAY of numbers."""
    if cursor.at_words("GENERATE_ARRAY", "("):
        return _parse_generated(cursor)
    return parse_value(cursor)


def _parse_generated(cursor: Cursor) -> tuple[Value, ...]:
    """``GENERATE_ARRAY(first, last [, step])``, the last number included where a step meets it, as in BigQuery."""
    start = cursor.take().start
    numbers = cursor.in_parens(lambda: parse_number(cursor))
    span = cursor.taken_since(start)
    if len(numbers) not in (2, 3):
        raise DialectError("GENERATE_ARRAY takes two or three numbers", cursor.text, span, "GENERATE_ARRAY(first, last, step)")
    first, last, step = (Fraction(str(number)) for number in (*numbers, 1)[:3])
    if not step:
        raise DialectError("the step of GENERATE_ARRAY cannot be 0", cursor.text, span)
    count = max((last - first) // step + 1, 0)
    if count > _MAX_ITEMS:
        raise DialectError(f"GENERATE_ARRAY gives more than {_MAX_ITEMS:,} numbers", cursor.text, span, hint="take a larger step")
    if all(isinstance(item, int) for item in numbers):
        return tuple(range(int(first), int(first + count * step), int(step)))
    unit = lcm(first.denominator, step.denominator)
    start_units, step_units = int(first * unit), int(step * unit)
    return tuple((start_units + index * step_units) / unit for index in range(count))
