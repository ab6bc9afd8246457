"""Questions to PostgreSQL's catalog: types, tables, functions, names."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from sqlml_dialect import quote_identifier
from sqlml_dialect.similar import nearest

from sqlml.engines.postgres.types import TypeInfo
from sqlml.errors import did_you_mean

Ask = Callable[..., list[tuple[Any, ...]]]

_TYPES = """
    SELECT t.oid::bigint, given.modifier, format_type(t.oid, given.modifier),
        t.typtype::text, t.typcategory::text, e.typtype::text
    FROM unnest($1::bigint[], $2::integer[]) AS given(number, modifier)
    JOIN pg_type t ON t.oid = given.number::oid LEFT JOIN pg_type e ON e.oid = t.typelem
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

_VISIBLE = f"""
    SELECT n.nspname::text, c.relname::text, pg_table_is_visible(c.oid) FROM pg_class c
    JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND {_OWN} AND has_schema_privilege(n.oid, 'USAGE')
    ORDER BY 3 DESC, 1, 2 LIMIT 5000
"""  # noqa: S608
_SCHEMAS = f"SELECT n.nspname::text FROM pg_namespace n WHERE {_OWN} AND has_schema_privilege(n.oid, 'USAGE') LIMIT 5000"  # noqa: S608

READABLE = frozenset("rpvmf")
"""``relkind`` of what can be read: tables, partitioned tables, views, materialised views, foreign tables."""


def type_infos(ask: Ask, types: Sequence[tuple[int, int]]) -> dict[tuple[int, int], TypeInfo]:
    """What types are that are not known here, by their numbers and modifiers; ``-1`` for no modifier."""
    if not types:
        return {}
    rows = ask(_TYPES, [[number for number, _ in types], [modifier for _, modifier in types]])
    return {(row[0], row[1]): TypeInfo(*row[2:]) for row in rows}


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


def near_relation(ask: Ask, name: str) -> str | None:
    """``did you mean customers?`` for a table that there is not, by its name as the server tells it: ``public.custmers``."""
    schema, _, table = name.rpartition(".")
    tables = ask(_VISIBLE)
    here = {
        found: _shown(owner, found, bool(schema)) for owner, found, visible in tables if (owner == schema if schema else visible)
    }
    elsewhere = [_shown(owner, found, True) for owner, found, _ in tables if found == table and found not in here]
    if elsewhere:
        return f"did you mean {elsewhere[0]}?"
    lowered = {found.lower(): shown for found, shown in reversed(here.items())}
    near = nearest(table, lowered)
    return f"did you mean {lowered[near]}?" if near else None


def near_schema(ask: Ask, name: str) -> str | None:
    """The same for a schema."""
    return did_you_mean(name, [row[0] for row in ask(_SCHEMAS)])


def _shown(schema: str, table: str, qualified: bool) -> str:
    """A table's name as it would be typed."""
    parts = (schema, table) if qualified else (table,)
    return ".".join(part if re.fullmatch("[a-z_][a-z0-9_]*", part) else quote_identifier(part) for part in parts)
