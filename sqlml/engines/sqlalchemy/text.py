"""A query's text as a driver takes it: with its parameters in the driver's own style (PEP 249), as a single statement."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sqlml_dialect.tokens import Kind, Token, scan

from sqlml.errors import BindError

_QUERIES = frozenset({"SELECT", "WITH", "VALUES", "TABLE"})


@dataclass(frozen=True)
class Statement:
    """A text as it was given, and as the driver takes it, with its parameters: a tuple or a dictionary, as the style has it."""

    text: str
    sql: str
    values: Any = ()


def is_query(text: str) -> bool:
    """Whether a text begins as a query does, so that it cannot but read (a database may let WITH do more)."""
    first = next((token for token in scan(text) if token.text != "("), None)
    return first is not None and first.key in _QUERIES


def count_statements(text: str) -> int:
    """How many statements there are between semicolons."""
    groups = itertools.groupby(scan(text), lambda token: token.key == ";" or token.kind is Kind.END)
    return sum(not is_end for is_end, _ in groups)


def write_statement(text: str, parameters: Any, style: str) -> Statement:
    """The text with ``?``, ``$1`` and ``$name`` in a driver's style.  ``BindError`` where a value is missing."""
    body = "".join(_replaced(text, {";": ""}.get))
    if not parameters:
        return Statement(text, body)
    values: dict[str, Any] = {}
    counted = itertools.count()
    pieces, position = list[str](), 0
    for token in (token for token in scan(body) if token.kind is Kind.PARAM):
        number = len(values) + 1
        values[f"p{number}"] = _value_of(token, parameters, counted)
        pieces += [_escaped(body[position : token.start], style), _MARKS[style](number)]
        position = token.end
    sql = "".join([*pieces, _escaped(body[position:], style)])
    return Statement(text, sql, values if style in ("named", "pyformat") else tuple(values.values()))


def without_parameters(text: str) -> str:
    """The text with NULL in place of each parameter, without the semicolon at its end."""
    return "".join(_replaced(text, lambda token: "NULL" if token.startswith(("?", "$")) else {";": ""}.get(token)))


def _replaced(text: str, replacement: Callable[[str], str | None]) -> Iterator[str]:
    """Pieces of the text; a parameter or symbol for which there is a replacement is replaced."""
    position = 0
    for token in scan(text):
        if token.kind in (Kind.PARAM, Kind.SYMBOL) and (new := replacement(token.text)) is not None:
            yield text[position : token.start] + new
            position = token.end
    yield text[position:]


def _value_of(token: Token, parameters: Any, counted: Iterator[int]) -> Any:
    key: Any = next(counted) if token.text == "?" else token.text[1:]
    try:
        if isinstance(parameters, Mapping):
            return parameters[key]
        return parameters[int(key) - (token.text != "?")]
    except (LookupError, ValueError):
        raise BindError(f"there is no value for the parameter {token.text}") from None


_MARKS: Mapping[str, Callable[[int], str]] = {
    "qmark": lambda _: "?",
    "format": lambda _: "%s",
    "pyformat": lambda number: f"%(p{number})s",
    "named": lambda number: f":p{number}",
    "numeric": lambda number: f":{number}",
    "numeric_dollar": lambda number: f"${number}",
}
"""https://peps.python.org/pep-0249/#paramstyle"""


def _escaped(sql: str, style: str) -> str:
    return sql.replace("%", "%%") if style in ("format", "pyformat") else sql
