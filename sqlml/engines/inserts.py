"""INSERT with a row of values to come, told from any other statement: many rows of it can go at once.  Text in, a place out."""

from __future__ import annotations

from sqlml_dialect.tokens import Kind, scan


def values_at(text: str) -> int | None:
    """Where VALUES stands in ``INSERT INTO t … VALUES (?, ?, …)``; None for whatever is not that, whole and plain."""
    tokens = list(scan(text))
    while tokens and tokens[-1].key == ";":
        tokens.pop()
    if [token.key for token in tokens[:2]] != ["INSERT", "INTO"]:
        return None
    place = next((i for i, token in enumerate(tokens) if token.key == "VALUES"), None)
    if place is None or any(token.key in ("SELECT", "DEFAULT", "WITH") for token in tokens[:place]):
        return None
    keys = [token.key or token.text for token in tokens[place + 1 :]]
    count = keys.count("?")
    if not count or keys != ["(", *["?", ","] * (count - 1), "?", ")"]:
        return None
    if any(token.kind is Kind.OPEN for token in tokens):
        return None
    return tokens[place].start
