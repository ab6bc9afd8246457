"""Spark's SQL as text: names in backticks, and strings with backslashes made readable for our scanner.

Our scanner reads strings as standard SQL and DuckDB write them, where a backslash is a letter.  In Spark ``'it\\'s'`` is one
string; ``masked`` writes such quotes as two, so that the text keeps its length and every token its place.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from sqlml_dialect.tokens import Kind, comment_end, name_value, scan

_SOLID = re.compile(
    r"""
    (?P<blank>--[^\r\n]*+)
    | (?P<comment>/\*)
    | (?P<raw>(?<!\w)[rR](?:'[^']*+'|"[^"]*+"))
    | (?P<name>`(?:[^`]|``)*+`)
    | (?P<string>'(?:[^'\\]|\\.)*+'|"(?:[^"\\]|\\.)*+")
    """,
    re.DOTALL | re.VERBOSE,
)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_QUERIES = frozenset({"SELECT", "WITH", "FROM", "VALUES", "TABLE", "MAP", "REDUCE"})


def quote(name: str) -> str:
    """A name as Spark takes it, whatever its letters: ``a`b`` → ```a``b```."""
    return "`" + name.replace("`", "``") + "`"


def quote_parts(parts: Sequence[str]) -> str:
    """A name of several parts: ```db`.`t```"""
    return ".".join(quote(part) for part in parts)


def masked(text: str) -> str:
    """A text of the same length in which a quote behind a backslash, inside a string, is written as two quotes."""
    if "\\" not in text:
        return text
    parts: list[str] = []
    position = 0
    while match := _SOLID.search(text, position):
        parts.append(text[position : match.start()])
        end = match.end()
        if match.lastgroup == "comment":
            end, _ = comment_end(text, end, len(text))
        solid = text[match.start() : end]
        mark = solid[0]
        parts.append(_without_escapes(solid, mark) if match.lastgroup == "string" else solid)
        position = end
    return "".join(parts) + text[position:]


def _without_escapes(solid: str, mark: str) -> str:
    return _ESCAPE.sub(lambda m: mark * 2 if m[1] == mark else m[0], solid)


def with_backticks(text: str) -> str:
    """The text with its names in double quotes in backticks: ``"b c"`` is a name in all of sqlml, and a string to Spark."""
    if '"' not in text:
        return text
    parts: list[str] = []
    position = 0
    for token in scan(masked(text)):
        if token.kind is Kind.QUOTED and token.text[0] == '"':
            parts += [text[position : token.start], quote(name_value(token))]
            position = token.end
    return "".join(parts) + text[position:]


def is_query(text: str) -> bool:
    """Whether a statement begins as a query does; what follows may still be wrong."""
    for token in scan(text):
        if token.text != "(":
            return token.key in _QUERIES
    return False
