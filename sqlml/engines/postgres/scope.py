"""Which columns are in scope where a call stands: those of the FROM clause beside it, asked for by a query of its own."""

from __future__ import annotations

from collections.abc import Sequence

from sqlml_dialect.tokens import Kind, Token, scan, words

_ENDS = words("WHERE GROUP HAVING WINDOW ORDER LIMIT OFFSET FETCH FOR UNION INTERSECT EXCEPT RETURNING")
_MARK = "__sqlml_here"


def scope_query(before: str, after: str) -> str | None:
    """``SELECT * FROM …`` of the SELECT around a place, with the WITH before it; None where there is no such SELECT."""
    text = f"{before} {_MARK} {after}"
    tokens = list(scan(text))
    here = next((i for i, token in enumerate(tokens) if token.text == _MARK), None)
    if here is None:
        return None
    level = _level(tokens, here)
    while level is not None:
        first, inside = level
        found = _from_clause(tokens, inside, here)
        if found is not None:
            start, end = found
            stop = tokens[end].start if end < len(tokens) else len(text)
            return f"{_with_clause(text, tokens)}SELECT * {text[tokens[start].start : stop]}"
        level = _level(tokens, first - 1) if first > 0 else None
    return None


def _level(tokens: Sequence[Token], place: int) -> tuple[int, list[int]] | None:
    """The bracket that a token stands in: its first token's number, and the numbers of those directly in it."""
    if place < 0:
        return None
    depth, first = 0, place
    while first > 0:
        depth += {")": 1, "(": -1}.get(tokens[first - 1].text, 0)
        if depth < 0:
            break
        first -= 1
    inside, depth = [], 0
    for number in range(first, len(tokens)):
        symbol = tokens[number].text
        depth -= symbol == ")"
        if depth < 0:
            break
        if depth == 0:
            inside.append(number)
        depth += symbol == "("
    return first, inside


def _from_clause(tokens: Sequence[Token], inside: Sequence[int], here: int) -> tuple[int, int] | None:
    """Where the FROM clause of the SELECT around a place begins and ends, among the tokens of one bracket."""
    selects = [n for n in inside if tokens[n].key == "SELECT" and n <= here]
    if not selects:
        return None
    later = [n for n in inside if n > selects[-1]]
    start = next((n for n in later if tokens[n].key == "FROM" and tokens[n - 1].key != "DISTINCT"), None)
    if start is None:
        return None
    end = next((n for n in later if n > start and tokens[n].key in _ENDS), None)
    return start, (inside[-1] + 1 if end is None else end)


def _with_clause(text: str, tokens: Sequence[Token]) -> str:
    """The WITH that a statement begins with, up to its query."""
    if not tokens or tokens[0].key != "WITH":
        return ""
    depth = 0
    for token in tokens:
        depth += (token.text == "(") - (token.text == ")")
        if depth == 0 and token.kind is Kind.WORD and token.key in ("SELECT", "INSERT", "UPDATE", "DELETE", "VALUES"):
            return text[: token.start]
    return ""
