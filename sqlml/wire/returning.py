"""RETURNING as a query that can be described: INSERT, UPDATE and DELETE are never run to find out what they would give."""

from __future__ import annotations

import re


def returning_query(text: str) -> str | None:
    """``SELECT … FROM table`` with the columns of a RETURNING; None where there is none, or it cannot be read."""
    if not re.search(r"(?i)\breturning\b", text):
        return None
    import sqlglot
    from sqlglot import exp

    try:
        tree = sqlglot.parse_one(re.sub(r"(\$\d+)", r"\1 ", text), read="postgres")
    except (sqlglot.errors.SqlglotError, RecursionError):
        return None
    returning = tree.args.get("returning")
    if returning is None:
        return None
    table = tree.this.this if isinstance(tree.this, exp.Schema) else tree.this
    columns = ", ".join(column.sql("duckdb") for column in returning.expressions)
    return f"SELECT {columns} FROM {table.sql('duckdb')}"  # noqa: S608
