"""PostgreSQL's array literals, such as ``{a,"b c",NULL}``."""

from __future__ import annotations

import re

_ELEMENT = re.compile(r'\s*(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<bare>[^",{}]*?))\s*(?P<end>,|\Z)', re.DOTALL)


def list_literal(text: str) -> list[str | None] | None:
    """The elements of an array of one dimension, None for NULL; None where the text is no such array."""
    body = text.strip()
    if not (body.startswith("{") and body.endswith("}")):
        return None
    body = body[1:-1]
    if not body.strip():
        return []
    found: list[str | None] = []
    at = 0
    while True:
        match = _ELEMENT.match(body, at)
        if match is None or not (match["quoted"] is not None or match["bare"]):
            return None
        bare = match["bare"]
        if match["quoted"] is not None:
            found.append(re.sub(r"\\(.)", r"\1", match["quoted"], flags=re.DOTALL))
        else:
            found.append(None if bare.upper() == "NULL" else bare)
        if not match["end"]:
            return found
        at = match.end()
