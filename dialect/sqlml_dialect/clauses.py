"""The clauses of our statements: each function reads one clause behind its first keyword."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, NoReturn

from sqlml_dialect.calls import is_alias
from sqlml_dialect.clause_nodes import (
    Expression,
    Given,
    Ident,
    Limit,
    ModelRef,
    QualifiedName,
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
from sqlml_dialect.cursor import CLOSING, NAMES, OPENING, Cursor, describe, either, is_star
from sqlml_dialect.errors import DialectError
from sqlml_dialect.names import RESERVED, name_sql
from sqlml_dialect.nodes import Into
from sqlml_dialect.parameters import (
    parse_given,
    read_fraction,
    read_memory_limit,
    read_path,
    read_rows,
    read_time_limit,
    read_top,
    read_trials,
)
from sqlml_dialect.tokens import Kind, Token, name_value
from sqlml_dialect.values import parse_options, parse_value

METHODS = ("RANDOM", "GRID", "BAYESIAN")
DIRECTIONS = ("MAXIMIZE", "MINIMIZE")
_HINTS = {
    "SELECT": "write AS before the query",
    "FROM": "write AS before the query: AS FROM …",
    ".": "a column is given without its table",
    "OPTIONS": "options are written WITH (name = value, …)",
}


class Clause(NamedTuple):
    """The node's field that a clause fills, the function that reads it, an example, and the words that may follow in it."""

    field: str
    parse: Callable[[Cursor], Any]
    example: str = ""
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
        cursor.openings.append(cursor.position)
        cursor.keyword()
        with teaching(clause.example):
            found[clause.field] = clause.parse(cursor)
    if query and "query" not in found:
        cursor.fail("AS query")
    return found


@contextmanager
def teaching(example: str) -> Iterator[None]:
    """Give an error that says what was expected, and has no better hint, an example of how it is written."""
    try:
        yield
    except DialectError as error:
        if error.hint or not error.expected or not example:
            raise
        raise DialectError(error.message, error.text, error.span, error.expected, f"as in {example}") from None


def _fail_unknown(cursor: Cursor, clauses: Mapping[str, Clause], found: Mapping[str, Any]) -> NoReturn:
    """Raise the error for what stands where a clause should."""
    token = cursor.peek()
    _check_repeated(cursor, clauses, found)
    left = [word for word, clause in clauses.items() if clause.field not in found and word != "LABEL"]
    takes_query = "AS" in clauses and clauses["AS"].field == "query"
    expected = either(["AS query" if word == "AS" and takes_query else word for word in left]) or "the end of the statement"
    hint = _HINTS.get(token.key) if takes_query else None
    if token.key == "(" and cursor.peek(1).key in {"SELECT", "FROM", "WITH", "VALUES", "TABLE"} and takes_query:
        hint = _HINTS["SELECT"]
    if token.kind is not Kind.WORD:
        cursor.fail(expected, message=f"expected the next clause, found {describe(token)}", hint=hint)
    tails = [word for clause in clauses.values() if clause.field in list(found)[-1:] for word in clause.tail]
    cursor.fail(expected, message=f"unknown clause {token.text}", words=() if hint else [*clauses, *tails], hint=hint)


def _check_repeated(cursor: Cursor, clauses: Mapping[str, Clause], found: Mapping[str, Any]) -> None:
    """Raise for ``KEY id, KEY age``, where the second KEY was read as a column."""
    token, before = cursor.peek(), cursor.peek(-1)
    if not cursor.openings or token.kind not in NAMES or token.key in clauses or cursor.peek(-2).key != ",":
        return
    word = cursor.tokens[cursor.openings[-1]].key
    columns = found.get(clauses[word].field) if word in clauses else None
    if before.key == word and isinstance(columns, tuple):
        names = ", ".join([*(name_sql(column.name) for column in columns[:-1]), token.text])
        message, span = f"{word} is given twice", (before.start, before.end)
        raise DialectError(message, cursor.text, span, hint=f"write {word} {names}")


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


class ToDatabase(NamedTuple):
    """``TO DATABASE [c]``"""

    name: Ident | None


def parse_place(cursor: Cursor) -> Ident | ToDatabase:
    """``TO ENDPOINT e`` or ``TO DATABASE [c]``"""
    if cursor.accept("DATABASE"):
        return ToDatabase(parse_connection(cursor))
    if cursor.peek().key != "ENDPOINT":
        cursor.fail("ENDPOINT or DATABASE", words=("ENDPOINT", "DATABASE"))
    cursor.keyword()
    return cursor.ident("an endpoint's name")


def parse_connection(cursor: Cursor) -> Ident | None:
    """The name behind DATABASE, which may be left out: another clause is none."""
    is_clause = cursor.peek().key in {"TO", "WITH", "ON"} and (cursor.peek(1).kind in NAMES or cursor.peek(1).key == "(")
    return cursor.ident("a connection's name") if cursor.at_name() and not is_clause else None


def parse_endpoints(cursor: Cursor) -> tuple[Ident, ...]:
    """``FOR ENDPOINT e, f``, or ``FOR ALL ENDPOINTS``, which gives none"""
    if cursor.accept("ALL", "ENDPOINTS"):
        return ()
    if cursor.peek().key != "ENDPOINT":
        cursor.fail("ENDPOINT or ALL ENDPOINTS", words=("ENDPOINT",))
    cursor.keyword()
    return cursor.listed(lambda: cursor.ident("an endpoint's name"))


def parse_function(cursor: Cursor) -> QualifiedName:
    """``AS FUNCTION [schema.]f``"""
    cursor.expect("FUNCTION")
    return cursor.qualified_name("a function's name")


def parse_warm_start(cursor: Cursor) -> ModelRef:
    """``WARM START FROM model``"""
    cursor.expect("START", "FROM")
    return cursor.model_ref()


def parse_top(cursor: Cursor) -> Given[int]:
    """``TOP n``"""
    return parse_given(cursor, read_top)


def parse_format(cursor: Cursor) -> str:
    """``FORMAT onnx``"""
    return cursor.ident("a format such as onnx, sql, native or bundle").name.lower()


def parse_endpoint_format(cursor: Cursor) -> str:
    """``FORMAT docker``"""
    return cursor.ident("a format such as docker, kubernetes or kserve").name.lower()


def parse_path(cursor: Cursor) -> Given[str]:
    """``TO 'path'`` and ``FROM 'path'``"""
    return parse_given(cursor, read_path)


def parse_into(cursor: Cursor) -> Into:
    """``INTO table [APPEND | REPLACE]``"""
    table = cursor.qualified_name("a table's name")
    mode = cursor.keyword().key.lower() if cursor.peek().key in {"APPEND", "REPLACE"} else "create"
    return Into(table, mode, span=cursor.taken_since(table.span[0]))


# --- queries and expressions ----------------------------------------------------------------------------------------


def parse_query(cursor: Cursor) -> Query:
    """``AS query``: everything to the end of the statement, byte for byte."""
    _check_clauses_behind(cursor)
    return cursor.query_until(len(cursor.tokens))


def parse_long_query(cursor: Cursor) -> Query:
    """``AS query`` of a statement that may run ASYNC."""
    _check_async_behind(cursor)
    return parse_query(cursor)


def _check_async_behind(cursor: Cursor) -> None:
    """Raise for ASYNC as the last word: the database would take ``FROM t ASYNC`` for another name of the table, used nowhere."""
    tokens = cursor.tokens[cursor.position :]
    if len(tokens) < 2 or tokens[-1].key != "ASYNC":
        return
    ends_item = _ends_operand(tokens[-2]) or tokens[-2].kind in (Kind.NUMBER, Kind.STRING)
    depth, is_list = 0, False
    for token in tokens[:-1]:
        depth += (token.key in OPENING) - (token.key in CLOSING)
        is_list = token.key in {"SELECT", "USING"} if not depth and token.key in _PARTS else is_list
    used = any(token.kind in NAMES and name_value(token).lower() == "async" for token in tokens[:-1])
    if ends_item and not is_list and not used:
        raise DialectError(
            "ASYNC stands behind the query",
            cursor.text,
            (tokens[-1].start, tokens[-1].end),
            hint=f"ASYNC stands before AS: … ASYNC AS {tokens[0].text} …",
        )


def _ends_operand(token: Token) -> bool:
    """Whether another name may follow a token."""
    return token.key == ")" or (token.kind in NAMES and token.key.lower() not in RESERVED and token.key != "BY")


_PARTS = frozenset({"SELECT", "USING", "FROM", "JOIN", "WHERE", "GROUP", "HAVING", "QUALIFY", "ORDER", "LIMIT", "TABLE"})


def _check_clauses_behind(cursor: Cursor) -> None:
    """Raise for a clause of ours behind the query: ``… FROM t TARGET y``, which no database can read either."""
    depth = 0
    for index in range(cursor.position, len(cursor.tokens)):
        token, before = cursor.tokens[index], cursor.tokens[index - 1]
        depth += (token.key in OPENING) - (token.key in CLOSING)
        if depth or index == cursor.position or token.key not in _BEHIND_QUERY:
            continue
        if token.key != "WITH" and not _ends_operand(before):
            continue
        following = [cursor.tokens[at] if at < len(cursor.tokens) else None for at in range(index + 1, index + 4)]
        if _is_clause(token, following):
            raise DialectError(
                f"{token.key} stands behind the query",
                cursor.text,
                (token.start, token.end),
                hint=f"the query comes last: … {token.key} … AS {cursor.tokens[cursor.position].text} …",
            )


def _is_clause(token: Token, following: Sequence[Token | None]) -> bool:
    """Whether a word behind a query begins a clause: it has a name and then the end or another clause, or WITH (name = …)."""
    first, second, third = following
    if token.key == "WITH":
        return bool(first and first.key == "(" and second and second.kind in NAMES and third and third.key == "=")
    if first is None or first.kind not in NAMES or first.key.lower() in RESERVED:
        return False
    return second is None or second.key in _BEHIND_QUERY


_BEHIND_QUERY = frozenset({"TARGET", "LABEL", "USING", "WITH"})


def parse_validate(cursor: Cursor) -> Query:
    """``VALIDATE ON (query)``"""
    cursor.expect("ON")
    stop = cursor.closing() if cursor.peek().key == "(" else cursor.position
    cursor.expect("(")
    query = cursor.query_until(stop)
    cursor.expect(")")
    return query


def parse_transform(cursor: Cursor) -> tuple[Expression, ...]:
    """``TRANSFORM (expr [[AS] name], …)``"""
    stop = cursor.closing() if cursor.peek().key == "(" else cursor.position
    cursor.expect("(")
    items = tuple(_transform_item(cursor, first, last) for first, last in cursor.split_at_commas(stop))
    cursor.position = stop + 1
    return items


def _transform_item(cursor: Cursor, first: int, last: int) -> Expression:
    """``expr [[AS] name]``, named as an item of SELECT is."""
    cursor.position = first
    tokens = cursor.tokens[first:last]
    named = len(tokens) >= 2 and tokens[-2].key == "AS" and tokens[-1].kind in NAMES
    bare = not named and len(tokens) >= 2 and not is_star(tokens) and is_alias(tokens)
    end = last - 2 if named else last - 1 if bare else last
    if end <= first:
        cursor.fail("an expression")
    cursor.position = end
    alias = cursor.ident("a feature's name") if cursor.accept("AS") or bare else None
    if alias and is_star(cursor.tokens[first:end]):
        span = (cursor.tokens[first].start, cursor.tokens[last - 1].end)
        hint = "give one column's name in its place, or leave out AS"
        raise DialectError("a star stands for many columns: it takes no name", cursor.text, span, hint=hint)
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
    if cursor.peek().kind is Kind.NUMBER:
        cursor.fail("RANDOM, BY, TIME or NONE", hint=f"write SPLIT RANDOM {cursor.peek().text}")
    way = cursor.choose("split", ("RANDOM", "BY", "TIME", "NONE"))
    if way == "NONE":
        return SplitNone(span=cursor.taken_since(start))
    if way == "RANDOM":
        return SplitRandom(_parse_fraction(cursor), span=cursor.taken_since(start))
    column = parse_column(cursor)
    if way == "BY":
        return SplitBy(column, span=cursor.taken_since(start))
    return SplitTime(column, _parse_fraction(cursor), span=cursor.taken_since(start))


def _parse_fraction(cursor: Cursor) -> Given[float | None]:
    """The share of rows to hold out, if one is written."""
    token = cursor.peek()
    if token.kind not in (Kind.NUMBER, Kind.PARAM) and token.key not in {"-", "+"}:
        return None
    return parse_given(cursor, read_fraction)


def parse_tune(cursor: Cursor) -> Tune:
    """``TUNE (param IN (…), param BETWEEN a AND b [LOG], …) [BY method] [TRIALS n] [MAXIMIZE | MINIMIZE metric]``"""
    start = cursor.peek().start
    space = cursor.in_parens(lambda: _parse_tune_param(cursor))
    found: dict[str, Any] = {}
    while cursor.peek().key in {"BY", "TRIALS", *DIRECTIONS}:
        token = cursor.keyword()
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


def _parse_tune_setting(cursor: Cursor, word: str) -> str | Given[int] | Ident:
    """What stands behind BY, TRIALS, MAXIMIZE or MINIMIZE."""
    if word == "BY":
        return cursor.choose("way to search", METHODS).lower()
    if word == "TRIALS":
        return parse_given(cursor, read_trials)
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
        found["rows"] = parse_given(cursor, read_rows)
    elif what == "TIME":
        found["time"] = parse_given(cursor, read_time_limit)
    else:
        found["memory"] = parse_given(cursor, read_memory_limit)


# --- which clauses a statement takes ------------------------------------------------------------------------------------

_SYNONYMS = {"TARGET", "LABEL"}
_AS = Clause("query", parse_query, "AS SELECT * FROM customers")
_AS_LONG = Clause("query", parse_long_query, "AS SELECT * FROM customers")
_WITH = Clause("options", parse_options, "WITH (seed = 1, note = 'a text')")
_ON = Clause("runner", parse_runner, "ON process")
_INTO = Clause("into", parse_into, "INTO scores REPLACE", ("APPEND", "REPLACE"))
_ASYNC = Clause("asynchronous", parse_async)
_TARGET = Clause("target", parse_columns, "TARGET left_us")
_TUNE_EXAMPLE = "TUNE (max_depth IN (3, 5, 7), learning_rate BETWEEN 0.01 AND 0.3 LOG) BY BAYESIAN TRIALS 20 MAXIMIZE roc_auc"

TRAIN_CLAUSES = {
    "USING": Clause("algorithm", parse_algorithm, "USING xgboost_classifier"),
    "TARGET": _TARGET,
    "LABEL": _TARGET,
    "TRANSFORM": Clause("transform", parse_transform, "TRANSFORM (balance * 2 AS twice, *)"),
    "EXCLUDE": Clause("exclude", parse_exclude, "EXCLUDE (id, name)"),
    "WEIGHT": Clause("weight", parse_column, "WEIGHT how_much"),
    "KEY": Clause("key", parse_columns, "KEY id"),
    "SPLIT": Clause("split", parse_split, "SPLIT RANDOM 0.2, SPLIT TIME day 0.2, SPLIT BY part or SPLIT NONE"),
    "VALIDATE": Clause("validate", parse_validate, "VALIDATE ON (SELECT * FROM held_out)"),
    "TUNE": Clause("tune", parse_tune, _TUNE_EXAMPLE, ("BY", "TRIALS", *DIRECTIONS)),
    "WARM": Clause("warm_start", parse_warm_start, "WARM START FROM churn@3"),
    "LIMIT": Clause("limit", parse_limit, "LIMIT (TIME '10 min', MEMORY '8 GB', ROWS 100000)"),
    "WITH": _WITH,
    "ON": _ON,
    "ASYNC": _ASYNC,
    "AS": _AS_LONG,
}
EVALUATE_CLAUSES = {"BY": Clause("by", parse_columns, "BY region"), "WITH": _WITH, "AS": _AS}
EVALUATE_ENDPOINT_CLAUSES = {"BY": EVALUATE_CLAUSES["BY"], "WITH": _WITH}
COMPARE_CLAUSES = {"WITH": _WITH, "AS": _AS}
PREDICT_CLAUSES = {"INTO": _INTO, "WITH": _WITH, "ON": _ON, "ASYNC": _ASYNC, "AS": _AS_LONG}
EXPLAIN_CLAUSES = {"TOP": Clause("top", parse_top, "TOP 5"), "INTO": _INTO, "AS": _AS}
DEPLOY_CLAUSES = {
    "TO": Clause("place", parse_place, "TO ENDPOINT e"),
    "AS": Clause("function", parse_function, "TO DATABASE pg AS FUNCTION churn"),
    "WITH": _WITH,
    "ON": _ON,
}
_FORMAT = Clause("format", parse_format, "FORMAT onnx")
DEPLOY_QUERY_CLAUSES = {"WITH": _WITH, "AS": Clause("query", _AS.parse, "AS SELECT PREDICT(churn) AS answer")}
EXPORT_CLAUSES = {"TO": Clause("path", parse_path, "TO 'churn.onnx'"), "FORMAT": _FORMAT, "WITH": _WITH}
EXPORT_ENDPOINT_CLAUSES = {
    "TO": Clause("path", parse_path, "TO 'image'"),
    "FORMAT": Clause("format", parse_endpoint_format, "FORMAT docker"),
    "WITH": _WITH,
}
IMPORT_CLAUSES = {"FROM": Clause("path", parse_path, "FROM 'churn.onnx'"), "WITH": _WITH}
_TYPE = Clause("type", lambda cursor: cursor.ident("a type's name"), "TYPE postgres or TYPE process")
RESOURCE_CLAUSES = {"TYPE": _TYPE, "WITH": _WITH}
API_KEY_CLAUSES = {"FOR": Clause("endpoints", parse_endpoints, "FOR ENDPOINT e"), "WITH": _WITH}
ROTATE_CLAUSES = {"WITH": _WITH}
