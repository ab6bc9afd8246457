"""The clauses of our statements: each function reads one clause behind its first keyword."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, NamedTuple, NoReturn

from sqlml_dialect.cursor import NAMES, Cursor, describe, either
from sqlml_dialect.errors import DialectError
from sqlml_dialect.nodes import (
    Expression,
    Ident,
    Into,
    Limit,
    ModelRef,
    Query,
    Split,
    SplitBy,
    SplitNone,
    SplitRandom,
    SplitTime,
    Tune,
    TuneChoice,
    TuneRange,
)
from sqlml_dialect.tokens import Kind
from sqlml_dialect.values import parse_duration, parse_number, parse_options, parse_size, parse_value

METHODS = ("RANDOM", "GRID", "BAYESIAN")
DIRECTIONS = ("MAXIMIZE", "MINIMIZE")
_HINTS = {
    "SELECT": "write AS before the query",
    "FROM": "write AS before the query: AS FROM …",
    ".": "a column is given without its table",
    "OPTIONS": "options are written WITH (name = value, …)",
}


class Clause(NamedTuple):
    """The node's field that a clause fills, the function that reads it, and the words that may still belong to it behind."""

    field: str
    parse: Callable[[Cursor], Any]
    tail: tuple[str, ...] = ()


def parse_clauses(cursor: Cursor, clauses: Mapping[str, Clause], *, query: bool = False) -> dict[str, Any]:
    """Read clauses in any order to the end of the statement, none twice; ``query`` says whether AS query must be there."""
    found: dict[str, Any] = {}
    while cursor.peek().kind is not Kind.END:
        token = cursor.peek()
        clause = clauses.get(token.key)
        if clause is None:
            _fail_unknown(cursor, clauses, found)
        if clause.field in found:
            message = f"{token.key} is given twice" if token.key not in _SYNONYMS else "TARGET (or LABEL) is given twice"
            raise DialectError(message, cursor.text, (token.start, token.end), hint="each clause may stand once")
        cursor.take()
        found[clause.field] = clause.parse(cursor)
    if query and "query" not in found:
        cursor.fail("AS query")
    return found


def _fail_unknown(cursor: Cursor, clauses: Mapping[str, Clause], found: Mapping[str, Any]) -> NoReturn:
    """Raise the error for what stands where a clause should."""
    token = cursor.peek()
    left = [word for word, clause in clauses.items() if clause.field not in found and word != "LABEL"]
    expected = either(["AS query" if word == "AS" else word for word in left]) if left else "the end of the statement"
    hint = _HINTS.get(token.key) if "AS" in clauses else None
    if token.kind is not Kind.WORD:
        cursor.fail(expected, message=f"expected the next clause, found {describe(token)}", hint=hint)
    tails = [word for clause in clauses.values() if clause.field in list(found)[-1:] for word in clause.tail]
    cursor.fail(expected, message=f"unknown clause {token.text}", words=() if hint else [*clauses, *tails], hint=hint)


# --- names ----------------------------------------------------------------------------------------------------------


def parse_algorithm(cursor: Cursor) -> Ident:
    """``USING algorithm``"""
    return cursor.ident("an algorithm's name")


def parse_column(cursor: Cursor) -> Ident:
    """``WEIGHT column``"""
    return cursor.ident("a column's name")


def parse_columns(cursor: Cursor) -> tuple[Ident, ...]:
    """``TARGET column, …`` and ``KEY column, …``"""
    return cursor.listed(lambda: parse_column(cursor))


def parse_exclude(cursor: Cursor) -> tuple[Ident, ...]:
    """``EXCLUDE (column, …)``"""
    return cursor.in_parens(lambda: parse_column(cursor))


def parse_runner(cursor: Cursor) -> Ident:
    """``ON runner``"""
    return cursor.ident("a runner's name")


def parse_async(cursor: Cursor) -> bool:
    """``ASYNC``"""
    return True


def parse_endpoint(cursor: Cursor) -> Ident:
    """``TO ENDPOINT e``"""
    cursor.expect("ENDPOINT")
    return cursor.ident("an endpoint's name")


def parse_warm_start(cursor: Cursor) -> ModelRef:
    """``WARM START FROM model``"""
    cursor.expect("START", "FROM")
    return cursor.model_ref()


def parse_top(cursor: Cursor) -> int:
    """``TOP n``"""
    return cursor.integer("a whole number", least=1)


def parse_format(cursor: Cursor) -> str:
    """``FORMAT onnx``"""
    return cursor.ident("a format such as onnx, sql, native or bundle").name.lower()


def parse_path(cursor: Cursor) -> str:
    """``TO 'path'`` and ``FROM 'path'``"""
    return cursor.string("a path in single quotes")


def parse_into(cursor: Cursor) -> Into:
    """``INTO table [APPEND | REPLACE]``"""
    table = cursor.qualified_name("a table's name")
    mode = cursor.take().key.lower() if cursor.peek().key in {"APPEND", "REPLACE"} else "create"
    return Into(table, mode, span=cursor.taken_since(table.span[0]))


# --- queries and expressions ----------------------------------------------------------------------------------------


def parse_query(cursor: Cursor) -> Query:
    """``AS query``: everything to the end of the statement, byte for byte."""
    return cursor.query_until(len(cursor.tokens))


def parse_validate(cursor: Cursor) -> Query:
    """``VALIDATE ON (query)``"""
    cursor.expect("ON")
    stop = cursor.closing() if cursor.peek().key == "(" else cursor.position
    cursor.expect("(")
    query = cursor.query_until(stop)
    cursor.expect(")")
    return query


def parse_transform(cursor: Cursor) -> tuple[Expression, ...]:
    """``TRANSFORM (expr [AS name], …)``"""
    stop = cursor.closing() if cursor.peek().key == "(" else cursor.position
    cursor.expect("(")
    items = tuple(_transform_item(cursor, first, last) for first, last in cursor.split_at_commas(stop))
    cursor.position = stop + 1
    return items


def _transform_item(cursor: Cursor, first: int, last: int) -> Expression:
    """``expr [AS name]``"""
    cursor.position = first
    named = last - first >= 2 and cursor.tokens[last - 2].key == "AS" and cursor.tokens[last - 1].kind in NAMES
    end = last - 2 if named else last
    if end <= first:
        cursor.fail("an expression")
    cursor.position = last - 1
    alias = cursor.ident("a feature's name") if named else None
    return cursor.raw(first, end, alias)


# --- clauses with words of their own ----------------------------------------------------------------------------------


def parse_split(cursor: Cursor) -> Split:
    """``SPLIT RANDOM 0.2 | BY column | TIME column 0.2 | NONE``, in parentheses or not."""
    wrapped = cursor.accept("(")
    start = cursor.peek().start
    split = _parse_split_way(cursor, start)
    if wrapped:
        cursor.expect(")")
    return split


def _parse_split_way(cursor: Cursor, start: int) -> Split:
    """What stands behind SPLIT."""
    way = cursor.choose("split", ("RANDOM", "BY", "TIME", "NONE"))
    if way == "NONE":
        return SplitNone(span=cursor.taken_since(start))
    if way == "RANDOM":
        return SplitRandom(_parse_fraction(cursor), span=cursor.taken_since(start))
    column = parse_column(cursor)
    if way == "BY":
        return SplitBy(column, span=cursor.taken_since(start))
    return SplitTime(column, _parse_fraction(cursor), span=cursor.taken_since(start))


def _parse_fraction(cursor: Cursor) -> float | None:
    """The share of rows to hold out, if one is written."""
    token = cursor.peek()
    if token.kind is not Kind.NUMBER and token.key not in {"-", "+"}:
        return None
    value = float(parse_number(cursor))
    if not 0 < value < 1:
        span = cursor.taken_since(token.start)
        raise DialectError(f"a split of {value:g} is no fraction", cursor.text, span, "a fraction between 0 and 1, such as 0.2")
    return value


def parse_tune(cursor: Cursor) -> Tune:
    """``TUNE (param IN (…), param BETWEEN a AND b [LOG], …) [BY method] [TRIALS n] [MAXIMIZE | MINIMIZE metric]``"""
    start = cursor.peek().start
    space = cursor.in_parens(lambda: _parse_tune_param(cursor))
    found: dict[str, Any] = {}
    while cursor.peek().key in {"BY", "TRIALS", *DIRECTIONS}:
        token = cursor.take()
        if token.key in found or (token.key in DIRECTIONS and not found.keys().isdisjoint(DIRECTIONS)):
            message = "TUNE takes one metric" if token.key in DIRECTIONS else f"{token.key} is given twice"
            raise DialectError(message, cursor.text, (token.start, token.end))
        found[token.key] = _parse_tune_setting(cursor, token.key)
    direction = next((word for word in DIRECTIONS if word in found), None)
    return Tune(
        space,
        method=found.get("BY"),
        trials=found.get("TRIALS"),
        direction=direction and direction.lower(),
        metric=found.get(direction or ""),
        span=cursor.taken_since(start),
    )


def _parse_tune_setting(cursor: Cursor, word: str) -> str | int | Ident:
    """What stands behind BY, TRIALS, MAXIMIZE or MINIMIZE."""
    if word == "BY":
        return cursor.choose("way to search", METHODS).lower()
    if word == "TRIALS":
        return cursor.integer("a whole number of trials", least=1)
    return cursor.ident("a metric's name")


def _parse_tune_param(cursor: Cursor) -> TuneRange | TuneChoice:
    """``param IN (a, b)`` or ``param BETWEEN a AND b [LOG]``"""
    param = cursor.ident("an option's name")
    if cursor.choose("condition", ("IN", "BETWEEN")) == "IN":
        values = cursor.in_parens(lambda: parse_value(cursor))
        return TuneChoice(param, values, span=cursor.taken_since(param.span[0]))
    low = parse_value(cursor)
    cursor.expect("AND")
    high = parse_value(cursor)
    log = cursor.accept("LOG")
    return TuneRange(param, low, high, log, span=cursor.taken_since(param.span[0]))


def parse_limit(cursor: Cursor) -> Limit:
    """``LIMIT (TIME '10 min', MEMORY '8 GB', ROWS n)``, any of them in any order."""
    start = cursor.peek().start
    found: dict[str, Any] = {}
    cursor.in_parens(lambda: _parse_limit_item(cursor, found))
    return Limit(**found, span=cursor.taken_since(start))


def _parse_limit_item(cursor: Cursor, found: dict[str, Any]) -> None:
    """One limit, put into ``found`` under the name of its field."""
    token = cursor.peek()
    what = cursor.choose("limit", ("TIME", "MEMORY", "ROWS"))
    if what.lower() in found:
        raise DialectError(f"{what} is given twice", cursor.text, (token.start, token.end))
    if what == "ROWS":
        found["rows"] = cursor.integer("a whole number of rows", least=1)
    elif what == "TIME":
        found["time"] = _parse_time_limit(cursor)
    else:
        found["memory"] = _parse_memory_limit(cursor)


def _parse_time_limit(cursor: Cursor) -> timedelta:
    """A length of time: a text, an INTERVAL or a number of seconds."""
    expected = "a length of time such as '10 min', '90 s', '2 hours' or a number of seconds"
    token = cursor.peek()
    if token.kind is Kind.STRING:
        length = parse_duration(cursor.string(expected))
    elif token.kind is Kind.NUMBER:
        length = parse_duration(f"{parse_number(cursor):f} s")
    elif token.key == "INTERVAL":
        value = parse_value(cursor)
        length = value if isinstance(value, timedelta) else None
    else:
        cursor.fail(expected)
    if length is None or length <= timedelta(0):
        span = cursor.taken_since(token.start)
        raise DialectError(f"not a time limit: {describe(token)}", cursor.text, span, expected)
    return length


def _parse_memory_limit(cursor: Cursor) -> int:
    """A size: a text with its unit."""
    expected = "a size such as '8 GB', '512 MB' or '4 GiB'"
    token = cursor.peek()
    size = parse_size(cursor.string(expected))
    if size is None or size <= 0:
        raise DialectError(f"not a size: {describe(token)}", cursor.text, (token.start, token.end), expected)
    return size


# --- which clauses a statement takes ------------------------------------------------------------------------------------

_SYNONYMS = {"TARGET", "LABEL"}
_AS = Clause("query", parse_query)
_WITH = Clause("options", parse_options)
_ON = Clause("runner", parse_runner)
_INTO = Clause("into", parse_into, ("APPEND", "REPLACE"))
_ASYNC = Clause("asynchronous", parse_async)

TRAIN_CLAUSES = {
    "USING": Clause("algorithm", parse_algorithm),
    "TARGET": Clause("target", parse_columns),
    "LABEL": Clause("target", parse_columns),
    "TRANSFORM": Clause("transform", parse_transform),
    "EXCLUDE": Clause("exclude", parse_exclude),
    "WEIGHT": Clause("weight", parse_column),
    "KEY": Clause("key", parse_columns),
    "SPLIT": Clause("split", parse_split),
    "VALIDATE": Clause("validate", parse_validate),
    "TUNE": Clause("tune", parse_tune, ("BY", "TRIALS", *DIRECTIONS)),
    "WARM": Clause("warm_start", parse_warm_start),
    "LIMIT": Clause("limit", parse_limit),
    "WITH": _WITH,
    "ON": _ON,
    "ASYNC": _ASYNC,
    "AS": _AS,
}
EVALUATE_CLAUSES = {"BY": Clause("by", parse_columns), "WITH": _WITH, "AS": _AS}
PREDICT_CLAUSES = {"INTO": _INTO, "WITH": _WITH, "ON": _ON, "ASYNC": _ASYNC, "AS": _AS}
EXPLAIN_CLAUSES = {"TOP": Clause("top", parse_top), "INTO": _INTO, "AS": _AS}
DEPLOY_CLAUSES = {"TO": Clause("endpoint", parse_endpoint), "WITH": _WITH, "ON": _ON}
EXPORT_CLAUSES = {"TO": Clause("path", parse_path), "FORMAT": Clause("format", parse_format), "WITH": _WITH}
IMPORT_CLAUSES = {"FROM": Clause("path", parse_path), "WITH": _WITH}
RESOURCE_CLAUSES = {"TYPE": Clause("type", lambda cursor: cursor.ident("a type such as process or spark")), "WITH": _WITH}
