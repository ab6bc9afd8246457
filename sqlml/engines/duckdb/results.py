"""What DuckDB gives: columns, batches of rows, the rows it expects of a plan."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING, Any

import duckdb

from sqlml.engines.duckdb.errors import engine_error
from sqlml.engines.duckdb.types import kind_of_type
from sqlml.types import Column

if TYPE_CHECKING:
    import pyarrow as pa


def columns_of(names: Sequence[str], types: Sequence[Any]) -> tuple[Column, ...]:
    """Columns from DuckDB's names and types."""
    return tuple(
        Column(name, "NULL" if str(t) == '"NULL"' else str(t), kind_of_type(str(t))) for name, t in zip(names, types, strict=True)
    )


def whole(*batches: pa.RecordBatch) -> Generator[pa.RecordBatch, None, None]:
    """Batches that are all there, as a stream."""
    yield from batches


def guarded(
    reader: pa.RecordBatchReader, text: str, ended: Callable[[int], None] | None = None
) -> Generator[pa.RecordBatch, None, None]:
    """The reader's batches, with DuckDB's errors as ours; ``ended`` is told how many rows there were.  Whoever stops early closes
    it: until then the connection is taken.
    """
    import pyarrow as pa

    rows = 0
    try:
        while True:
            try:
                batch = reader.read_next_batch()
            except StopIteration:
                if ended is not None:
                    ended(rows)
                return
            except duckdb.Error as error:
                raise engine_error(error, text) from None
            except (pa.ArrowException, OSError, RuntimeError) as error:
                raise engine_error(error, text) from None
            rows += batch.num_rows
            if batch.num_rows:
                yield batch
    finally:
        reader.close()


def expected_rows(node: dict[str, Any]) -> int | None:
    """The estimate of a plan's operator.  One that says nothing, or 0 for a LIMIT, passes on what its only child gives."""
    name, info, children = node["name"], node["extra_info"], node["children"]
    if name == "EMPTY_RESULT":
        return 0
    limit = info.get("Limit" if "LIMIT" in name else "Top", "")
    told: int | None
    if "Estimated Cardinality" in info and "LIMIT" not in name:
        told = int(info["Estimated Cardinality"])
    else:
        told = expected_rows(children[0]) if len(children) == 1 else None
    return min(int(limit), told) if told is not None and limit.isdigit() else told
