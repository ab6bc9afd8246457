"""Statements of the database that a session does not pass on, with the reason in our words."""

from __future__ import annotations

from itertools import pairwise, starmap

from sqlml_dialect import Span
from sqlml_dialect.tokens import Kind, Token, scan, string_value, words

from sqlml.errors import NotSupportedError

_FIRST = words("SAVEPOINT RELEASE ROLLBACK COPY")
_STREAMS = ("/dev/stdin", "/dev/stdout", "/dev/stderr", "/dev/fd/0", "/dev/fd/1", "/dev/fd/2")


def check_statement(text: str, source: str, span: Span, *, serves: bool) -> None:
    """``NotSupportedError`` for savepoints; where a session ``serves`` clients also for COPY with the process' own streams."""
    first = text.split(None, 1)[0].upper() if text.strip() else ""
    if first not in _FIRST:
        return
    tokens = list(scan(text))
    keys = [token.key for token in tokens]
    if first in ("SAVEPOINT", "RELEASE") or (first == "ROLLBACK" and "TO" in keys[1:3]):
        raise NotSupportedError(
            "a transaction has no savepoints here: DuckDB goes back to its beginning or not at all", source=source, span=span,
            hint="ROLLBACK undoes the whole transaction",
        )  # fmt: skip
    if first == "COPY" and serves and any(starmap(_is_stream, pairwise(tokens))):
        raise NotSupportedError(
            "COPY from STDIN and to STDOUT is for clients of PostgreSQL's protocol", source=source, span=span,
            hint="SELECT gives the rows, INSERT takes them; a file works: COPY … TO '/path/file.csv'",
        )  # fmt: skip


def _is_stream(before: Token, token: Token) -> bool:
    """Whether a word behind TO or FROM is one of the process' own streams."""
    if before.key not in ("TO", "FROM"):
        return False
    return token.key in ("STDIN", "STDOUT") or (token.kind is Kind.STRING and string_value(token.text).lower() in _STREAMS)
