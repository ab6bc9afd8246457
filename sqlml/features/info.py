"""What the training rows look like, input by input: the rows of ML.FEATURE_INFO."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sqlml.features.dataset import Values
from sqlml.features.parallel import side_by_side
from sqlml.plan import InputColumn
from sqlml.types import Kind

if TYPE_CHECKING:
    from numpy.typing import NDArray


def feature_info(
    inputs: Iterable[InputColumn], column: Callable[[str], Values], rows: NDArray[np.int64], threads: int = 1
) -> list[dict[str, Any]]:
    """A row for each input, of the rows numbered ``rows`` of the canonical columns that ``column(name)`` gives; JSON values.

    ``input``; of numbers ``min``, ``max``, ``mean``, ``median``, ``stddev`` (of a sample; infinite values left out); of texts and
    booleans ``category_count``; ``null_count`` of all (NaN is NULL); of lists ``dimension``: the length of a vector, the number
    of different texts.  None where a figure makes no sense.  BigQuery's columns:
    https://cloud.google.com/bigquery/docs/reference/standard-sql/bigqueryml-syntax-feature
    """
    taken = pa.array(np.sort(rows))  # figures that do not depend on the order, read from the first row to the last
    return side_by_side(lambda i: _info(i, _taken(column(i.name), taken)), inputs, threads)


_FEW = 100_000
"""Values of which the median is found at once."""
_FIGURES = ("min", "max", "mean", "median", "stddev", "category_count", "null_count", "dimension")


def _taken(values: Values, rows: pa.Array) -> Values:
    """The values of rows in rising order."""
    return values if len(rows) == len(values) else values.take(rows)


def _info(column: InputColumn, values: Values) -> dict[str, Any]:
    info: dict[str, Any] = {"input": column.name, **dict.fromkeys(_FIGURES)}
    info["null_count"] = int(values.null_count)
    if column.kind is Kind.NUMBER:
        info["null_count"] = int(pc.sum(pc.is_null(values, nan_is_null=True)).as_py() or 0)
        info |= _numbers(values)
    elif column.kind in (Kind.TEXT, Kind.BOOLEAN):
        info["category_count"] = int(pc.count_distinct(values, mode="only_valid").as_py())
    elif column.kind is Kind.NUMBERS:
        info["dimension"] = pc.max(pc.list_value_length(values)).as_py()
    elif column.kind is Kind.TEXTS:
        info["dimension"] = int(pc.count_distinct(pc.list_flatten(values), mode="only_valid").as_py())
    return info


def _numbers(values: Values) -> dict[str, float | None]:
    known = np.asarray(values.to_numpy(zero_copy_only=False), np.float64)
    finite = np.isfinite(known)
    known = known if finite.all() else known[finite]
    if not len(known):
        return {}
    with np.errstate(over="ignore", invalid="ignore"):
        figures = {
            "min": known.min(),
            "max": known.max(),
            "mean": known.mean(),
            "median": _median(known),
            "stddev": known.std(ddof=1) if len(known) > 1 else 0.0,
        }
    return {name: float(value) if np.isfinite(value) else None for name, value in figures.items()}


def _median(values: NDArray[np.float64]) -> float:
    """The exact median (n,).  Of many values only those near it are sorted: where it lies is told by some of them (Floyd and
    Rivest, "Expected time bounds for selection", 1975).
    """
    n = len(values)
    if n <= _FEW:
        return float(np.median(values))
    some = np.sort(values[:: n // 10_000])
    low, high = some[int(0.47 * len(some))], some[int(0.53 * len(some))]
    below = int(np.count_nonzero(values < low))
    near = np.sort(values[(values >= low) & (values <= high)])
    places = [(n - 1) // 2 - below, n // 2 - below]
    if places[0] < 0 or places[1] >= len(near):
        return float(np.median(values))
    return float(near[places].mean())
