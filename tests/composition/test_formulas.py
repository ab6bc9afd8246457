"""Expressions as numpy functions give exactly what the database does, or nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sqlml.composition.formulas import evaluate, make_formula
from sqlml.features.database import select

TYPES = {"a": "DOUBLE", "b": "DOUBLE", "busy": "BOOLEAN", "job": "VARCHAR"}
COLUMNS: dict[str, Any] = {
    "a": np.array([0.25, 0.1, -3.0, 0.3]),
    "b": np.array([0.5, 0.2, 7.0, 0.1]),
    "busy": np.array([True, False, True, False]),
    "job": np.array(["cook", "clerk", "", "it's"], object),
}


def in_database(sql: str, columns: dict[str, Any], sql_type: str) -> list[Any]:
    rows = pa.table({name: pa.array(values.tolist()) for name, values in columns.items()})
    [column] = select(f"SELECT CAST(({sql}) AS {sql_type}) AS x FROM __rows", rows).columns
    return list(column.to_pylist())


@pytest.mark.parametrize(
    "sql",
    [
        "(a + b) / 2",
        "0.6 * a + 0.4 * b",
        "(1 - 0.4) * a - -b",
        "1 / 3 * a",
        "0.1 + 0.2 + a",
        "1.5e-3 * a",
        "greatest(a, b, 0.15)",
        "least(a, abs(b))",
        "CASE WHEN a > 0.5 THEN 1 WHEN a = b THEN 2 ELSE b END",
        "CASE WHEN busy AND NOT (a >= b OR job = 'cook') THEN 'yes' ELSE job END",
        "a > b AND b <> 0.2",
        "a::DOUBLE + CAST(b AS DOUBLE)",
        "job = 'it''s'",
        "CASE WHEN b = 0 THEN 0 ELSE a / b END",
        "3",
    ],
)
def test_formulas_of_the_kinds_that_there_are(sql: str) -> None:
    formula = make_formula(sql, TYPES)
    assert formula is not None
    values = evaluate(formula, COLUMNS, 4)
    assert values is not None
    assert values.tolist() == in_database(sql, COLUMNS, formula.sql_type)


@pytest.mark.parametrize(
    "sql",
    ["a // 2", "a % 2", "sqrt(a)", "round(a)", "a || 'x'", "CASE WHEN busy THEN a END", "a::INTEGER", "a IS NULL", "job > 'a'",
     "a + busy", "unknown + 1", "a.b", "[a, b]", "coalesce(a, b)", "a + 0.12345678901234567", "a + ln(b)",
     "CASE WHEN busy THEN a ELSE job END", "lower(job)", "(SELECT 1)",
     "0.1 * CASE WHEN busy THEN 0.1 ELSE 0.5 END", "greatest(0.1, CASE WHEN busy THEN 0.3 ELSE 0.5 END) - 0.1"],
)  # fmt: skip
def test_what_has_no_formula_is_left_to_the_database(sql: str) -> None:
    assert make_formula(sql, TYPES) is None


@pytest.mark.parametrize("sql", ["a / b", "a * 1e300 * 1e300", "a - b / 0.0"])
def test_a_number_that_is_no_longer_finite_is_left_to_the_database(sql: str) -> None:
    formula = make_formula(sql, TYPES)
    assert formula is not None
    assert evaluate(formula, {"a": np.array([1.0]), "b": np.array([0.0])}, 1) is None


NUMBERS = st.floats(-1e6, 1e6, allow_nan=False).map(lambda x: x + 0.0)
LEAVES = st.sampled_from(["a", "b", "0.5", "2", "0.1"])
SUMS = st.recursive(
    LEAVES,
    lambda inner: (
        st.tuples(inner, st.sampled_from("+-*/"), inner).map(lambda t: f"({t[0]} {t[1]} {t[2]})")
        | st.tuples(inner, inner, inner, inner).map(lambda t: f"CASE WHEN {t[0]} < {t[1]} THEN {t[2]} ELSE {t[3]} END")
        | st.tuples(inner, inner).map(lambda t: f"greatest({t[0]}, {t[1]})")
    ),
    max_leaves=6,
)


@settings(max_examples=60, deadline=None)
@given(sql=SUMS, a=NUMBERS, b=NUMBERS)
def test_formulas_never_differ_from_the_database(sql: str, a: float, b: float) -> None:
    formula = make_formula(sql, TYPES)
    columns = {"a": np.array([a]), "b": np.array([b])}
    values = None if formula is None else evaluate(formula, columns, 1)
    if formula is not None and values is not None:
        assert values.tolist() == in_database(sql, columns, formula.sql_type)
