"""What a misspelt table or schema of Spark's may have meant."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any

from sqlml.errors import did_you_mean
from sqlml.spark_common.text import quote_parts

_MISSING = re.compile(r"The (?P<kind>table or view|schema) (?P<name>(?:`(?:[^`]|``)+`\.?)+) cannot be found")
_PART = re.compile(r"`((?:[^`]|``)+)`")


def near_relation(session: Any, message: str) -> str | None:
    """``did you mean default.customers?`` for an error about a table or a schema that there is not."""
    match = _MISSING.search(message)
    if match is None:
        return None
    parts = [part.replace("``", "`") for part in _PART.findall(match["name"])]
    with suppress(Exception):  # only advice: the error itself is told whatever becomes of it
        if match["kind"] == "schema":
            return _qualified(parts[:-1], did_you_mean(parts[-1], _schemas(session)))
        schema = parts[:-1]
        if len(schema) == 1 and schema[0] not in _schemas(session):
            near = did_you_mean(schema[0], _schemas(session))
            return near[:-1] + f".{parts[-1]}?" if near else None
        return _qualified(schema, did_you_mean(parts[-1], _tables(session, schema)))
    return None


def _qualified(schema: list[str], near: str | None) -> str | None:
    return near.replace("mean ", f"mean {'.'.join(schema)}.") if near and schema else near


def _schemas(session: Any) -> list[str]:
    return [str(row[0]) for row in session.sql("SHOW SCHEMAS").collect()]


def _tables(session: Any, schema: list[str]) -> list[str]:
    place = f" IN {quote_parts(schema)}" if schema else ""
    return [str(row["tableName"]) for row in session.sql(f"SHOW TABLES{place}").collect()]
