"""Where the items of a select list are, read off the tokens of a query."""

from __future__ import annotations

from collections.abc import Sequence

from sqlml_dialect.tokens import Kind, Token, words

_OPENING, _CLOSING = frozenset("([{"), frozenset(")]}")
_NOT_IN_LIST = words(
    "FROM WHERE GROUP ORDER BY HAVING QUALIFY LIMIT OFFSET VALUES SET ON USING WITH WINDOW UNION INTERSECT EXCEPT"
)
_BEHIND_ITEM = words(", ; ) FROM WHERE GROUP ORDER HAVING QUALIFY LIMIT OFFSET UNION INTERSECT EXCEPT INTO")


def is_unnamed_item(tokens: Sequence[Token], first: int, last: int) -> bool:
    """Whether the tokens from first to last are an item of a select list, all of it, and have no alias."""
    if last + 1 < len(tokens) and tokens[last + 1].key not in _BEHIND_ITEM:
        return False
    depth = 0
    for index in range(first - 1, -1, -1):
        key = tokens[index].key
        if key in _CLOSING:
            depth += 1
        elif key in _OPENING:
            if not depth:
                return False
            depth -= 1
        elif not depth and key in ("SELECT", "RETURNING"):
            return tokens[first - 1].key == "," or all(token.key in ("DISTINCT", "ALL") for token in tokens[index + 1 : first])
        elif not depth and key in _NOT_IN_LIST and tokens[index].kind is Kind.WORD:
            return False
    return False
