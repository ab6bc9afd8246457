"""What tests ask of an engine, and do to its server."""

from __future__ import annotations

from typing import Any

import psycopg

from sqlml.contracts import Stream
from sqlml.engines.postgres.engine import PostgresEngine

SERIES = "SELECT i, repeat('x', 100) AS x FROM generate_series(1, 400000) AS i"
"""Some 50 MB: more batches than are read ahead."""


def rows(stream: Stream) -> list[dict[str, Any]]:
    return [row for batch in stream.batches for row in batch.to_pylist()]


def values(engine: PostgresEngine, query: str, parameters: Any = ()) -> list[Any]:
    """The first row of a query."""
    [batch] = engine.run(query, parameters).batches
    return [column[0].as_py() for column in batch.columns]


def number(engine: PostgresEngine, query: str) -> int:
    """The one value of a query."""
    [value] = values(engine, query)
    return int(value)


def kill(engine: PostgresEngine, url: str, pid: int | None = None) -> None:
    """End the server's side of a connection."""
    pid = number(engine, "SELECT pg_backend_pid()") if pid is None else pid
    with psycopg.connect(url, autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))
