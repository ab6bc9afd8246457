"""Statements that a session does not pass on to the database, or does not carry out, with the reason in our words."""

from __future__ import annotations

from itertools import pairwise, starmap

from sqlml_dialect import Span
from sqlml_dialect.tokens import Kind, Token, name_value, scan, string_value, words

from sqlml.errors import BindError, NotSupportedError
from sqlml.statements.texts import first_word

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


def check_schema(text: str, schema: str) -> None:
    """``BindError`` for a schema that would make the names of our relations, which are in ``schema``, mean two things."""
    if schema.lower() not in text.lower():
        return
    tokens = [token for token in scan(text) if token.key != ";"]
    name = tokens[-1]
    if [token.key for token in tokens[:2]] == ["CREATE", "SCHEMA"] and name_value(name).lower() == schema.lower():
        raise BindError(
            f"{schema} is the schema of the models' relations", source=text, span=(name.start, name.end),
            hint='connect(schema="…") gives ours another name',
        )  # fmt: skip


def in_transaction(source: str, span: Span) -> NotSupportedError:
    """What writes to the catalog cannot be undone by the database's ROLLBACK, so it is refused inside a transaction."""
    word = first_word(source, span)
    return NotSupportedError(
        f"{source[slice(*word)].upper()} cannot run inside an open transaction", source=source, span=word,
        hint="COMMIT or ROLLBACK first, in Python commit() or rollback() of the connection",
    )  # fmt: skip


def in_memory(what: str, source: str, span: Span) -> NotSupportedError:
    """What outlives the connection is refused where the models do not."""
    return NotSupportedError(
        f"an in-memory database cannot {what}: its models go when the connection closes", source=source,
        span=first_word(source, span), hint='connect to a file, as in sqlml.connect("bank.duckdb")',
    )  # fmt: skip


def _is_stream(before: Token, token: Token) -> bool:
    """Whether a word behind TO or FROM is one of the process' own streams."""
    if before.key not in ("TO", "FROM"):
        return False
    return token.key in ("STDIN", "STDOUT") or (token.kind is Kind.STRING and string_value(token.text).lower() in _STREAMS)
