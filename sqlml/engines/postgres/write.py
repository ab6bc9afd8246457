"""Arrow batches into a table by binary COPY, in one transaction.

Rows that are still being read on the same connection are put into a file first: the session cannot COPY out and in at once.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from sqlml_dialect import quote_identifier

from sqlml.engines.postgres.catalog import find_relation, table_columns, table_sql
from sqlml.engines.postgres.encode import Encoding, encoded, encoding
from sqlml.engines.postgres.parameters import Bound
from sqlml.engines.postgres.runs import Runs
from sqlml.engines.spool import apart
from sqlml.errors import BindError, DatabaseError, OperationalError, count_of, listing

if TYPE_CHECKING:
    from concurrent.futures import Future

    import pyarrow as pa

CHUNK_BYTES = 16 * 2**20
"""Rows of one COPY; the next ones are made while the last are sent."""

_NO_TABLES = {"v": "view", "m": "materialized view", "f": "foreign table"}
SQL_TYPE = b"sqlml.sql_type"
"""In a field's metadata: the type that the column has in the database it comes from."""


def write_table(runs: Runs, parts: Sequence[str], schema: pa.Schema, batches: Iterable[pa.RecordBatch], mode: str) -> int:
    """Write rows into a table, all or nothing; how many there were.  ``mode`` as in ``Engine.write``."""
    columns = [encoding(field) for field in schema]
    with apart(schema, batches, runs.is_reading) as rows, runs.atomic():
        if mode == "append":
            return _append(runs, parts, columns, rows)
        old = _replaced(runs, parts) if mode == "replace" else None
        if old is not None and _is_free(runs, old):
            runs.execute(f"DROP TABLE {table_sql(old)}")  # first, so that what forbids it is told before rows are made
            old = None
        made = parts if old is None else (*parts[:-1], f"__sqlml_{uuid.uuid4().hex[:12]}")
        count = _fill(runs, made, schema, columns, rows)
        if old is not None:
            runs.execute(f"DROP TABLE {table_sql(old)}")
            runs.execute(f"ALTER TABLE {table_sql(made)} RENAME TO {quote_identifier(parts[-1])}")
        return count


def _replaced(runs: Runs, parts: Sequence[str]) -> Sequence[str] | None:
    """The table that is to be replaced, where there is one.  ``BindError`` for what is no table."""
    found = find_relation(runs.ask, parts)
    if found is None or (parts[0] == "pg_temp" and not found[0].startswith("pg_temp")):
        return None
    if found[2] in _NO_TABLES:
        raise BindError(f"{'.'.join(parts)} is a {_NO_TABLES[found[2]]}, not a table", hint="give another name after INTO")
    return found[:2]


def _is_free(runs: Runs, table: Sequence[str]) -> bool:
    """Whether nobody reads a table now.  The rows to be written may come from it, by another connection to the same database:
    to wait for that reader would be to wait for ourselves.
    """
    try:
        with runs.unharmed():
            runs.execute(f"LOCK TABLE {table_sql(table)} IN ACCESS EXCLUSIVE MODE NOWAIT")
    except OperationalError:
        return False
    except DatabaseError:  # what is not allowed is for DROP to say
        return True
    return True


def _fill(
    runs: Runs, parts: Sequence[str], schema: pa.Schema, columns: Sequence[Encoding], rows: Iterable[pa.RecordBatch]
) -> int:
    """A new table with its rows."""
    types = [_own_type(field, column) for field, column in zip(schema, columns, strict=True)]
    _create(runs, parts, columns, types)
    if all(column.fits(sql_type) for column, sql_type in zip(columns, types, strict=True)):
        return _copy(runs, parts, columns, rows)
    return _append(runs, parts, columns, rows)


def _own_type(field: pa.Field, column: Encoding) -> str:
    """The type that a column has in this database, where the field tells it."""
    told = (field.metadata or {}).get(SQL_TYPE, b"").decode()
    return column.sql_type if told in ("", "unknown", "record", "void", "cstring") or told.startswith(("pg_", "any")) else told


def _create(runs: Runs, parts: Sequence[str], columns: Sequence[Encoding], types: Sequence[str]) -> None:
    body = ", ".join(f"{quote_identifier(column.name)} {sql_type}" for column, sql_type in zip(columns, types, strict=True))
    runs.execute(f"CREATE TABLE {table_sql(parts)} ({body})")


def _append(runs: Runs, parts: Sequence[str], columns: Sequence[Encoding], rows: Iterable[pa.RecordBatch]) -> int:
    """COPY straight into a table of the same types, else by way of a temporary one and the server's casts."""
    have = table_columns(runs.ask, parts)
    if not have:
        runs.execute(f"SELECT 1 FROM {table_sql(parts)} LIMIT 0")  # noqa: S608 - the server's own words for what is wrong
    targets = [_target(column.name, have, parts) for column in columns]
    if all(column.fits(have[target]) for column, target in zip(columns, targets, strict=True)):
        return _copy(runs, parts, [column.named(target) for column, target in zip(columns, targets, strict=True)], rows)
    stage = ["pg_temp", f"__sqlml_{uuid.uuid4().hex[:12]}"]
    _create(runs, stage, columns, [column.sent for column in columns])
    count = _copy(runs, stage, columns, rows)
    into = ", ".join(quote_identifier(target) for target in targets)
    items = ", ".join(f"{quote_identifier(c.name)}::{have[target]}" for c, target in zip(columns, targets, strict=True))
    runs.execute(f"INSERT INTO {table_sql(parts)} ({into}) SELECT {items} FROM {table_sql(stage)}")  # noqa: S608
    runs.execute(f"DROP TABLE {table_sql(stage)}")
    return count


def _target(name: str, have: dict[str, str], parts: Sequence[str]) -> str:
    """The table's column of a name, letters' case aside where it is not there as it is."""
    if name in have:
        return name
    near = [column for column in have if column.lower() == name.lower()]
    if len(near) == 1:
        return near[0]
    raise BindError(
        f"the table {'.'.join(parts)} has no column {name}", hint=f"it has {count_of(len(have), 'column')}: {listing(have, 20)}"
    )


def _copy(runs: Runs, parts: Sequence[str], columns: Sequence[Encoding], rows: Iterable[pa.RecordBatch]) -> int:
    """COPY rows into a table that is there, in pieces of bounded size."""
    names = ", ".join(quote_identifier(column.name) for column in columns)
    text = f"COPY {table_sql(parts)} ({names}) FROM STDIN (FORMAT binary)"
    here = Bound("COPY", "", ours=True)
    count = 0
    before: Future[None] | None = None
    for chunk in _chunks(encoded(batch, columns) for batch in rows):
        if before is not None:
            runs.guard(here, lambda sent=before: runs.link.wait(sent))  # type: ignore[misc]
        runs.free()
        count += sum(batch.num_rows for batch in chunk)
        before = runs.link.copy_in(text, _binary(chunk))
    if before is not None:
        last = before
        runs.guard(here, lambda: runs.link.wait(last))
    return count


def _binary(chunk: Sequence[pa.RecordBatch]) -> Iterator[bytes]:
    """Batches of one schema in the form of COPY."""
    from pgpq import ArrowToPostgresBinaryEncoder

    encoder = ArrowToPostgresBinaryEncoder(chunk[0].schema)
    yield encoder.write_header()
    for batch in chunk:
        yield encoder.write_batch(batch)
    yield encoder.finish()


def _chunks(batches: Iterable[pa.RecordBatch]) -> Iterator[list[pa.RecordBatch]]:
    chunk: list[pa.RecordBatch] = []
    size = 0
    for batch in batches:
        if batch.num_rows:
            chunk.append(batch)
            size += batch.nbytes
        if size >= CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk
