"""Queries of the system catalog: made once for a server, rewritten for each query that mentions it."""

from __future__ import annotations

import re

from sqlml_dialect import quote_string
from sqlml_dialect.tokens import Kind, scan

from sqlml.session import Session
from sqlml.wire.catalog.install import DATABASE, statements
from sqlml.wire.catalog.tree import mentions_catalog, rewrite_tree
from sqlml.wire.catalog.whole import whole_query
from sqlml.wire.items import is_unnamed_item
from sqlml.wire.settings import SERVER_VERSION, Settings

_SIMPLE = re.compile(
    r"\b(version|current_schema|current_setting|current_schemas|set_config|current_user|session_user|current_role|current_catalog)\b",
    re.IGNORECASE,
)


class SystemCatalog:
    """The system catalog of one server's database."""

    def __init__(self, root: Session, name: str) -> None:
        self._root = root
        self._name = name
        root.install(DATABASE, statements(root.schema, lambda query: root.describe(query) or ()))
        self._main_is_public = not self._asks("SELECT 1 FROM duckdb_schemas() WHERE schema_name = 'public' AND NOT internal")

    def _asks(self, query: str) -> bool:
        _, result = self._root.execute(query)
        return any(batch.num_rows for batch in result.batches or ())

    def has_public(self) -> bool:
        """Whether the database has a schema called public of its own."""
        return not self._main_is_public

    def rewrite(self, text: str, settings: Settings) -> str:
        """A query of the catalog as DuckDB takes it; any other as it is."""
        if mentions_catalog(text):
            found = whole_query(text) or rewrite_tree(text, settings)
            if found is not None:
                return found
        return self._simple(text, settings) if _SIMPLE.search(text) else text

    def _simple(self, text: str, settings: Settings) -> str:
        """The functions that tell of the session, outside the catalog: replaced where they stand."""
        tokens = list(scan(text))
        parts, at, index = [], 0, 0
        while index < len(tokens):
            token = tokens[index]
            before = tokens[index - 1] if index else None
            following = "".join(t.text for t in tokens[index + 1 : index + 4])
            value: str | None = None
            length = 0
            if token.kind is Kind.WORD and (before is None or before.text != "."):
                value, length = _session_value(token.key, following, settings)
            if value is not None:
                alias = f" AS {token.text.lower()}" if is_unnamed_item(tokens, index, index + length) else ""
                parts += [text[at : token.start], value + alias]
                at = tokens[index + length].end
                index += length
            index += 1
        return "".join(parts) + text[at:]


def _session_value(key: str, following: str, settings: Settings) -> tuple[str | None, int]:
    """The SQL of what a word asks for, and how many tokens behind it belong to it."""
    if key == "VERSION" and following.startswith("()"):
        return quote_string(version_text()), 2
    if key == "CURRENT_SCHEMA":
        return "'public'", 2 if following.startswith("()") else 0
    if key in ("CURRENT_USER", "SESSION_USER", "CURRENT_ROLE"):
        return quote_string(settings.get("session_authorization")), 2 if following.startswith("()") else 0
    if key == "CURRENT_CATALOG":
        return "current_database()", 0
    match = re.fullmatch(r"\('([^']*)'\)", following)
    if key == "CURRENT_SETTING" and match and settings.knows(match[1]):
        return quote_string(settings.get(match[1])), 3
    return None, 0


def version_text() -> str:
    """What ``version()`` says."""
    from sqlml.version import __version__

    return f"PostgreSQL {SERVER_VERSION} (sqlml {__version__} on DuckDB)"
