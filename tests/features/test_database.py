"""The private database of TRANSFORM, and programs that somebody has changed."""

from __future__ import annotations

import json
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from sqlml.errors import BundleError
from sqlml.features import database
from sqlml.features.database import ComputeError, known_type, parse_expression
from sqlml.features.transform import Transform
from tests.features.transforms import fit, ready

COLUMNS = {"a": pa.array([1, 2]), "w": pa.array(["x", "y"])}


@pytest.mark.parametrize(
    ("sql", "why"),
    [
        ("1); SELECT (2", "one SELECT"),
        ("1) AS a; CREATE TABLE t AS (SELECT 1", "one SELECT"),
    ],
)
def test_only_one_select_runs(sql: str, why: str) -> None:
    rows = pa.table({"c": [1]})
    for run in (database.select, database.select_rows):
        with pytest.raises(ComputeError, match=why):
            run(f"SELECT ({sql})", rows)
    for text in ("CREATE TABLE t (i INT)", "PRAGMA version", "SET threads = 2", "ATTACH ':memory:' AS x", ""):
        with pytest.raises(ComputeError, match=why):
            database.select(text, rows)


def test_settings_are_locked() -> None:
    cursor = database._cursor()
    for setting in ("SET enable_external_access = true", "SET threads = 2", "SET lock_configuration = false"):
        with pytest.raises(duckdb.Error, match="locked"):
            cursor.execute(setting)
    found = cursor.execute("SELECT current_setting('TimeZone'), current_setting('enable_optimizer')").fetchall()
    assert found == [("UTC", False)]


@pytest.mark.parametrize("text", ["1) FROM (SELECT 2", "1), (2", "1) UNION (SELECT 2", "1) WHERE (true", "1); SELECT (2"])
def test_one_expression_is_no_more_than_that(text: str) -> None:
    with pytest.raises(ComputeError):
        parse_expression(text)


@pytest.mark.parametrize(
    "text",
    ["DOUBLE) FROM (SELECT 1", "DOUBLE), (1", "DOUBLE) + (1", "DOUBLE) AS x, (1", "DOUBLE); SELECT (1", "nothing", "", "1",
     "DECIMAL((SELECT 3), 2)"],
)  # fmt: skip
def test_a_type_is_no_more_than_that(text: str) -> None:
    assert known_type(text) is None


@pytest.mark.parametrize(
    ("text", "name"),
    [("float64", "DOUBLE"), ("DECIMAL(3, 2)", "DECIMAL(3,2)"), ("ENUM('a', 'b')", "ENUM('a', 'b')"), ("INT[3]", "INTEGER[3]"),
     ('STRUCT("a b" INT)[]', 'STRUCT("a b" INTEGER)[]'), ("MAP(INT, TEXT)", "MAP(INTEGER, VARCHAR)"),
     ("TIMESTAMP WITH TIME ZONE", "TIMESTAMP WITH TIME ZONE")],
)  # fmt: skip
def test_types_are_known(text: str, name: str) -> None:
    assert known_type(text) == name


def test_a_function_that_another_database_runs_for_a_stream_may_compute() -> None:
    transform = fit(["ln(a + 1) AS x", "ML.STANDARD_SCALER(a) OVER () AS s", "upper(w) AS u"], COLUMNS)

    def score(values: Any) -> Any:
        words = pa.array(["x"] * len(values))
        return transform.apply(ready({"a": values, "w": words}), len(values))["x"].cast(pa.float64())

    with duckdb.connect(config={"threads": 2}) as other:
        other.create_function("score", score, ["BIGINT"], "DOUBLE", type="arrow")  # type: ignore[call-overload]
        reader = other.sql("SELECT score(i) FROM range(20_000) t(i) UNION ALL SELECT score(3::BIGINT)").to_arrow_reader(1000)
        assert sum(batch.num_rows for batch in reader) == 20_001


# --- changed by somebody ----------------------------------------------------------------------------------------------


def change_select(document: dict[str, Any], field: str, value: Any) -> None:
    """Put a value into the first SELECT of a transform: into an expression, or into a column that it reads."""
    select = next(step for step in document["program"]["steps"] if step["step"] == "select")
    part = select["given" if field in ("cast", "kind_type") else "expressions"][0]
    part[field] = value


@pytest.mark.parametrize(
    ("field", "value", "why"),
    [
        ("sql", "1) FROM (SELECT 2", "not one expression"),
        ("sql", "1); CREATE TABLE t AS (SELECT 1", "cannot be used"),
        ("sql", "(SELECT 1)", "sub-query"),
        ("sql", "random()", "another value each time"),
        ("sql", "read_text('/etc/passwd')", "no function read_text"),
        ("sql", "sum(a)", "aggregate"),
        ("sql", "b + 1", "no column b"),
        ("sql_type", "DOUBLE) FROM (SELECT 1", "no type"),
        ("cast", "BIGINT) AS a FROM (SELECT 1 AS c0); DROP TABLE t; SELECT (1", "no type"),
        ("kind_type", "nothing", "no type"),
    ],
)
def test_a_changed_program_is_refused(field: str, value: str, why: str) -> None:
    document = json.loads(json.dumps(fit(["ln(a + 1) AS x", "x * 2 AS twice"], COLUMNS).to_json()))
    assert Transform.from_json(document).outputs
    change_select(document, field, value)
    with pytest.raises(BundleError, match=why) as caught:
        Transform.from_json(document)
    assert caught.value.hint is not None
    assert "do not trust" in caught.value.hint


def test_a_changed_program_inside_another_is_refused() -> None:
    inner = fit(["ln(a + 1) AS x"], COLUMNS).to_json()
    document = json.loads(json.dumps(fit(["prep(*)"], COLUMNS, frozen={"prep(*)": inner}).to_json()))
    nested = next(step for step in document["program"]["steps"] if step["step"] == "nested")
    change_select(nested["document"], "sql", "(SELECT 1)")
    with pytest.raises(BundleError, match="sub-query"):
        Transform.from_json(document)
