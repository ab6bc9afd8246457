"""What is changed in a client's SQL before DuckDB sees it; everything else goes through byte for byte.

public.t            the schema that PostgreSQL's clients expect is DuckDB's main, unless the database has one called public
pg_catalog.…        queries of the system's tables: see ``sqlml.wire.catalog``
serial, jsonb       types that DuckDB has under other names
to_char(…) …        functions that DuckDB has under other names: see ``sqlml.wire.functions``
"""

from __future__ import annotations

import re
from collections.abc import Callable

from sqlml_dialect import quote_identifier, quote_string
from sqlml_dialect.tokens import Kind, Token, name_value, scan

from sqlml.errors import Error
from sqlml.wire.explain import plain_explain
from sqlml.wire.functions import translate_functions
from sqlml.wire.settings import Settings

_MENTIONED = re.compile(
    r"\bpublic\b|serial[248]?\b|\bjsonb\b|\bat\b|\b(?:local|global)\s+temp|'\\x[0-9a-f]*'\s*::", re.IGNORECASE
)
_HEX = re.compile(r"[eE]?'\\{1,2}x(?:[0-9a-fA-F]{2})*'")
_SERIALS = {"SERIAL": "INTEGER", "SERIAL4": "INTEGER", "BIGSERIAL": "BIGINT", "SERIAL8": "BIGINT", "SMALLSERIAL": "SMALLINT",
            "SERIAL2": "SMALLINT"}  # fmt: skip


class Rewriter:
    """Changes the SQL of the clients of one database."""

    def __init__(self, catalog: Callable[[str, Settings], str], has_public: Callable[[], bool]) -> None:
        self._catalog = catalog
        self._has_public = has_public

    def rewrite(self, text: str, settings: Settings) -> str:
        """The text as DuckDB takes it."""
        text = plain_explain(text)
        found = self._catalog(text, settings)
        if found != text:
            return translate_functions(found)
        text = translate_functions(text)
        if not _MENTIONED.search(text):
            return text
        return self._replaced(text)

    def _replaced(self, text: str) -> str:
        tokens = list(scan(text))
        changes: list[tuple[int, int, str]] = []
        public = self._has_public
        for index, token in enumerate(tokens):
            after = tokens[index + 1] if index + 1 < len(tokens) else None
            before = tokens[index - 1] if index else None
            if _is_public(token) and _names_schema(before, after, tokens[:2]) and not public():
                changes.append((token.start, token.end, "main"))
            elif token.kind is Kind.STRING and after is not None and after.text == "::" and _HEX.fullmatch(token.text):
                if index + 2 < len(tokens) and tokens[index + 2].key == "BYTEA":
                    changes.append((token.start, token.end, "from_hex('" + token.text.rpartition("x")[2] + ")"))
            elif (
                token.key in ("LOCAL", "GLOBAL")
                and tokens[0].key == "CREATE"
                and after is not None
                and after.key.startswith("TEMP")
            ):
                changes.append((token.start, after.start, ""))  # every temporary table is local
            elif token.key == "AT" and (after is None or after.key not in ("TIME", "LOCAL", "(")):
                changes.append((token.start, token.end, f'"{token.text}"'))  # a word that DuckDB has reserved
            elif token.key in _SERIALS and _is_column_type(tokens, index):
                default = f"{_SERIALS[token.key]} DEFAULT nextval({quote_string(_sequence(tokens, index))})"
                changes.append((token.start, token.end, default))
            elif token.key == "JSONB" and before is not None and (before.text == "::" or _is_column_type(tokens, index)):
                changes.append((token.start, token.end, "JSON"))
        return _changed(text, changes)

    def search_path(self, path: str) -> str | None:
        """DuckDB's search path for PostgreSQL's; None where nothing of it is here."""
        names = [name.strip().strip('"') for name in path.split(",")]
        known = ["main" if name == "public" and not self._has_public() else name for name in names if name and name != "$user"]
        return ",".join(name for name in known if name != "pg_catalog") or None

    def restore(self, error: Error, text: str) -> None:
        """An error about the changed text: its place is not one of what the client wrote."""
        error.span = None
        error.source = None


def _is_public(token: Token) -> bool:
    return token.kind in (Kind.WORD, Kind.QUOTED) and name_value(token).lower() == "public"


def _names_schema(before: Token | None, after: Token | None, first: list[Token]) -> bool:
    """Whether a name is a schema's: before a dot, or behind SCHEMA."""
    if after is not None and after.text == "." and (before is None or before.text != "."):
        return True
    return before is not None and before.key == "SCHEMA"


def _is_column_type(tokens: list[Token], index: int) -> bool:
    """``CREATE TABLE t (a jsonb)``, ``CAST(x AS jsonb)``, ``ADD COLUMN a jsonb``."""
    if tokens[index - 1].key == "AS":
        return True
    return tokens[0].key in ("CREATE", "ALTER") and tokens[index - 1].kind in (Kind.WORD, Kind.QUOTED)


def serial_sequences(text: str) -> list[str]:
    """The sequences that the ``serial`` columns of a CREATE TABLE need, which are made before it."""
    if not re.search(r"serial[248]?\b", text, re.IGNORECASE):
        return []
    tokens = list(scan(text))
    found = [i for i, token in enumerate(tokens) if token.key in _SERIALS and _is_column_type(tokens, i)]
    return [_sequence(tokens, index) for index in found if tokens[0].key == "CREATE"]


def _sequence(tokens: list[Token], index: int) -> str:
    """The sequence of a column, named as PostgreSQL names it: ``t_id_seq``; with the table's schema before it."""
    at = next((i for i, token in enumerate(tokens) if token.key == "TABLE"), 0) + 1
    while tokens[at].key in ("IF", "NOT", "EXISTS"):
        at += 1
    parts = [name_value(tokens[at])]
    while tokens[at + 1].text == ".":
        at += 2
        parts.append(name_value(tokens[at]))
    column = name_value(tokens[index - 1])
    schema = "".join(f"{quote_identifier('main' if part.lower() == 'public' else part)}." for part in parts[:-1])
    return schema + quote_identifier(f"{parts[-1]}_{column}_seq")


def _changed(text: str, changes: list[tuple[int, int, str]]) -> str:
    parts, at = [], 0
    for start, end, new in changes:
        parts += [text[at:start], new]
        at = end
    return "".join(parts) + text[at:]
