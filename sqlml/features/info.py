"""What the training rows look like, input by input: the rows of ML.FEATURE_INFO."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sqlml.errors import listing
from sqlml.features.dataset import Values, pieces_of, take
from sqlml.features.parallel import side_by_side
from sqlml.features.profile import sql_name
from sqlml.plan import InputColumn
from sqlml.types import Kind

if TYPE_CHECKING:
    from numpy.typing import NDArray


def feature_info(
    inputs: Iterable[InputColumn], column: Callable[[str], Values], rows: NDArray[np.int64], threads: int = 1
) -> list[dict[str, Any]]:
    """A row for each input, of the rows numbered ``rows`` of the canonical columns that ``column(name)`` gives (or ``narrow``);
    JSON values.

    ``input``; of numbers ``min``, ``max``, ``mean``, ``median``, ``stddev`` (of a sample; infinite values left out) and
    ``infinite_count``; of texts and booleans ``category_count``; ``null_count`` of all (NaN is NULL); of lists ``dimension``: the
    length of a vector, the number of different texts.  None where a figure makes no sense.  BigQuery's columns:
    https://cloud.google.com/bigquery/docs/reference/standard-sql/bigqueryml-syntax-feature
    """
    taken = np.sort(rows)  # figures that do not depend on the order, read from the first row to the last
    return side_by_side(lambda i: _info(i, _taken(column(i.name), taken)), inputs, threads)


def infinite_notices(info: Iterable[Mapping[str, Any]]) -> list[str]:
    """What infinite numbers count as: an average, and so most algorithms, knows nothing larger."""
    columns = [str(row["input"]) for row in info if row.get("infinite_count")]
    if not columns:
        return []
    have, first = ("has" if len(columns) == 1 else "have"), sql_name(columns[0])
    return [
        f"{listing(columns)} {have} infinite values, which count as the largest float of 32 bits, 3.4e38: "
        f"CASE WHEN isfinite({first}) THEN {first} END makes them NULL"
    ]


_FEW = 100_000
"""Values of which the median is found at once."""
_ENOUGH = 10_000
"""Values that tell about where the median lies."""
_FIGURES = ("min", "max", "mean", "median", "stddev", "category_count", "null_count", "infinite_count", "dimension")


def _taken(values: Values, rows: NDArray[np.int64]) -> Values:
    """The values of rows in rising order."""
    return values if len(rows) == len(values) else take(values, rows)


def _info(column: InputColumn, values: Values) -> dict[str, Any]:
    info: dict[str, Any] = {"input": column.name, **dict.fromkeys(_FIGURES)}
    info["null_count"] = int(values.null_count)
    if column.kind is Kind.NUMBER:
        info |= _numbers(values)
    elif column.kind in (Kind.TEXT, Kind.BOOLEAN):
        info["category_count"] = int(pc.count_distinct(values, mode="only_valid").as_py())
    elif column.kind is Kind.NUMBERS:
        info["dimension"] = pc.max(pc.list_value_length(values)).as_py()
    elif column.kind is Kind.TEXTS:
        info["dimension"] = int(pc.count_distinct(pc.list_flatten(values), mode="only_valid").as_py())
    return info


def _numbers(values: Values) -> dict[str, Any]:
    """The figures of a column of numbers, by Arrow's own functions: no copy of it is made, and no lock of Python's is held."""
    rows, absent, total = len(values), int(values.null_count), pc.sum(values).as_py() or 0.0
    if not np.isfinite(total):
        absent = int(pc.sum(pc.is_null(values, nan_is_null=True)).as_py())
        values = values.filter(pc.is_finite(values))
        total = pc.sum(values).as_py() or 0.0
    pieces = [piece for piece in map(_known, pieces_of(values)) if len(piece)]
    n = sum(map(len, pieces))
    counts = {"null_count": absent, "infinite_count": rows - absent - n}
    if not n:
        return counts
    figures = {
        "min": min(piece.min() for piece in pieces),  # several times as fast as Arrow's
        "max": max(piece.max() for piece in pieces),
        "mean": total / n,
        "median": _median(values, pieces, n),
        "stddev": pc.stddev(values, ddof=1).as_py() if n > 1 else 0.0,
    }
    return {name: float(value) if np.isfinite(value) else None for name, value in figures.items()} | counts


def _median(values: Values, pieces: Sequence[NDArray[Any]], n: int) -> float:
    """The exact median of n finite numbers.  Of many only those near it are sorted: where it lies is told by some of them (Floyd
    and Rivest, "Expected time bounds for selection", 1975).
    """
    if n > _FEW:
        some = np.sort(np.concatenate([piece[:: n // _ENOUGH] for piece in pieces]))
        low, high = (pa.scalar(some[int(part * len(some))], values.type) for part in (0.48, 0.52))
        below = pc.sum(pc.less(values, low)).as_py() or 0
        inside = values.filter(pc.and_(pc.greater_equal(values, low), pc.less_equal(values, high)))
        near = np.sort(np.concatenate([_known(piece) for piece in pieces_of(inside)]))
        places = [(n - 1) // 2 - below, n // 2 - below]
        if places[0] >= 0 and places[1] < len(near):
            return float(near[places].mean(dtype=np.float64))
    return float(np.median(np.concatenate(pieces).astype(np.float64)))


def _known(values: pa.Array) -> NDArray[Any]:
    return np.asarray((values.drop_null() if values.null_count else values).to_numpy(zero_copy_only=False))
