"""Which columns of a table a query names, so that no others need be brought to it.

Names that mean something else are taken along: a column too many costs time, one too few a wrong answer.  So where a query may
read a column without naming it (``*``, NATURAL JOIN, the table itself as a value), the answer is: all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from sqlml_dialect.tokens import Kind, Token, name_value, scan, words

_NAMES = (Kind.WORD, Kind.QUOTED)
_UNNAMED = words("NATURAL COLUMNS PIVOT UNPIVOT PIVOT_LONGER PIVOT_WIDER SUMMARIZE DESCRIBE TABLE")
"""What reads columns that it does not name; TABLE in ``CREATE TABLE … AS`` does not."""
_BEFORE_STAR = words("SELECT DISTINCT ALL RETURNING INSERT SET BY ON")
_AFTER_STAR = words(
    "FROM WHERE GROUP HAVING QUALIFY WINDOW ORDER LIMIT OFFSET UNION EXCEPT INTERSECT INTO AS "
    "EXCLUDE REPLACE RENAME LIKE ILIKE GLOB SIMILAR NOT WHEN"
)
_SETS = words("UNION EXCEPT INTERSECT")
_OPENS = words("AS IN EXISTS ANY ALL SOME LATERAL NOT AND OR MATERIALIZED")
"""What stands before the bracket of a query or of an expression, not of a function's arguments."""
_CREATES = words("CREATE TEMP TEMPORARY REPLACE UNLOGGED INTO")
_AFTER_TABLE = words(
    "WHERE GROUP HAVING QUALIFY WINDOW ORDER LIMIT OFFSET FETCH FOR UNION EXCEPT INTERSECT JOIN INNER LEFT RIGHT FULL CROSS "
    "ASOF POSITIONAL ANTI SEMI ON USING TABLESAMPLE SAMPLE SELECT FROM RETURNING SET VALUES"
)


def named_columns(query: str, table: str) -> frozenset[str] | None:
    """Names in lower case, among which are all columns of a table that a query reads; None: it may read any.

    ``table`` is the table's name in the query, where it stands once.
    """
    tokens = list(scan(query))
    place = next((index for index, token in enumerate(tokens) if _is_name(token, table)), None)
    if place is None or _reads_unnamed(tokens) or _begins_with_from(tokens) or any(map(_is_star_at, *_around(tokens))):
        return None
    alias = name_in_query(tokens, place)
    if alias is None or _is_value(tokens, tokens[alias], {place, alias}):
        return None
    return frozenset(name_value(token).lower() for token in tokens if token.kind in _NAMES)


def _is_name(token: Token, name: str) -> bool:
    return token.kind in _NAMES and name_value(token) == name


def _reads_unnamed(tokens: Sequence[Token]) -> bool:
    """``COLUMNS(…)``, ``TABLE t``, ``#1`` and so on."""
    for before, token in pairwise([Token(Kind.END, "", 0, 0), *tokens]):
        if token.text.startswith("#") or (token.key in _UNNAMED and not (token.key == "TABLE" and before.key in _CREATES)):
            return True
    return False


def _begins_with_from(tokens: Sequence[Token]) -> bool:
    """Whether there is a FROM without its SELECT, which means every column."""
    selects = [False]
    for before, token in pairwise([Token(Kind.END, "", 0, 0), *tokens]):
        if token.text == "(":
            is_call = before.kind is Kind.QUOTED or (before.kind is Kind.WORD and before.key not in _AFTER_TABLE | _SETS | _OPENS)
            selects.append(is_call)  # extract(year FROM d)
        elif token.text == ")" and len(selects) > 1:
            selects.pop()
        elif token.key == "SELECT":
            selects[-1] = True
        elif token.key in _SETS:
            selects[-1] = False
        elif token.key == "FROM" and before.key != "DISTINCT" and not selects[-1]:
            return True
    return False


def _around(tokens: Sequence[Token]) -> tuple[list[Token], Sequence[Token], list[Token], list[Token]]:
    """Two tokens before each, itself, and the one after."""
    none = Token(Kind.END, "", 0, 0)
    return [none, none, *tokens][: len(tokens)], tokens, [none, *tokens][: len(tokens)], [*tokens[1:], none]


def _is_star_at(second: Token, token: Token, before: Token, after: Token) -> bool:
    """Whether a ``*`` stands for columns: it does not multiply, and is not that of ``count(*)``."""
    if token.text != "*" or (second.key == "COUNT" and before.text == "(" and after.text == ")"):
        return False
    has_left = before.kind in (Kind.NUMBER, Kind.STRING, Kind.PARAM, Kind.QUOTED) or before.text in (")", "]")
    has_left = has_left or (before.kind is Kind.WORD and before.key not in _BEFORE_STAR)
    has_right = after.kind in (Kind.NUMBER, Kind.STRING, Kind.PARAM, Kind.QUOTED) or after.text in ("(", "[", "-", "+")
    has_right = has_right or (after.kind is Kind.WORD and after.key not in _AFTER_STAR)
    return not (has_left and has_right)


def name_in_query(tokens: Sequence[Token], place: int) -> int | None:
    """Where the name stands that the query has for a table; None where new names for its columns follow."""
    after = place + 1
    if after < len(tokens) and tokens[after].key == "AS":
        after += 1
    named = after < len(tokens) and tokens[after].kind in _NAMES and tokens[after].key not in _AFTER_TABLE
    alias = after if named else place
    follows = tokens[alias + 1].text if alias + 1 < len(tokens) else ""
    return None if follows == "(" else alias


def _is_value(tokens: Sequence[Token], alias: Token, places: set[int]) -> bool:
    """Whether a table's name stands elsewhere than where it is given as a value, which is its whole row: ``to_json(c)``."""
    name = name_value(alias).lower()
    for index, token in enumerate(tokens):
        if index in places or token.kind not in _NAMES or name_value(token).lower() != name:
            continue
        follows = tokens[index + 1].text if index + 1 < len(tokens) else ""
        if follows != ".":
            return True
    return False
