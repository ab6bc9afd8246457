"""What the training rows look like, input by input: the rows of ML.FEATURE_INFO."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sqlml.errors import listing
from sqlml.features.dataset import Values, in_file_order, pieces_of, take
from sqlml.features.parallel import side_by_side
from sqlml.features.profile import sql_name
from sqlml.native.figures import NumberFigures, number_figures, numbers_between
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
    taken = in_file_order(rows)
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
    """The figures of a column of numbers, without a copy of it, and without Python's lock for the most part."""
    pieces = [piece for piece in map(_known, pieces_of(values)) if len(piece)]
    found = number_figures(pieces) or _by_numpy(pieces)
    counts = {"null_count": int(values.null_count) + found.absent, "infinite_count": found.infinite}
    if not found.known:
        return counts
    figures = {
        "min": found.low,
        "max": found.high,
        "mean": found.low if found.low == found.high else found.mean,
        "median": _median(pieces, found),
        "stddev": float(np.sqrt(found.squares / (found.known - 1))) if found.low < found.high else 0.0,
    }
    return {name: value if np.isfinite(value) else None for name, value in figures.items()} | counts


def _by_numpy(pieces: Sequence[NDArray[Any]]) -> NumberFigures:
    """The same where the native library was not built."""
    finite = [piece[np.isfinite(piece)] for piece in pieces]
    known, absent = sum(map(len, finite)), sum(int(np.isnan(piece).sum()) for piece in pieces)
    infinite = sum(map(len, pieces)) - known - absent
    if not known:
        return NumberFigures(0, absent, infinite, np.inf, -np.inf, 0.0, 0.0)
    whole = pa.chunked_array(finite)
    ends, squares = pc.min_max(whole).as_py(), pc.variance(whole).as_py() * known
    return NumberFigures(known, absent, infinite, ends["min"], ends["max"], pc.sum(whole).as_py() / known, squares)


def _median(pieces: Sequence[NDArray[Any]], figures: NumberFigures) -> float:
    """The exact median of the finite numbers.  Of many only those near it are sorted: where it lies is told by some of them
    (Floyd and Rivest, "Expected time bounds for selection", 1975).
    """
    n = figures.known
    if n > _FEW:
        some = np.concatenate([piece[:: n // _ENOUGH] for piece in pieces])
        some = np.sort(some[np.isfinite(some)])
        if len(some) > _ENOUGH // 10:  # else most of those that were picked are no numbers
            low, high = (some[int(part * len(some))] for part in (0.48, 0.52))
            inside, below = numbers_between(pieces, low, high) or _between(pieces, low, high)
            places = [(n - 1) // 2 - below, n // 2 - below]
            if places[0] >= 0 and places[1] < len(inside):
                return float(np.partition(inside, places)[places].mean(dtype=np.float64))
    values = np.concatenate(pieces).astype(np.float64)
    return float(np.median(values[np.isfinite(values)]))


def _between(pieces: Sequence[NDArray[Any]], low: float, high: float) -> tuple[NDArray[Any], int]:
    below = sum(int(((piece < low) & (piece > -np.inf)).sum()) for piece in pieces)
    return np.concatenate([piece[(piece >= low) & (piece <= high)] for piece in pieces]), below


def _known(values: pa.Array) -> NDArray[Any]:
    """What is not NULL."""
    return np.asarray((values.drop_null() if values.null_count else values).to_numpy(zero_copy_only=False))
