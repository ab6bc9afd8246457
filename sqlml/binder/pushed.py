"""Which rows of a table a query asks for, as far as its WHERE says it in so many words, so that no others need be brought to it.

Only comparisons of a column with values written there (or given as parameters) that stand between ANDs are taken.  The query
makes all of them again where it runs, so a row too many costs time; what is taken must keep every row that the query would.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from sqlml_dialect.tokens import Kind, Token, name_value, scan, string_value, words

from sqlml.binder.named_columns import name_in_query

_COMPARES = {"=": "=", "==": "=", "<>": "<>", "!=": "<>", "<": "<", ">": ">", "<=": "<=", ">=": ">="}
_TURNED = {"=": "=", "<>": "<>", "<": ">", ">": "<", "<=": ">=", ">=": "<="}
_CLAUSES = words(
    "WHERE GROUP HAVING QUALIFY WINDOW ORDER LIMIT OFFSET FETCH FOR UNION EXCEPT INTERSECT RETURNING SET VALUES SELECT USING ;"
)
_READS_OTHERWISE = words("ASOF POSITIONAL NATURAL TABLESAMPLE SAMPLE PIVOT UNPIVOT PIVOT_LONGER PIVOT_WIDER")
"""What gives other rows where a table has fewer than it did, or other names."""
_NUMBER = re.compile(r"\d{1,36}(\.\d{1,36})?")


@dataclass(frozen=True)
class Mark:
    """A parameter, by its number or name."""

    name: str


@dataclass(frozen=True)
class Filter:
    """A comparison of a column, its name in lower case.

    ``operator``: ``=``, ``<>``, ``<``, ``>``, ``<=``, ``>=``, ``IN``, ``IS NULL``, ``IS NOT NULL``, or ``IS`` with True or False.
    ``values`` are numbers (``Decimal``), texts, booleans, dates, datetimes and marks.
    """

    column: str
    operator: str
    values: tuple[Any, ...] = ()


def pushed_filters(query: str, table: str) -> tuple[Filter, ...]:
    """The comparisons of a table's columns that every row must pass; ``table`` is its name in the query, where it stands once."""
    tokens = list(scan(query))
    place = next((i for i, token in enumerate(tokens) if token.kind in _NAMES and name_value(token) == table), None)
    if place is None or any(token.key in _READS_OTHERWISE for token in tokens):
        return ()
    depths = _depths(tokens)
    alias = name_in_query(tokens, place)
    start = _from(tokens, depths, place)
    if alias is None or start is None:
        return ()
    where = _next_clause(tokens, depths, place)
    if where == len(tokens) or tokens[where].key != "WHERE":
        return ()
    is_alone = alias + 1 == where and start + 1 == place
    inside = range(where + 1, _next_clause(tokens, depths, where))
    if any(tokens[i].key == "OR" and depths[i] == depths[place] for i in inside):
        return ()
    name = name_value(tokens[alias]).lower()
    found = (_filters(part, name, is_alone) for part in _parts([(tokens[i], depths[i] == depths[place]) for i in inside]))
    return tuple(item for items in found for item in items)


_NAMES = (Kind.WORD, Kind.QUOTED)


def _depths(tokens: Sequence[Token]) -> list[int]:
    """How many brackets are open around each token; a bracket itself stands outside."""
    depths, depth = [], 0
    for token in tokens:
        depth -= token.text == ")"
        depths.append(depth)
        depth += token.text == "("
    return depths


def _from(tokens: Sequence[Token], depths: Sequence[int], place: int) -> int | None:
    """Where the FROM stands whose table it is; None where the table stands elsewhere, or inside brackets of a join."""
    for index in range(place - 1, -1, -1):
        if depths[index] < depths[place]:
            return None
        if depths[index] == depths[place] and tokens[index].key == "FROM":
            return index
    return None


def _next_clause(tokens: Sequence[Token], depths: Sequence[int], place: int) -> int:
    """The number of the token that begins the next clause of a place's SELECT, or ends it.  The USING of a join is none."""
    for index in range(place + 1, len(tokens)):
        if depths[index] < depths[place] or (tokens[index].text == ")" and depths[index] == depths[place] - 1):
            return index
        token = tokens[index]
        is_join = token.key == "USING" and index + 1 < len(tokens) and tokens[index + 1].text == "("
        if depths[index] == depths[place] and token.key in _CLAUSES and not is_join:
            return index
    return len(tokens)


def _parts(tokens: Sequence[tuple[Token, bool]]) -> Iterator[list[Token]]:
    """The conditions between ANDs; ``BETWEEN a AND b`` is one.  Each token with whether it stands outside brackets."""
    part: list[Token] = []
    between = False
    for token, is_outside in tokens:
        if is_outside and token.key == "AND" and not between:
            yield part
            part = []
            continue
        if is_outside and token.key in ("BETWEEN", "AND"):
            between = token.key == "BETWEEN"
        part.append(token)
    yield part


def _filters(part: Sequence[Token], table: str, is_alone: bool) -> Iterator[Filter]:
    """What a condition asks of the table, where it is a plain comparison."""
    negated = bool(part) and part[0].key == "NOT"
    column, rest = _column(part[negated:], table, is_alone)
    if column is None:
        yield from _turned(part, table, is_alone)
        return
    keys = [token.key for token in rest]
    if not rest:
        yield Filter(column, "IS", (not negated,))
    elif negated:
        return
    elif keys == ["IS", "NULL"] and is_alone:  # an outer join makes NULLs of its own
        yield Filter(column, "IS NULL")
    elif keys == ["IS", "NOT", "NULL"]:
        yield Filter(column, "IS NOT NULL")
    elif keys[0] == "IN" and len(rest) > 3 and rest[1].text == "(" and rest[-1].text == ")":
        values = [_value(item) for item in _items(rest[2:-1])]
        if None not in values:
            yield Filter(column, "IN", tuple(values))
    elif keys[0] == "BETWEEN" and "AND" in keys:
        low, high = _value(rest[1 : keys.index("AND")]), _value(rest[keys.index("AND") + 1 :])
        if low is not None and high is not None:
            yield Filter(column, ">=", (low,))
            yield Filter(column, "<=", (high,))
    elif rest[0].text in _COMPARES and (value := _value(rest[1:])) is not None:
        yield Filter(column, _COMPARES[rest[0].text], (value,))


def _turned(part: Sequence[Token], table: str, is_alone: bool) -> Iterator[Filter]:
    """``3 < age`` as ``age > 3``."""
    at = next((i for i, token in enumerate(part) if token.text in _COMPARES), None)
    if at is None:
        return
    value, (column, rest) = _value(part[:at]), _column(part[at + 1 :], table, is_alone)
    if value is not None and column is not None and not rest:
        yield Filter(column, _TURNED[_COMPARES[part[at].text]], (value,))


def _column(tokens: Sequence[Token], table: str, is_alone: bool) -> tuple[str | None, Sequence[Token]]:
    """The table's column that stands first, in lower case, and what follows.  Beside other tables, only one with its name."""
    if len(tokens) > 2 and tokens[1].text == "." and tokens[0].kind in _NAMES and tokens[2].kind in _NAMES:
        is_own = name_value(tokens[0]).lower() == table
        return (name_value(tokens[2]).lower() if is_own else None), tokens[3:]
    if is_alone and tokens and tokens[0].kind in _NAMES and tokens[0].key not in ("TRUE", "FALSE", "NOT", "DATE", "TIMESTAMP"):
        return name_value(tokens[0]).lower(), tokens[1:]
    return None, tokens


def _items(tokens: Sequence[Token]) -> Iterator[list[Token]]:
    item: list[Token] = []
    for token in tokens:
        if token.text == ",":
            yield item
            item = []
        else:
            item.append(token)
    yield item


def _value(tokens: Sequence[Token]) -> Any:
    """What is written, where that is one value by itself; else None."""
    kinds, texts = [token.kind for token in tokens], [token.text for token in tokens]
    if texts[:1] == ["-"] and kinds[1:] == [Kind.NUMBER] and _NUMBER.fullmatch(texts[1]):
        return -Decimal(texts[1])
    if kinds == [Kind.NUMBER]:
        return Decimal(texts[0]) if _NUMBER.fullmatch(texts[0]) else None
    if kinds == [Kind.STRING]:
        return string_value(texts[0])
    if kinds == [Kind.PARAM]:
        return Mark(texts[0][1:]) if texts[0].startswith("$") else None
    if kinds == [Kind.WORD]:
        return {"TRUE": True, "FALSE": False}.get(tokens[0].key)
    if kinds == [Kind.WORD, Kind.STRING] and tokens[0].key in ("DATE", "TIMESTAMP"):
        return _moment(tokens[0].key, string_value(texts[1]))
    return None


def _moment(key: str, text: str) -> dt.date | dt.datetime | None:
    with suppress(ValueError):
        if key == "DATE":
            return dt.date.fromisoformat(text) if len(text) == 10 else None
        moment = dt.datetime.fromisoformat(text)
        return None if moment.tzinfo else moment
    return None
