"""Models as SQL: what DuckDB and PostgreSQL compute from the text, against what the model itself says."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
import sqlglot
from hypothesis import given, settings
from hypothesis import strategies as st

from sqlml.bundles.model import Model
from sqlml.errors import BindError, NotSupportedError
from sqlml.exports.samples import sample_rows
from sqlml.exports.sql import model_sql
from sqlml.exports.sql_check import largest_difference, sql_difference
from sqlml.exports.sql_trees import halfway_below
from tests.exports.made import make_model, people
from tests.servers import new_postgres

Case = tuple[str, tuple[Any, ...], dict[str, Any]]
CASES: dict[str, Case] = {
    "two classes": ("xgboost_classifier", ("no", "it's yes"), {"n_estimators": 8}),
    "three classes": ("xgboost_classifier", (1, 2, 3), {"n_estimators": 5}),
    "boosted values": ("xgboost_regressor", (), {"n_estimators": 25, "max_depth": 4}),
    "a log link": ("xgboost_regressor", (), {"objective": "count:poisson", "n_estimators": 5}),
    "a forest": ("random_forest_classifier", ("a", "b"), {"n_estimators": 8, "max_depth": 4}),
    "logistic": ("logistic_regression", (False, True), {}),
    "softmax": ("logistic_regression", ("a", "b", "c"), {}),
    "linear": ("linear_regression", (), {}),
    "clusters": ("kmeans", (), {"n_clusters": 4}),
    "one cluster": ("kmeans", (), {"n_clusters": 1}),
    "components": ("pca", (), {"n_components": 3}),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, bool], Model]:
    """A model of a case, fitted once."""
    kept: dict[tuple[str, bool], Model] = {}

    def make(case: str, dates: bool = False) -> Model:
        if (case, dates) not in kept:
            algorithm, classes, options = CASES[case]
            folder = tmp_path_factory.mktemp("model") / "bundle"
            table = people(dates=dates)
            kept[case, dates] = make_model(folder, algorithm, classes, table=table, onnx=False, **options)
        return kept[case, dates]

    return make


def run_duckdb(text: str, rows: pa.Table) -> pa.Table:
    with duckdb.connect() as connection:
        connection.register("rows_to_predict", rows)
        return connection.sql(text).to_arrow_table()


@pytest.mark.parametrize("dates", [False, True], ids=["plain", "dates"])
@pytest.mark.parametrize("case", CASES)
def test_duckdb_computes_the_same(made: Callable[[str, bool], Model], case: str, dates: bool) -> None:
    model = made(case, dates)
    rows = sample_rows(model, 300)
    found = run_duckdb(model_sql(model, keep=[]), rows)
    # a sum of collinear date parts magnifies the last bit
    assert largest_difference(model, rows, found) <= (1e-5 if dates and case == "linear" else 1e-6)


def test_answers_keep_the_inputs_and_have_names(made: Callable[[str, bool], Model]) -> None:
    model = made("two classes", False)
    rows = sample_rows(model, 20)
    found = run_duckdb(model_sql(model), rows)
    assert found.column_names == ["age", "balance", "select", "is Vip", "predicted_y", "probability_no", "probability_it's yes"]
    assert found.column("predicted_y").to_pylist() == model.predict(rows).to_pylist()
    kept = run_duckdb(model_sql(model, keep=["id", "age"]), rows.append_column("id", pa.array(range(20))))
    assert kept.column_names[:3] == ["id", "age", "predicted_y"]


def test_whole_numbers_of_a_forest_are_the_librarys_own(made: Callable[[str, bool], Model]) -> None:
    model = made("boosted values", False)
    rows = sample_rows(model, 300)
    assert largest_difference(model, rows, run_duckdb(model_sql(model, keep=[]), rows)) == 0.0


def test_nothing_to_predict_gives_nothing(made: Callable[[str, bool], Model]) -> None:
    model = made("three classes", False)
    assert run_duckdb(model_sql(model), sample_rows(model, 0)).num_rows == 0


def test_infinities_and_nan(made: Callable[[str, bool], Model]) -> None:
    for case in ("two classes", "boosted values", "logistic"):
        model = made(case, False)
        rows = sample_rows(model, 5).set_column(0, "age", pa.array([np.inf, -np.inf, np.nan, 1e300, -1e300]))
        assert largest_difference(model, rows, run_duckdb(model_sql(model, keep=[]), rows)) <= 1e-6


# --- thresholds -------------------------------------------------------------------------------------------------------


@given(st.floats(width=32, allow_nan=False, allow_infinity=False), st.integers(-3, 3))
def test_halfway_is_where_rounding_changes_sides(threshold: float, ulps: int) -> None:
    bound, included = halfway_below(np.float32(threshold))
    if np.isinf(bound):
        return
    value = bound
    for _ in range(abs(ulps)):
        value = float(np.nextafter(value, np.inf if ulps > 0 else -np.inf))
    assert bool(np.float32(value) < np.float32(threshold)) == (value <= bound if included else value < bound)


@pytest.mark.slow
@settings(max_examples=12, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["two classes", "boosted values"]))
def test_values_at_thresholds_and_beside_them(made: Callable[[str, bool], Model], seed: int, case: str) -> None:
    model = made(case, False)
    rows = sample_rows(model, 120, seed)
    random = np.random.default_rng(seed)
    for j, name in enumerate(["age", "balance"]):  # one double beside the float32 at or beside a threshold
        values = np.array([np.nan if v is None else v for v in rows[name].to_pylist()])
        beside = np.nextafter(values, np.where(random.random(120) < 0.5, np.inf, -np.inf))
        halves = values + (np.nextafter(values.astype(np.float32), np.float32(-np.inf)).astype(float) - values) / 2
        pick = random.integers(0, 3, 120)
        rows = rows.set_column(j, name, pa.array(np.choose(pick, [values, beside, halves]), from_pandas=True))
    assert largest_difference(model, rows, run_duckdb(model_sql(model, keep=[]), rows)) <= 1e-6


# --- PostgreSQL -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def postgres() -> Iterator[Any]:
    import psycopg

    for url in new_postgres():
        with psycopg.connect(url, autocommit=True) as connection:
            yield connection


_POSTGRES = {
    "double": "float8",
    "string": "text",
    "bool": "boolean",
    "date32[day]": "date",
    "time64[us]": "time",
    "timestamp[us, tz=UTC]": "timestamptz",
}


def run_postgres(connection: Any, text: str, rows: pa.Table) -> pa.Table:
    columns = ", ".join(f'"{f.name}" {_POSTGRES.get(str(f.type), "timestamp")}' for f in rows.schema)
    connection.execute("DROP TABLE IF EXISTS rows_to_predict")
    connection.execute(f"CREATE TABLE rows_to_predict (n serial, {columns})")
    names = ", ".join(f'"{name}"' for name in rows.column_names)
    with connection.cursor().copy(f"COPY rows_to_predict ({names}) FROM STDIN") as copy:
        for row in zip(*(column.to_pylist() for column in rows.columns), strict=True):
            copy.write_row(row)
    cursor = connection.execute(f"SELECT * FROM ({text.rstrip().removesuffix(';')}\n) AS s ORDER BY n")
    names_ = [d.name for d in cursor.description]
    found = cursor.fetchall()
    return pa.table({name: [row[i] for row in found] for i, name in enumerate(names_)}).drop_columns(["n"])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:XDG_RUNTIME_DIR")
@pytest.mark.parametrize("case", CASES)
def test_postgresql_computes_the_same(made: Callable[[str, bool], Model], postgres: Any, case: str) -> None:
    model = made(case, True)
    rows = sample_rows(model, 300)
    text = model_sql(model, dialect="postgresql", keep=["n"])
    assert largest_difference(model, rows, run_postgres(postgres, text, rows)) <= (1e-5 if case == "linear" else 1e-6)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:XDG_RUNTIME_DIR")
def test_postgresql_at_thresholds_infinities_and_nan(made: Callable[[str, bool], Model], postgres: Any) -> None:
    for case in ("two classes", "boosted values", "logistic"):
        model = made(case, False)
        rows = sample_rows(model, 300, seed=1)
        odd = [np.inf, -np.inf, np.nan, 1e300, -1e300, 5e-324, -0.0, *rows["age"].to_pylist()[7:]]
        rows = rows.set_column(0, "age", pa.array(odd))
        text = model_sql(model, dialect="postgres", keep=["n"])
        assert largest_difference(model, rows, run_postgres(postgres, text, rows)) <= 1e-6


# --- the text ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", ["snowflake", "bigquery", "spark", "mysql", "tsql", "sqlite", "redshift", "oracle", "trino"])
def test_every_dialect_can_be_written_and_parsed(made: Callable[[str, bool], Model], dialect: str) -> None:
    for case in ("two classes", "softmax", "clusters"):
        text = model_sql(made(case, False), dialect=dialect)
        assert sqlglot.parse_one(text, read=dialect) is not None


def test_sqlite_computes_the_same(made: Callable[[str, bool], Model]) -> None:
    """A database without floats of 32 bits: thresholds are exact all the same."""
    import sqlite3

    model = made("two classes", False)
    rows = sample_rows(model, 200)
    with sqlite3.connect(":memory:") as connection:
        connection.execute('CREATE TABLE rows_to_predict (age, balance, "select", "is Vip")')
        connection.executemany("INSERT INTO rows_to_predict VALUES (?, ?, ?, ?)", [tuple(r.values()) for r in rows.to_pylist()])
        found = connection.execute(model_sql(model, dialect="sqlite", keep=[])).fetchall()
    assert [row[0] for row in found] == model.predict(rows).to_pylist()
    assert np.abs(np.array([row[1:] for row in found]) - model.raw(rows)).max() < 1e-6


def test_plain_names_are_not_quoted_and_others_are(made: Callable[[str, bool], Model]) -> None:
    text = model_sql(made("logistic", False), dialect="snowflake")
    assert re.search(r"CAST\(age AS DOUBLE\)", text)
    assert '"select"' in text
    assert '"is Vip"' in text


def test_a_name_cannot_end_the_comment(made: Callable[[str, bool], Model]) -> None:
    text = model_sql(made("logistic", False), title="x\nDROP TABLE people; --")
    assert "\nDROP" not in text


def test_a_large_forest_is_refused_with_its_size(made: Callable[[str, bool], Model]) -> None:
    with pytest.raises(NotSupportedError, match=r"8 trees have \d+ nodes, more than max_nodes = 10"):
        model_sql(made("two classes", False), max_nodes=10)


def test_an_unknown_dialect_is_refused(made: Callable[[str, bool], Model]) -> None:
    with pytest.raises(BindError, match="unknown dialect snowflakes") as caught:
        model_sql(made("logistic", False), dialect="snowflakes")
    assert "did you mean snowflake?" in str(caught.value)


def test_what_is_written_was_tried(made: Callable[[str, bool], Model]) -> None:
    assert sql_difference(made("two classes", False), 1000) < 1e-6


# --- TRANSFORM --------------------------------------------------------------------------------------------------------

ITEMS = """
    ML.STANDARD_SCALER(age) OVER () AS age_s, ML.MIN_MAX_SCALER(balance) OVER () AS balance_m,
    ML.ROBUST_SCALER(balance / 10) OVER () AS balance_r, ML.IMPUTER(age, 'median') OVER () AS age_i,
    ML.BUCKETIZE(age, [30, 60]) AS age_b, ML.QUANTILE_BUCKETIZE(balance, 4) OVER () AS balance_q,
    ML.LABEL_ENCODER(job) OVER () AS job_l, lower(job) AS job_u, age * 2 + coalesce(balance, 0) AS mixed, mixed / 3 AS third,
    CASE WHEN job = 'cook' THEN age ELSE -1 END AS cook_age, round(balance / 7) AS sevenths
"""


def transformed(folder: Path, items: str, algorithm: str = "xgboost_classifier") -> Model:
    """A model with a TRANSFORM, trained the usual way."""
    import sqlml

    rows = people().rename_columns(["age", "balance", "job", "vip"])
    options = "WITH (n_estimators = 6) " if algorithm.startswith("xgboost") else ""
    with sqlml.connect(folder / "d.duckdb") as connection:
        connection.execute("CREATE TABLE p (age DOUBLE, balance DOUBLE, job VARCHAR, y BOOLEAN)")
        values = [[r["age"], r["balance"], r["job"], (r["age"] or 0) + len(r["job"] or "") > 50] for r in rows.to_pylist()]
        connection.cursor().executemany("INSERT INTO p VALUES (?, ?, ?, ?)", values)
        connection.execute(f"TRAIN MODEL m USING {algorithm} TARGET y TRANSFORM ({items}) {options}ON inline AS FROM p")
    [bundle] = (folder / "d.sqlml" / "bundles").iterdir()
    return Model.open(bundle)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:XDG_RUNTIME_DIR")
@pytest.mark.parametrize("algorithm", ["xgboost_classifier", "logistic_regression"])
def test_transform_is_part_of_the_query(tmp_path: Path, postgres: Any, algorithm: str) -> None:
    model = transformed(tmp_path, ITEMS, algorithm)
    source = people(seed=3).select(["age", "balance", "select"]).rename_columns(["age", "balance", "job"])
    found = run_duckdb(model_sql(model, keep=[]), source)
    assert largest_difference(model, source, found) <= 1e-6
    text = model_sql(model, dialect="postgres", keep=["n"])
    assert largest_difference(model, source, run_postgres(postgres, text, source)) <= 1e-6


@pytest.mark.slow
@pytest.mark.parametrize(
    ("items", "words"),
    [("ML.ONE_HOT_ENCODER(job) OVER () AS j", "ML.ONE_HOT_ENCODER"), ("ML.HASH_BUCKETIZE(job, 5) AS j", "ML.HASH_BUCKETIZE")],
)
def test_what_is_no_plain_sql_is_refused_by_name(tmp_path: Path, items: str, words: str) -> None:
    model = transformed(tmp_path, items)
    with pytest.raises(NotSupportedError, match=words):
        model_sql(model)
