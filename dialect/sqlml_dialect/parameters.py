"""The literals of our statements outside options: each is written, or given as the value of a parameter.

One function reads both, so that a value is checked by the same rule and refused in the same words as a literal.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass, replace
from datetime import timedelta
from decimal import Decimal
from numbers import Integral, Real
from typing import Any, TypeVar

from sqlml_dialect.clause_nodes import Given, Limit, Placeholder, SplitRandom, SplitTime, Tune
from sqlml_dialect.cursor import Cursor, describe
from sqlml_dialect.errors import DialectError
from sqlml_dialect.names import quote_string
from sqlml_dialect.nodes import (
    CancelJob,
    ExplainModel,
    Export,
    ExportEndpoint,
    Import,
    Node,
    SetAlias,
    SetComment,
    Show,
    ShowLogs,
)
from sqlml_dialect.tokens import Kind, Token, scan
from sqlml_dialect.values import duration_text, parse_duration, parse_number, parse_placeholder, parse_size, parse_value

T = TypeVar("T")


def parse_given(cursor: Cursor, read: Callable[[Cursor], T]) -> Given[T]:
    """A parameter, or the literal that a function reads."""
    return parse_placeholder(cursor) if cursor.peek().kind is Kind.PARAM else read(cursor)


def fill_parameters(node: Node, text: str, resolve: Callable[[Placeholder], Any]) -> Node:
    """The same statement with values in place of the parameters outside options and queries.

    ``text`` is what the statement was parsed from.  Raises DialectError, pointing at the parameter, for a value that could
    not stand there as a literal.
    """
    filled: Node = _fill(node, text, resolve)
    return filled


def _fill(node: Any, text: str, resolve: Callable[[Placeholder], Any]) -> Any:
    changes: dict[str, Any] = {}
    for part in fields(node):
        held = getattr(node, part.name)
        read = _READERS.get((type(node), part.name))
        if read is not None and isinstance(held, Placeholder):
            changes[part.name] = _read(read, resolve(held), text, held)
        elif is_dataclass(held):
            inner = _fill(held, text, resolve)
            changes |= {part.name: inner} if inner is not held else {}
    return replace(node, **changes) if changes else node


def _read(read: Callable[[Cursor], T], value: Any, text: str, place: Placeholder) -> T:
    """A value, read as the literal it would be."""
    tokens = _tokens(value)
    cursor = Cursor(text, tokens)
    try:
        found = read(cursor)
        if cursor.peek().kind is not Kind.END:
            cursor.fail("one value")
    except DialectError as error:
        raise DialectError(error.message, text, place.span, error.expected, error.hint) from None
    return found


def _tokens(value: Any) -> list[Token]:
    """The tokens of the literal for a value; what has no literal is one token that no rule takes."""
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, str):
        return [Token(Kind.STRING, quote_string(value), 0, 0)]
    if isinstance(value, timedelta):
        return list(scan(f"INTERVAL {quote_string(duration_text(value))}"))
    if value is None or isinstance(value, bool):
        word = "NULL" if value is None else str(value).upper()
        return [Token(Kind.SYMBOL, word, 0, 0, word)]
    if isinstance(value, Integral):
        return [Token(Kind.NUMBER, str(int(value)), 0, 0)]
    if isinstance(value, Real | Decimal):
        return [Token(Kind.NUMBER, repr(float(value)), 0, 0)]
    return [Token(Kind.SYMBOL, repr(value), 0, 0)]


# --- how each is read -------------------------------------------------------------------------------------------------


def read_fraction(cursor: Cursor) -> float:
    """The share of rows to hold out."""
    token = cursor.peek()
    value = float(parse_number(cursor))
    if not 0 < value < 1:
        span = cursor.taken_since(token.start)
        expected = "a fraction between 0 and 1, such as 0.2"
        hint = f"{value:g} % are written {value / 100:g}" if 2 <= value < 100 else None
        raise DialectError(f"a split of {value:g} is no fraction", cursor.text, span, expected, hint)
    return value


def read_time_limit(cursor: Cursor) -> timedelta:
    """A length of time: a text, an INTERVAL or a number of seconds."""
    expected = "a length of time such as '10 min', '90 s', '2 hours' or a number of seconds"
    token = cursor.peek()
    if token.kind is Kind.STRING:
        length = parse_duration(cursor.string(expected))
    elif token.kind is Kind.NUMBER:
        length = parse_duration(f"{parse_number(cursor):f} s")
        unit = cursor.peek()
        if unit.kind is Kind.WORD:
            cursor.fail('"," or ")"', hint=f"write TIME '{token.text} {unit.text}'")
    elif token.key == "INTERVAL":
        value = parse_value(cursor)
        length = value if isinstance(value, timedelta) else None
    else:
        cursor.fail(expected)
    if length is None or length <= timedelta(0):
        span = cursor.taken_since(token.start)
        raise DialectError(f"not a time limit: {describe(token)}", cursor.text, span, expected)
    return length


def read_memory_limit(cursor: Cursor) -> int:
    """A size: a text with its unit."""
    expected = "a size such as '8 GB', '512 MB' or '4 GiB'"
    token = cursor.peek()
    size = parse_size(cursor.string(expected))
    if size is None or size <= 0:
        raise DialectError(f"not a size: {describe(token)}", cursor.text, (token.start, token.end), expected)
    return size


def read_rows(cursor: Cursor) -> int:
    """The most rows to learn from."""
    return cursor.integer("a whole number of rows", least=1)


def read_trials(cursor: Cursor) -> int:
    """How many sets of options to try."""
    return cursor.integer("a whole number of trials", least=1)


def read_top(cursor: Cursor) -> int:
    """How many features to show."""
    return cursor.integer("a whole number", least=1)


def read_version(cursor: Cursor) -> int:
    """The number of a version."""
    return cursor.integer("a version's number", least=1)


def read_job(cursor: Cursor) -> int:
    """The number of a job."""
    return cursor.integer("a job's number")


def read_path(cursor: Cursor) -> str:
    """Where a model is written to or read from."""
    return cursor.string("a path in single quotes")


def read_pattern(cursor: Cursor) -> str:
    """The pattern of LIKE."""
    return cursor.string("a pattern in single quotes")


def read_comment(cursor: Cursor) -> str | None:
    """A model's comment."""
    return None if cursor.accept("NULL") else cursor.string("a text in single quotes, or NULL")


_READERS: Mapping[tuple[type, str], Callable[[Cursor], Any]] = {
    (SplitRandom, "fraction"): read_fraction,
    (SplitTime, "fraction"): read_fraction,
    (Limit, "time"): read_time_limit,
    (Limit, "memory"): read_memory_limit,
    (Limit, "rows"): read_rows,
    (Tune, "trials"): read_trials,
    (ExplainModel, "top"): read_top,
    (SetAlias, "version"): read_version,
    (SetComment, "comment"): read_comment,
    (ShowLogs, "job"): read_job,
    (CancelJob, "job"): read_job,
    (Show, "like"): read_pattern,
    (Export, "path"): read_path,
    (ExportEndpoint, "path"): read_path,
    (Import, "path"): read_path,
}
"""The places of a statement, outside options and queries, that take a parameter, and the rule for what stands there."""
