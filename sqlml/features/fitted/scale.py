"""Numbers to numbers: scalers, imputation, norms.  NULL and NaN stay missing; only finite values are learnt from."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sqlml.features.fitted.base import (
    Analytic,
    Apply,
    Options,
    Parameter,
    Scalar,
    State,
    Takes,
    finite,
    flat_list,
    floats,
    numbers,
    quantiles,
    shown,
    word_counts,
)

_MISSING = "NULL in every training row"


class _Scaler(Analytic):
    """(x - shift) / scale, NULL everywhere where no training row had a number."""

    takes = Takes.NUMBER
    value = "numerical_expression"
    parameters: tuple[Parameter, ...] = ()

    def result(self, options: Options, fields: Sequence[str], given: pa.DataType) -> str:
        return "DOUBLE"

    def bind(self, options: Options, state: State) -> Apply:
        shift, scale = state["shift"], state["scale"]
        if shift is None:
            return lambda values: pa.nulls(len(values), pa.float64())
        return lambda values: _scaled(floats(values), shift, scale)


def _scaled(
    values: np.typing.NDArray[np.float64], shift: float, scale: float, low: float = -np.inf, high: float = np.inf
) -> pa.Array:
    """(values - shift) / scale, kept from ``low`` to ``high``; NULL for NaN."""
    with np.errstate(over="ignore", invalid="ignore"):
        return numbers(np.clip((values - shift) / scale, low, high))


class StandardScaler(_Scaler):
    """(x - mean) / standard deviation; 0 where the column does not vary.

    The deviation is that of a sample (divided by n - 1): BigQuery's example prints -1.2649110640673518 for the 1 of 1 … 5.

    https://cloud.google.com/bigquery/docs/reference/standard-sql/bigqueryml-syntax-standard-scaler
    """

    name = "STANDARD_SCALER"

    def fit(self, values: pa.Array, options: Options) -> State:
        known = finite(values)
        if not len(known):
            return {"shift": None, "scale": None}
        deviation = float(known.std(ddof=1)) if len(known) > 1 else 0.0
        constant = known.min() == known.max()
        mean = float(known[0]) if constant else float(known.mean())
        return {"shift": mean, "scale": 1.0 if constant else deviation or 1.0, "deviation": 0.0 if constant else deviation}

    def describe(self, options: Options, state: State) -> str:
        if state["shift"] is None:
            return _MISSING
        return f"mean {shown(state['shift'])}, standard deviation {shown(state['deviation'])}"


class MinMaxScaler(_Scaler):
    """(x - min) / (max - min), below 0 set to 0 and above 1 to 1, at prediction too.  A column that does not vary becomes 0.

    https://cloud.google.com/bigquery/docs/reference/standard-sql/bigqueryml-syntax-min-max-scaler
    """

    name = "MIN_MAX_SCALER"

    def fit(self, values: pa.Array, options: Options) -> State:
        known = finite(values)
        if not len(known):
            return {"shift": None, "scale": None}
        low, high = float(known.min()), float(known.max())
        return {"shift": low, "scale": high - low or 1.0, "high": high}

    def bind(self, options: Options, state: State) -> Apply:
        if state["shift"] is None:
            return super().bind(options, state)
        shift, scale = state["shift"], state["scale"]
        return lambda values: _scaled(floats(values), shift, scale, 0.0, 1.0)

    def describe(self, options: Options, state: State) -> str:
        return _MISSING if state["shift"] is None else f"from {shown(state['shift'])} to {shown(state['high'])}"


class MaxAbsScaler(_Scaler):
    """x / max(|x|).

    https://cloud.google.com/bigquery/docs/reference/standard-sql/bigqueryml-syntax-max-abs-scaler
    """

    name = "MAX_ABS_SCALER"

    def fit(self, values: pa.Array, options: Options) -> State:
        known = finite(values)
        largest = float(np.abs(known).max()) if len(known) else None
        return {"shift": None if largest is None else 0.0, "scale": largest or 1.0}

    def describe(self, options: Options, state: State) -> str:
        return _MISSING if state["shift"] is None else f"largest {shown(state['scale'])}"


class RobustScaler(_Scaler):
    """(x - median) / (upper quantile - lower quantile), either part left out where told so.

    Quantiles are values of the data, as in BigQuery's example (scikit-learn's RobustScaler interpolates between them).
    https://cloud.google.com/bigquery/docs/reference/standard-sql/bigqueryml-syntax-robust-scaler
    """

    name = "ROBUST_SCALER"
    parameters: tuple[Parameter, ...] = (
        Parameter("quantile_range", "ints", (25, 75), low=1, high=99),
        Parameter("with_median", "bool", True),
        Parameter("with_quantile_range", "bool", True),
    )

    def check(self, options: Options) -> None:
        given = options["quantile_range"]
        if len(given) != 2 or given[0] >= given[1]:
            raise ValueError("quantile_range is two percentages, the lower one first, such as [25, 75]")

    def fit(self, values: pa.Array, options: Options) -> State:
        known = finite(values)
        if not len(known):
            return {"shift": None, "scale": None}
        low, median, high = quantiles(known, [options["quantile_range"][0] / 100, 0.5, options["quantile_range"][1] / 100])
        return {
            "shift": median if options["with_median"] else 0.0,
            "scale": _divisor(high - low, float(np.abs(known - median).max())) if options["with_quantile_range"] else 1.0,
        }

    def describe(self, options: Options, state: State) -> str:
        if state["shift"] is None:
            return _MISSING
        parts = [f"median {shown(state['shift'])}"] if options["with_median"] else []
        return ", ".join([*parts, f"quantile range {shown(state['scale'])}"] if options["with_quantile_range"] else parts)


def _divisor(spread: float, furthest: float) -> float:
    """A range of values to divide by; 1 where there is none, or one so small that the furthest value would have no quotient."""
    return spread if spread and math.isfinite(furthest / spread) else 1.0


class Imputer(Analytic):
    """NULL (and NaN) to the mean, the median or the most frequent value; of equally frequent ones the smallest.

    The median is a value of the data, as the quantiles of ML.ROBUST_SCALER are.
    https://cloud.google.com/bigquery/docs/reference/standard-sql/bigqueryml-syntax-imputer
    """

    name = "IMPUTER"
    takes = Takes.NUMBER_OR_TEXT
    value = "expression"
    parameters: tuple[Parameter, ...] = (
        Parameter("strategy", "str", required=True, choices=("mean", "median", "most_frequent")),
    )

    def result(self, options: Options, fields: Sequence[str], given: pa.DataType) -> str:
        if not pa.types.is_string(given):
            return "DOUBLE"
        if options["strategy"] != "most_frequent":
            raise ValueError(f"a text has no {options['strategy']}: use 'most_frequent'")
        return "VARCHAR"

    def fit(self, values: pa.Array, options: Options) -> State:
        if pa.types.is_string(values.type):
            ranked = sorted((-count, word) for word, count in word_counts(values))
            return {"value": ranked[0][1] if ranked else None}
        known = finite(values)
        if not len(known):
            return {"value": None}
        if options["strategy"] == "mean":
            return {"value": float(known.mean())}
        if options["strategy"] == "median":
            return {"value": quantiles(known, [0.5])[0]}
        distinct, counts = np.unique(known, return_counts=True)
        return {"value": float(distinct[counts.argmax()])}

    def bind(self, options: Options, state: State) -> Apply:
        value = state["value"]

        def apply(values: pa.Array) -> pa.Array:
            if value is None:
                return values
            if pa.types.is_string(values.type):
                return pc.fill_null(values, pa.scalar(value, pa.string()))
            known = floats(values)
            return pa.array(np.where(np.isnan(known), value, known))

        return apply

    def describe(self, options: Options, state: State) -> str:
        value = state["value"]
        if value is None:
            return _MISSING
        return f"NULL becomes {value if isinstance(value, str) else shown(value)}"


class Normalizer(Scalar):
    """Each list divided by its p-norm (p = 0: the number of elements that are not 0); a list of zeros stays as it is.

    https://cloud.google.com/bigquery/docs/reference/standard-sql/bigqueryml-syntax-normalizer
    """

    name = "NORMALIZER"
    takes = Takes.NUMBERS
    value = "array_expression"
    parameters: tuple[Parameter, ...] = (Parameter("p", "float", 2.0),)

    def check(self, options: Options) -> None:
        p = options["p"]
        if not (p == 0 or p >= 1):
            raise ValueError(f"p is 0, 1 or more, or 'inf'::DOUBLE, not {p:g}")

    def result(self, options: Options, fields: Sequence[str], given: pa.DataType) -> str:
        return "DOUBLE[]"

    def bind(self, options: Options, state: State) -> Apply:
        norm = _norm(float(options["p"]))

        def apply(values: pa.Array) -> pa.Array:
            flat, rows, _ = flat_list(values)
            elements = floats(flat)
            norms = norm(np.abs(np.nan_to_num(elements, posinf=np.inf, neginf=-np.inf)), rows, len(values))
            scaled = numbers(elements / np.where(norms == 0, 1.0, norms)[rows])
            lengths = np.bincount(rows, minlength=len(values))
            offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
            return pa.ListArray.from_arrays(offsets, scaled, mask=values.is_null() if values.null_count else None)

        return apply


_Norm = Callable[["np.typing.NDArray[np.float64]", "np.typing.NDArray[np.int64]", int], "np.typing.NDArray[np.float64]"]


def _norm(p: float) -> _Norm:
    """A function from elements, the row of each, and n to the norm of each row (n,)."""

    def largest(size: np.typing.NDArray[np.float64], rows: np.typing.NDArray[np.int64], n: int) -> np.typing.NDArray[np.float64]:
        found = np.zeros(n)
        np.maximum.at(found, rows, size)
        return found

    def norm(size: np.typing.NDArray[np.float64], rows: np.typing.NDArray[np.int64], n: int) -> np.typing.NDArray[np.float64]:
        if p == 0:
            return np.bincount(rows, (size != 0).astype(float), n).astype(np.float64)
        most = largest(size, rows, n)  # taken out first, so that powers neither overflow nor vanish
        most[most == 0] = 1.0
        return np.asarray(most * np.bincount(rows, (size / most[rows]) ** p, n) ** (1 / p))

    return largest if np.isinf(p) else norm
