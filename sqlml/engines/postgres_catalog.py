"""Questions to PostgreSQL's catalog: types, tables, functions, names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sqlml_dialect import quote_identifier

from sqlml.engines.postgres_types import TypeInfo

Ask = Callable[..., list[tuple[Any, ...]]]

_TYPES = """
    SELECT given, format_type(t.oid, NULL), t.typtype::text, t.typcategory::text, e.typtype::text
    FROM unnest($1::text[]) AS given
    JOIN pg_type t ON t.oid = CASE WHEN given LIKE 'unnamed<oid:%>' THEN substring(given FROM '[0-9]+')::oid
        ELSE to_regtype(quote_ident(given))::oid END
    LEFT JOIN pg_type e ON e.oid = t.typelem
"""
_RELATION = """
    SELECT n.nspname::text, c.relname::text, c.relkind::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.oid = to_regclass($1)::oid
"""
_COLUMNS = """
    SELECT attname::text, format_type(atttypid, atttypmod) FROM pg_attribute
    WHERE attrelid = to_regclass($1)::oid AND attnum > 0 AND NOT attisdropped ORDER BY attnum
"""
_BUILT_IN = """
    SELECT proname::text FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace
    UNION SELECT word FROM pg_get_keywords() WHERE catcode <> 'U'
"""
_FUNCTION = "SELECT 1 FROM pg_proc WHERE proname = $1 AND pg_function_is_visible(oid) LIMIT 1"
_OWN = "n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast') AND n.nspname NOT LIKE 'pg_temp%'"
_TABLES = f"""
    SELECT DISTINCT c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND {_OWN} ORDER BY 1
"""  # noqa: S608
_TABLE_COLUMNS = f"""
    SELECT DISTINCT a.attname::text FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
    JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND a.attnum > 0 AND NOT a.attisdropped AND {_OWN} ORDER BY 1
"""  # noqa: S608

READABLE = frozenset("rpvmf")
"""``relkind`` of what can be read: tables, partitioned tables, views, materialised views, foreign tables."""


def type_infos(ask: Ask, names: Sequence[str]) -> dict[str, TypeInfo]:
    """What types are that the driver does not know, by the driver's names for them."""
    return {row[0]: TypeInfo(*row[1:]) for row in ask(_TYPES, [list(names)])} if names else {}


def table_sql(parts: Sequence[str]) -> str:
    """A table's name as SQL."""
    return ".".join(quote_identifier(part) for part in parts)


def find_relation(ask: Ask, parts: Sequence[str]) -> tuple[str, str, str] | None:
    """Schema, name and ``relkind`` of what a name means, by the search path; None where there is nothing."""
    if len(parts) == 3:
        if ask("SELECT current_database()::text") != [(parts[0],)]:
            return None
        parts = parts[1:]
    if not 1 <= len(parts) <= 2:
        return None
    rows = ask(_RELATION, [table_sql(parts)])
    return (rows[0][0], rows[0][1], rows[0][2]) if rows else None


def table_columns(ask: Ask, parts: Sequence[str]) -> dict[str, str]:
    """The columns of a table: name → type."""
    return {row[0]: row[1] for row in ask(_COLUMNS, [table_sql(parts)])}


def built_in_functions(ask: Ask) -> frozenset[str]:
    """The server's own functions, and the words that can stand before a bracket without being one's name: ``VALUES (1)``."""
    return frozenset(row[0] for row in ask(_BUILT_IN))


def is_function(ask: Ask, name: str) -> bool:
    """Whether somebody has made a function of this name that is found without a schema."""
    return bool(ask(_FUNCTION, [name]))


def all_names(ask: Ask) -> dict[str, tuple[str, ...]]:
    """Tables and columns of the user's schemas."""
    return {key: tuple(row[0] for row in ask(text)) for key, text in (("tables", _TABLES), ("columns", _TABLE_COLUMNS))}
