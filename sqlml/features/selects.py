"""SELECTs of a program, run in the private database over columns by slot."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa

from sqlml.errors import DataError
from sqlml.features import database
from sqlml.features.dataset import Values
from sqlml.features.program import Select

_PLAIN = (pa.float64(), pa.int64(), pa.bool_(), pa.string(), pa.date32(), pa.list_(pa.float64()), pa.list_(pa.string()))
"""The types whose values pass through Python and back unchanged."""
_FEW = 8
"""So few rows come back faster as Python values."""


def run_select(
    step: Select, values: Callable[[str], Values], n: int, error: type[DataError], what: str = "TRANSFORM"
) -> dict[str, Values]:
    """What a SELECT computes for n rows, by slot.  ``error`` says that ``what`` cannot compute a row."""
    columns = {f"c{i}": values(g.slot) for i, g in enumerate(step.given)} or {"c": pa.nulls(n, pa.int8())}
    rows = pa.table(columns)
    slots = [e.slot or "" for e in step.wanted]
    try:
        if 0 < n <= _FEW and step.types:
            found = _select_few(step, rows, slots)
            if found is not None:
                return found
        table = database.select(step.sql, rows)
        if not step.types and all(_passes(field.type) for field in table.schema):
            step.types[:] = [field.type for field in table.schema]  # at once: other threads may do the same
    except database.ComputeError as failure:
        message = str(failure).split("\n")[0].split(": ", 1)[-1]
        raise error(
            f"{what} cannot compute a row: {message}",
            hint="TRY_CAST(… AS …) and TRY(…) give NULL where a value cannot be computed",
            about="transform",
        ) from None
    return dict(zip(slots, table.columns, strict=True))


def _passes(arrow: pa.DataType) -> bool:
    return all(_passes(inner.type) for inner in arrow) if pa.types.is_struct(arrow) else arrow in _PLAIN


def _select_few(step: Select, rows: pa.Table, slots: list[str]) -> dict[str, Values] | None:
    """The same for a few rows.  None where a value does not pass through Python: a date beyond its years."""
    try:
        columns = zip(*database.select_rows(step.sql, rows), strict=True)
        return {slot: pa.array(column, arrow) for slot, column, arrow in zip(slots, columns, step.types, strict=True)}
    except (OverflowError, ValueError, TypeError):
        return None
