"""What the training rows look like, input by input: the rows of ML.FEATURE_INFO."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sqlml.features.dataset import Values
from sqlml.plan import InputColumn
from sqlml.types import Kind

if TYPE_CHECKING:
    from numpy.typing import NDArray


def feature_info(inputs: Iterable[InputColumn], column: Callable[[str], Values], rows: NDArray[np.int64]) -> list[dict[str, Any]]:
    """A row for each input, of the rows numbered ``rows`` of the canonical columns that ``column(name)`` gives; JSON values.

    ``input``; of numbers ``min``, ``max``, ``mean``, ``median``, ``stddev`` (of a sample; infinite values left out); of texts and
    booleans ``category_count``; ``null_count`` of all (NaN is NULL); of lists ``dimension``: the length of a vector, the number
    of different texts.  None where a figure makes no sense.  BigQuery's columns:
    https://cloud.google.com/bigquery/docs/reference/standard-sql/bigqueryml-syntax-feature
    """
    taken = pa.array(rows)
    return [_info(i, column(i.name).take(taken)) for i in inputs]


_FIGURES = ("min", "max", "mean", "median", "stddev", "category_count", "null_count", "dimension")


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
    known = known[np.isfinite(known)]
    if not len(known):
        return {}
    with np.errstate(over="ignore", invalid="ignore"):
        figures = {
            "min": known.min(),
            "max": known.max(),
            "mean": known.mean(),
            "median": np.median(known),
            "stddev": known.std(ddof=1) if len(known) > 1 else 0.0,
        }
    return {name: float(value) if np.isfinite(value) else None for name, value in figures.items()}
