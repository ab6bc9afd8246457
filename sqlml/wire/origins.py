"""Which column of which table a column of a result is, where it comes straight from one: by the text of a plain SELECT.

Drivers tell it to programs that let people edit results.  Plain is a SELECT of names, and whatever else, from tables and joins.
Nothing is told of what is not a name, nor where the text has more than that; nothing wrong is told.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

from sqlml_dialect.tokens import Kind, Token, name_value, scan, words

from sqlml.wire.known_tables import Tables

Origin = tuple[int, int]
"""A table's number and the column's within it; (0, 0): none."""
NONE: Origin = (0, 0)

_ENDS = words("WHERE GROUP HAVING ORDER LIMIT OFFSET FETCH WINDOW QUALIFY FOR")
_SETS = words("UNION INTERSECT EXCEPT")
_JOINS = words("JOIN INNER LEFT RIGHT FULL OUTER CROSS ON")
_NO_PLAIN = words("NATURAL USING POSITIONAL ASOF LATERAL PIVOT UNPIVOT TABLESAMPLE VALUES SEMI ANTI")
_TESTS = words("NOTNULL ISNULL")
_LONGEST = 10_000


class _Source(NamedTuple):
    schema: str
    table: str
    alias: str


class _Plain(NamedTuple):
    """A SELECT list of (qualifier, column, or * for all); None for what is no column; and what it selects from."""

    items: tuple[tuple[str, str] | None, ...]
    sources: tuple[_Source, ...]


def find_origins(text: str, names: Sequence[str], tables: Tables, schema: str) -> tuple[Origin, ...]:
    """The origin of each column of a result; ``schema`` is where tables without one are looked for."""
    nothing = (NONE,) * len(names)
    plain = _read(text) if len(text) < _LONGEST else None
    if plain is None:
        return nothing
    known = [(source.alias, tables.get((source.schema or schema, source.table))) for source in plain.sources]
    found: list[Origin] = []
    for item in plain.items:
        if item is None:
            found.append(NONE)
            continue
        of_item = list(_resolved(*item, known))
        if item[1] == "*" and not of_item:
            return nothing
        found += of_item or [NONE]
    return tuple(found) if len(found) == len(names) else nothing


def may_have_origins(text: str) -> bool:
    """Whether a text is a SELECT that may be plain."""
    return len(text) < _LONGEST and _read(text) is not None


def _resolved(qualifier: str, column: str, known: Sequence[tuple[str, tuple[int, tuple[str, ...]] | None]]) -> Iterator[Origin]:
    own = [table for alias, table in known if not qualifier or alias == qualifier]
    if any(table is None for table in own):
        return
    if column == "*":
        for table in own:
            if table is not None:
                yield from ((table[0], place) for place in range(1, len(table[1]) + 1))
        return
    places = [(t[0], t[1].index(column) + 1) for t in own if t is not None and column in t[1]]
    if len(places) == 1:
        yield places[0]


@lru_cache(maxsize=512)
def _read(text: str) -> _Plain | None:
    tokens = [token for token in scan(text) if token.text != ";"]
    if not tokens or tokens[0].key != "SELECT":
        return None
    top = list(_top_level(tokens[1:]))
    keys = [token.key for token, _ in top]
    if "FROM" not in keys or any(key in _SETS or key in _NO_PLAIN or key in ("DISTINCT", "INTO") for key in keys):
        return None
    begin = keys.index("FROM")
    end = next((i for i, key in enumerate(keys) if i > begin and key in _ENDS), len(keys))
    sources = _sources(top[begin + 1 : end])
    if sources is None:
        return None
    return _Plain(tuple(_item(part) for part in _parts(top[:begin])), sources)


def _top_level(tokens: Sequence[Token]) -> Iterator[tuple[Token, bool]]:
    """The tokens outside brackets, and whether something in brackets follows, which is left out."""
    depth = 0
    for token, after in pairwise([*tokens, None]):
        assert token is not None
        if token.text == ")":
            depth -= 1
            continue
        if depth == 0 and token.text != "(":
            yield token, after is not None and after.text == "("
        elif depth == 0:
            yield token, True
        depth += token.text == "("


def _parts(tokens: Sequence[tuple[Token, bool]]) -> Iterator[list[tuple[Token, bool]]]:
    part: list[tuple[Token, bool]] = []
    for token in tokens:
        if token[0].text == ",":
            yield part
            part = []
        else:
            part.append(token)
    yield part


def _item(part: list[tuple[Token, bool]]) -> tuple[str, str] | None:
    """``a``, ``t.a``, ``*``, ``t.*``, with a name behind it or without."""
    if any(brackets for _, brackets in part):
        return None
    tokens = [token for token, _ in part]
    if len(tokens) >= 2 and tokens[-2].key == "AS":
        tokens = tokens[:-2]
    elif len(tokens) in (2, 4) and _is_name(tokens[-1]) and tokens[-2].text != "." and tokens[-1].key not in _TESTS:
        tokens = tokens[:-1]
    if len(tokens) == 1 and (tokens[0].text == "*" or _is_name(tokens[0])):
        return "", _name(tokens[0])
    if len(tokens) == 3 and tokens[1].text == "." and _is_name(tokens[0]) and (tokens[2].text == "*" or _is_name(tokens[2])):
        return _name(tokens[0]), _name(tokens[2])
    return None


def _sources(tokens: Sequence[tuple[Token, bool]]) -> tuple[_Source, ...] | None:
    """The tables and joins of a FROM; None where there is something else."""
    found: list[_Source] = []
    at, wanted = 0, True
    while at < len(tokens):
        token = tokens[at][0]
        if not wanted:
            wanted = token.text == "," or token.key == "JOIN"
            at += 1
            continue
        names: list[str] = []
        while at < len(tokens) and _is_name(tokens[at][0]) and not tokens[at][1]:
            names.append(_name(tokens[at][0]))
            if at + 1 == len(tokens) or tokens[at + 1][0].text != ".":
                break
            at += 2
        if not 1 <= len(names) <= 2:
            return None
        at += 1
        if at < len(tokens) and tokens[at][0].key == "AS":
            at += 1
        alias = names[-1]
        if at < len(tokens) and _is_name(tokens[at][0]) and tokens[at][0].key not in _JOINS:
            if tokens[at][1]:  # its columns have other names
                return None
            alias = _name(tokens[at][0])
            at += 1
        found.append(_Source(names[0] if len(names) == 2 else "", names[-1], alias))
        wanted = False
    return tuple(found) if found and not wanted else None


def _is_name(token: Token) -> bool:
    return token.kind in (Kind.WORD, Kind.QUOTED)


def _name(token: Token) -> str:
    return name_value(token).lower() if _is_name(token) else token.text
