"""What TRANSFORM refuses, in which words and at which place, and what it says of rows that cannot be computed."""

from __future__ import annotations

import datetime as dt
import pickle
from typing import Any

import pyarrow as pa
import pytest

from sqlml.errors import BindError, DataError, TrainingDataError
from sqlml.features.transform import TransformError
from tests.features.transforms import fit, item, one, plan, ready

ERRORS = {
    "sum(age)": ("sum() is an aggregate: it looks at several rows", "ML.STANDARD_SCALER(x) OVER ()", "sum"),
    "wavg(age, age)": ("an aggregate looks at several rows", "one row", None),
    "row_number() OVER ()": ("row_number() OVER looks at several rows", "an ML function with OVER ()", "row_number"),
    "avg(age) OVER (ORDER BY age)": ("avg() OVER looks at several rows", "one row", "avg"),
    "unnest([age])": ("unnest makes several rows of one", "list functions", "unnest"),
    "(SELECT max(x) FROM t)": ("a sub-query cannot stand in TRANSFORM", "where there is no database", None),
    "age IN (SELECT 1)": ("a sub-query cannot stand in TRANSFORM", "join in the query", None),
    "flor(age)": ("there is no function flor", "did you mean floor?\nTRANSFORM runs again at every prediction", "flor"),
    "my_macro(age)": ("there is no function my_macro", "it can only use the database's own functions", "my_macro"),
    "random() + age": ("random gives another value each time", "the same row must always get the same features", "random"),
    "now()": ("now gives another value each time", "compute it in the query behind AS", "now"),
    "current_date": ("current_date gives another value each time", "as a column", "current_date"),
    "age(day)": ("age gives another value each time", "as a column", "age"),
    "ML.STANDARD_SCALER(age)": ("ML.STANDARD_SCALER needs OVER () behind it", "write ML.STANDARD_SCALER(…) OVER ()", None),
    "1 + ML.NORMALIZER([age]) OVER ()": ("ML.NORMALIZER takes no OVER ()", "one row at a time", "OVER ()"),
    "ML.MIN_MAX_SCALER(age) OVER (PARTITION BY job)": ("OVER must be empty", "all training rows", "OVER (PARTITION BY job)"),
    "ML.STANDART_SCALER(age) OVER ()": (
        "there is no function ML.STANDART_SCALER for TRANSFORM",
        "did you mean ML.STANDARD_SCALER?",
        "ML.STANDART_SCALER",
    ),
    "ML.XYZ(age)": ("there is no function ML.XYZ for TRANSFORM", "there are: ML.STANDARD_SCALER, ML.MIN_MAX_SCALER", "ML.XYZ"),
    "ML.STANDARD_SCALER(job) OVER ()": (
        "ML.STANDARD_SCALER takes a number, and job is VARCHAR",
        "TRY_CAST(job AS DOUBLE) would make it one",
        "job",
    ),
    "ML.TF_IDF(job) OVER ()": ("ML.TF_IDF takes a list of texts, and job is VARCHAR", "string_split(job, ' ')", "job"),
    "ML.FEATURE_CROSS(job)": ("ML.FEATURE_CROSS takes a STRUCT of texts, and job is VARCHAR", "write STRUCT(a, b)", "job"),
    "ML.FEATURE_CROSS(STRUCT(job))": ("ML.FEATURE_CROSS: it takes 2 to 10 features, and the STRUCT has 1", "", None),
    "ML.FEATURE_CROSS(STRUCT(upper(job), age))": ("a field of STRUCT needs a name", "STRUCT(expression AS name, …)", None),
    "ML.ONE_HOT_ENCODER(job, 'mode') OVER ()": (
        "drop is one of 'none', 'most_frequent', not 'mode'",
        "",
        "'mode'",
    ),
    "ML.ONE_HOT_ENCODER(job, top => 3) OVER ()": ("ML.ONE_HOT_ENCODER has no argument top", "did you mean top_k?", "3"),
    "ML.ONE_HOT_ENCODER(job, 'none', 'x') OVER ()": ("top_k is a whole number, not 'x'", "", "'x'"),
    "ML.ONE_HOT_ENCODER(job, 'none', 0) OVER ()": ("top_k is 1 to 999999, not 0", "", "0"),
    'ML.ONE_HOT_ENCODER(job, "none") OVER ()': ('drop is a text between single quotes, not "none"', "", '"none"'),
    "ML.STANDARD_SCALER(age, 3) OVER ()": (
        "ML.STANDARD_SCALER takes no argument 3",
        "write ML.STANDARD_SCALER(numerical_expression) OVER ()",
        "3",
    ),
    "ML.IMPUTER(age) OVER ()": ("ML.IMPUTER needs strategy", "write ML.IMPUTER(expression, strategy) OVER ()", None),
    "ML.IMPUTER(job, 'mean') OVER ()": ("ML.IMPUTER: a text has no mean: use 'most_frequent'", "", None),
    "ML.BUCKETIZE()": ("ML.BUCKETIZE needs a number", "write ML.BUCKETIZE(numerical_expression, array_split_points [, ", None),
    "ML.BUCKETIZE(age, [3, 2])": (
        "ML.BUCKETIZE: array_split_points is a list of finite numbers, lowest first, each once",
        "",
        None,
    ),
    "ML.BUCKETIZE(age, age)": ("array_split_points is a list of numbers such as [1, 2], not age", "", None),
    "ML.NORMALIZER([age], 0.5)": ("ML.NORMALIZER: p is 0, 1 or more, or 'inf'::DOUBLE, not 0.5", "", None),
    "ML.ROBUST_SCALER(age, [75, 25]) OVER ()": ("ML.ROBUST_SCALER: quantile_range is two percentages", "", None),
    "ML.HASH_BUCKETIZE(job, -1)": ("hash_bucket_size is 0 to 2.14748e+09, not -1", "", "-1"),
    "agee + 1": ("there is no column agee", "did you mean age?", "agee"),
    "ML.STANDARD_SCALER(agee) OVER ()": ("there is no column agee", "did you mean age?", "agee"),
    "ML.BUCKETIZE(ML.STANDARD_SCALER(agee + 1) OVER (), [0])": ("there is no column agee", "did you mean age?", "agee"),
    'job = "admin"': ("there is no column admin", "between single quotes: 'admin'", '"admin"'),
    "t.age": ("there are no tables in TRANSFORM, only columns", "write age", None),
    "t.*": ("there are no tables in TRANSFORM, only columns", "write * for all columns", None),
    "y": ("y is the target, and no feature can use it", "", "y"),
    "age +": ('syntax error at or near ")"', "", None),
    "(age": ("this ( is never closed", "", "("),
    "'age": ("this string is never closed", "", "'"),
    "?": ("a parameter cannot stand in TRANSFORM", "becomes part of the model", None),
    "COLUMNS('a.*')": ("columns cannot be chosen by a pattern here", "name the columns", None),
    "* EXCLUDE (agge)": ("there is no column agge", "did you mean age?", "agge"),
    "* EXKLUDE (age)": ("unknown part of a star EXKLUDE", "did you mean EXCLUDE?", "EXKLUDE"),
    "* REPLACE (agee + 1 AS age)": ("there is no column agee", "did you mean age?", "agee"),
    "sin(job)": ("No function matches the given name and argument types 'sin(VARCHAR)'", "", None),
    "i": ("i is of a type that no model can use (INTERVAL)", "in the query", "i"),
    "to_days(age)": ("to_days_age would be of a type that no model can use (INTERVAL)", "extract(epoch FROM …)", None),
    "job::BLOB": ("job_blob would be of a type that no model can use (BLOB)", "", None),
    "map {job: age}": ("map_job_age would be of a type that no model can use (MAP", "m['key']", None),
    "[{'index': age, 'other': 1}] AS l": (
        "l would be of a type that no model can use (STRUCT(",
        "a list of numbers or of texts",
        None,
    ),
}


@pytest.mark.parametrize("text", ERRORS)
def test_errors(text: str) -> None:
    message, hint, marked = ERRORS[text]
    columns = {"age": pa.array([1]), "job": pa.array(["1"]), "day": pa.array([dt.date(2024, 1, 1)]), "i": pa.array([{"x": 1}])}
    with pytest.raises(TransformError) as caught:
        plan(["job", text], columns, others={"y": "the target"})
    error = caught.value
    assert error.message.startswith(message)
    assert hint in (error.hint or "")
    assert error.item == 1
    assert error.source == item(text).text
    if marked is not None:
        assert error.span is not None
        assert error.source[slice(*error.span)] == marked
    assert isinstance(error, BindError)
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.item) == (str(error), error.item)


@pytest.mark.parametrize(
    ("texts", "hint"),
    [
        (["age + 1 AS x", "age + 2 AS X"], "name one with AS"),
        (["ML.MAX_ABS_SCALER(age) OVER () AS age", "*"], "leave it out of the star: * EXCLUDE (age)"),
        (["*", "age"], "* EXCLUDE (age)"),
        (["*", "*"], "* EXCLUDE (age)"),
        (["age", "age"], "name one with AS"),
    ],
)
def test_the_same_name_twice(texts: list[str], hint: str) -> None:
    with pytest.raises(TransformError, match="two features are called") as caught:
        plan(texts, {"age": pa.array([1]), "job": pa.array(["1"])})
    assert hint in (caught.value.hint or "")
    assert caught.value.item == 1


def test_rows_that_cannot_be_computed() -> None:
    columns = {"w": pa.array(["1", "x"])}
    with pytest.raises(TrainingDataError, match="TRANSFORM cannot compute a row: Could not convert string 'x'"):
        fit(["w::INTEGER AS n"], columns)
    transform = fit(["w::INTEGER AS n"], columns, [0])
    with pytest.raises(DataError, match="TRANSFORM cannot compute a row") as caught:
        transform.apply(ready(columns), 2)
    assert "TRY_CAST" in (caught.value.hint or "")
    assert one("TRY_CAST(w AS INTEGER)", columns) == [1, None]


def test_nothing_outside_can_be_reached(tmp_path: Any) -> None:
    (tmp_path / "x.txt").write_text("secret")
    for text in (f"read_text('{tmp_path}/x.txt')", "getenv('HOME')", "current_setting('threads')", "nextval('s')"):
        with pytest.raises(TransformError):
            plan([text], {"age": pa.array([1])})


def test_it_goes_on_after_an_error() -> None:
    columns = {"w": pa.array(["1", "x", "2"])}
    transform = fit(["w::INTEGER AS n"], columns, [0])
    for n in (3, 2, 3):
        with pytest.raises(DataError):
            transform.apply({"w": ready(columns)["w"].slice(0, n)}, n)
        assert transform.apply({"w": ready(columns)["w"].slice(2, 1)}, 1)["n"].to_pylist() == [2]
