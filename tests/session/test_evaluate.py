"""EVALUATE MODEL: as a whole, by slice, by fold, of several targets."""

from __future__ import annotations

import statistics
from typing import Any

import pytest

import sqlml


def rows(connection: sqlml.Connection, query: str, values: Any = ()) -> list[dict[str, Any]]:
    cursor = connection.execute(query, values)
    names = [column[0] for column in cursor.description or ()]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def test_the_held_out_rows_are_measured_by_default(shared: sqlml.Connection) -> None:
    [found] = rows(shared, "EVALUATE MODEL buys")
    assert list(found)[:5] == ["model", "version", "rows", "roc_auc", "log_loss"]
    assert (found["model"], found["version"], found["rows"]) == ("buys", 1, 120)
    [other] = rows(shared, "EVALUATE MODEL buys WITH (threshold = 0.9)")
    assert other["log_loss"] == pytest.approx(found["log_loss"], abs=1e-9)
    assert other["recall"] < found["recall"]


def test_slices_come_in_order_and_null_is_one(shared: sqlml.Connection) -> None:
    found = rows(shared, "EVALUATE MODEL buys BY job AS FROM people")
    assert list(found[0])[:3] == ["job", "rows", "roc_auc"]
    assert [(row["job"], row["rows"]) for row in found] == [("clerk", 150), ("cook", 150), ('it\'s "ß"', 150), (None, 150)]
    two = rows(shared, "EVALUATE MODEL spends BY JOB, Old AS SELECT *, age > 50 AS old FROM people")
    assert list(two[0])[:4] == ["job", "old", "rows", "rmse"]
    assert len(two) == 8
    assert sum(row["rows"] for row in two) == 600


def test_a_slice_of_one_class_or_without_known_rows_has_null_figures(shared: sqlml.Connection) -> None:
    query = "SELECT * REPLACE (CASE WHEN job IS NULL THEN NULL ELSE bought END AS bought), age > 70 AS old FROM people"
    found = {row["old"]: row for row in rows(shared, f"EVALUATE MODEL buys BY old AS {query}")}
    assert found[True]["roc_auc"] is None
    assert found[True]["accuracy"] is not None
    unknown = rows(shared, f"EVALUATE MODEL buys BY job AS {query}")[-1]
    assert (unknown["job"], unknown["rows"], unknown["accuracy"]) == (None, 0, None)


def test_slices_of_the_held_out_rows_need_key_columns(connection: sqlml.Connection) -> None:
    with pytest.raises(sqlml.ProgrammingError, match=r"keeps no column job .* without KEY") as error:
        connection.execute("EVALUATE MODEL buys BY job")
    assert "EVALUATE MODEL buys@1 BY job AS SELECT" in str(error.value)
    connection.execute(
        "TRAIN MODEL keyed USING linear_regression TARGET spent EXCLUDE (bought) KEY id, job ON inline AS FROM people"
    )
    found = rows(connection, "EVALUATE MODEL keyed BY job")
    assert sum(row["rows"] for row in found) == 120
    with pytest.raises(sqlml.ProgrammingError, match="it keeps id, job"):
        connection.execute("EVALUATE MODEL keyed BY age")
    connection.execute("TRAIN MODEL g USING kmeans KEY job WITH (n_clusters = 2) ON inline AS SELECT age, job FROM people")
    with pytest.raises(sqlml.ProgrammingError, match="keeps no features"):
        connection.execute("EVALUATE MODEL g BY job")


def test_slices_that_cannot_be(shared: sqlml.Connection) -> None:
    with pytest.raises(sqlml.ProgrammingError, match="no column jbo") as error:
        shared.execute("EVALUATE MODEL buys BY jbo AS FROM people")
    assert "did you mean job?" in str(error.value)
    with pytest.raises(sqlml.ProgrammingError, match="too many slices"):
        shared.execute("EVALUATE MODEL buys BY n AS SELECT p.*, id * 2 + i AS n FROM people AS p, range(2) AS numbers(i)")


def test_weights_of_training_count_where_the_query_has_them(connection: sqlml.Connection) -> None:
    connection.execute("CREATE TABLE weighed AS SELECT age, spent, 1 + id % 5 AS w FROM people")
    connection.execute("TRAIN MODEL heavy USING linear_regression TARGET spent WEIGHT w ON inline AS FROM weighed")
    [found] = rows(connection, "EVALUATE MODEL heavy AS FROM weighed")
    query = "SELECT sqrt(sum(w * (spent - PREDICT(heavy)) ** 2) / sum(w)) AS rmse FROM weighed"
    assert found["rmse"] == pytest.approx(rows(connection, query)[0]["rmse"])
    [plain] = rows(connection, "EVALUATE MODEL heavy AS SELECT age, spent FROM weighed")
    assert plain["rmse"] != found["rmse"]
    with pytest.raises(sqlml.DataError, match="weight w is NULL, infinite or below 0 in 600 rows"):
        connection.execute("EVALUATE MODEL heavy AS SELECT age, spent, -1 AS w FROM weighed")


def test_several_targets_have_a_row_each(connection: sqlml.Connection) -> None:
    connection.execute("TRAIN MODEL both TARGET bought, spent EXCLUDE (id) KEY job ON inline AS FROM people")
    for query in ("EVALUATE MODEL both", "EVALUATE MODEL both AS FROM people", "EVALUATE MODEL both WITH (threshold = 0.7)"):
        found = rows(connection, query)
        assert list(found[0])[:4] == ["target", "model", "version", "rows"]
        assert [(row["target"], row["accuracy"] is None, row["rmse"] is None) for row in found] == [
            ("bought", False, True),
            ("spent", True, False),
        ]
    assert list(rows(connection, "EVALUATE MODEL both BY job")[0])[:3] == ["target", "job", "rows"]
    folds = rows(connection, "EVALUATE MODEL both WITH (folds = 2)")
    assert [(row["target"], row["fold"]) for row in folds][:5] == [
        ("bought", "1"), ("bought", "2"), ("bought", "mean"), ("bought", "stddev"), ("spent", "1"),
    ]  # fmt: skip


def test_cross_validation_measures_every_row_once(connection: sqlml.Connection) -> None:
    before = rows(connection, "SHOW VERSIONS OF spends")
    found = rows(connection, "EVALUATE MODEL spends WITH (folds = 4)")
    assert list(found[0])[:2] == ["fold", "rmse"]
    assert [row["fold"] for row in found] == ["1", "2", "3", "4", "mean", "stddev"]
    figures = [row["rmse"] for row in found[:4]]
    assert found[4]["rmse"] == pytest.approx(statistics.fmean(figures))
    assert found[5]["rmse"] == pytest.approx(statistics.stdev(figures))
    assert found == rows(connection, "EVALUATE MODEL spends WITH (folds = 4)")
    assert rows(connection, "SHOW VERSIONS OF spends") == before
    some = rows(connection, "EVALUATE MODEL spends WITH (folds = 2) AS SELECT * FROM people WHERE id < ?", (50,))
    assert some[2]["rmse"] != found[4]["rmse"]


def test_cross_validation_takes_the_values_that_training_was_given(connection: sqlml.Connection) -> None:
    train = "TRAIN MODEL young USING linear_regression TARGET spent ON inline AS SELECT age, spent FROM people WHERE age < ?"
    connection.execute(train, (30,))
    own = rows(connection, "EVALUATE MODEL young WITH (folds = 3)")
    given = rows(connection, "EVALUATE MODEL young WITH (folds = 3) AS SELECT age, spent FROM people WHERE age < 30")
    assert own == given


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("EVALUATE MODEL buys WITH (folds = 1)", "≥ 2 and ≤ 50"),
        ("EVALUATE MODEL buys WITH (folds = 3, threshold = 0.4)", "threshold and folds"),
        ("EVALUATE MODEL buys BY job WITH (folds = 3) AS FROM people", "by slice or by fold"),
        ("EVALUATE MODEL buys WITH (folds = 9) AS FROM people LIMIT 4", "9 folds need as many rows"),
        ("EVALUATE MODEL buys WITH (folds = 3) AS SELECT age FROM people", "must give bought"),
        ("EVALUATE MODEL buys WITH (folds = 3) AS SELECT age, bought FROM people", "needs columns"),
        ("EVALUATE MODEL buys WITH (fold = 3)", "did you mean folds"),
        ("EVALUATE MODEL spends WITH (threshold = 0.3)", "models of two classes"),
        ("EVALUATE MODEL buys AS SELECT * EXCLUDE (age) FROM people", "needs columns"),
        ("EVALUATE MODEL buys AS SELECT * EXCLUDE (bought) FROM people", "must give its target bought"),
        ("EVALUATE MODEL buys AS FROM people WHERE false", "no rows to evaluate on"),
        ("EVALUATE MODEL buys AS SELECT * REPLACE ('x' AS bought) FROM people", "none of the 600 rows"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_kept(shared: sqlml.Connection, statement: str, words: str) -> None:
    jobs = rows(shared, "SELECT count(*) AS n FROM sqlml.jobs")
    with pytest.raises(sqlml.Error, match=words) as error:
        shared.execute(statement)
    assert "^" in str(error.value)
    assert rows(shared, "SELECT count(*) AS n FROM sqlml.jobs") == jobs
