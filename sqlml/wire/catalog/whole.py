"""Queries that a driver sends whole, word for word, and that are better answered by another than rewritten.

Each is known by how it begins; what it selects, its parameters and their order are its driver's.
"""

from __future__ import annotations

import re

_ASYNCPG = """
WITH wanted AS (SELECT unnest($1::BIGINT[]) AS oid),
    found AS (SELECT oid, 0 AS depth FROM wanted UNION
        SELECT t.typelem, 1 FROM __pg.cat.types AS t JOIN wanted AS w ON w.oid = t.oid WHERE t.typelem <> 0)
SELECT t.oid, 'pg_catalog' AS ns, t.typname AS name, t.typtype AS kind, NULL::BIGINT AS basetype, t.typelem AS elemtype,
    e.typdelim AS elemdelim, NULL::BIGINT AS range_subtype, NULL::VARCHAR[] AS attrtypoids, NULL::VARCHAR[] AS attrnames,
    max(f.depth) AS depth, NULL::VARCHAR AS basetype_name, any_value(e.sql_name) AS elemtype_name,
    NULL::VARCHAR AS range_subtype_name
FROM found AS f JOIN __pg.cat.types AS t ON t.oid = f.oid LEFT JOIN __pg.cat.types AS e ON e.oid = t.typelem
GROUP BY t.oid, t.typname, t.typtype, t.typelem, e.typdelim ORDER BY depth DESC
"""
"""asyncpg.introspection.INTRO_LOOKUP_TYPES: the types of these numbers, and their elements' before them."""

_WHOLE = ((re.compile(r"\s*WITH RECURSIVE typeinfo_tree\("), _ASYNCPG),)


def whole_query(text: str) -> str | None:
    """What answers a known query; None where it is none of them."""
    return next((answer.strip() for begins, answer in _WHOLE if begins.match(text)), None)
