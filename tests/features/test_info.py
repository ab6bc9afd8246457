"""ML.FEATURE_INFO's rows: of the training rows alone."""

from __future__ import annotations

import datetime as dt
import json
import math

import numpy as np
import pyarrow as pa
import pytest

from sqlml.features.info import feature_info
from sqlml.plan import InputColumn
from sqlml.types import SQL_TYPE, Kind, arrow_type

COLUMNS = {
    "n": (Kind.NUMBER, [1.0, 2.0, None, 6.0, math.nan, math.inf, 1e9]),
    "t": (Kind.TEXT, ["a", "b", None, "a", "a", "b", "secret"]),
    "b": (Kind.BOOLEAN, [True, None, True, True, None, None, False]),
    "d": (Kind.DATE, [dt.date(2024, 1, 1), *[None] * 6]),
    "v": (Kind.NUMBERS, [[1.0, 2.0, 3.0], None, *[[1.0, 2.0, 3.0]] * 4, [1.0] * 9]),
    "s": (Kind.TEXTS, [["a", "b"], None, [], ["a", None], ["c"], [], ["secret"]]),
    "none": (Kind.NUMBER, [None] * 7),
}


def test_feature_info() -> None:
    inputs = [InputColumn(name, SQL_TYPE[kind], kind) for name, (kind, _) in COLUMNS.items()]
    arrays = {name: pa.array(values, arrow_type(kind)) for name, (kind, values) in COLUMNS.items()}
    rows = feature_info(inputs, arrays.__getitem__, np.arange(6))
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows
    found = {row["input"]: row for row in rows}
    names = ["input", "min", "max", "mean", "median", "stddev", "category_count", "null_count", "infinite_count", "dimension"]
    assert all(list(row) == names for row in rows)
    assert [found["n"][k] for k in names[1:5]] == [1, 6, 3, 2]
    assert found["n"]["stddev"] == pytest.approx(np.std([1, 2, 6], ddof=1))
    assert found["t"]["category_count"] == 2
    assert found["b"]["category_count"] == 1
    assert (found["v"]["dimension"], found["s"]["dimension"]) == (3, 3)
    assert [found[name]["null_count"] for name in COLUMNS] == [2, 1, 3, 5, 1, 1, 6]
    assert [found[name]["infinite_count"] for name in ("n", "none", "t")] == [1, 0, None]
    assert found["none"]["min"] is found["d"]["mean"] is found["t"]["min"] is None
    chunked = {name: pa.chunked_array([v.slice(0, 2), v.slice(2)]) for name, v in arrays.items()}
    assert feature_info(inputs, chunked.__getitem__, np.arange(6)) == rows


@pytest.mark.parametrize("n", [100_001, 250_000])
@pytest.mark.parametrize("shape", ["smooth", "few values", "sorted", "two heaps", "gaps", "gaps of a period", "mostly infinite"])
def test_the_median_of_many_numbers_is_exact(n: int, shape: str) -> None:
    generator = np.random.default_rng(n)
    values = generator.lognormal(sigma=3, size=n)
    if shape == "few values":
        values = np.floor(values) % 3
    elif shape == "sorted":
        values.sort()
    elif shape == "two heaps":  # with nothing where the median of an even number lies
        values = np.concatenate([values[: n // 2], 1e6 + values[n // 2 :]])
    elif shape == "gaps":
        values[generator.random(n) < 0.3] = np.nan
    elif shape == "gaps of a period":  # each value that is picked to tell where the median lies
        values[:: (n * 9 // 10) // 10_000 or 1] = np.nan
        values[:: n // 10_000] = np.inf
    elif shape == "mostly infinite":
        values[50:] = np.where(np.arange(n - 50) % 10 > 0, -np.inf, values[50:])
    input_ = InputColumn("x", "DOUBLE", Kind.NUMBER)
    (row,) = feature_info([input_], lambda _: pa.array(values), np.arange(n))
    assert row["median"] == np.median(values[np.isfinite(values)])
