"""TRAIN's further clauses from the statement to the answer: several targets, TRANSFORM, SPLIT, TUNE, WARM START, limits."""

from __future__ import annotations

import json
from typing import Any

import pytest

import sqlml


def train(connection: sqlml.Connection, clauses: str, query: str = "FROM people", values: Any = ()) -> sqlml.Cursor:
    return connection.execute(f"TRAIN MODEL m {clauses} ON inline AS {query}", values)


def answer(cursor: sqlml.Cursor) -> list[dict[str, Any]]:
    names = [column.name for column in cursor.description or ()]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def version(connection: sqlml.Connection, name: str = "m") -> dict[str, Any]:
    """The newest version's row."""
    return answer(connection.execute(f"SELECT * FROM sqlml.versions WHERE model = '{name}' ORDER BY version DESC LIMIT 1"))[0]


def inputs(connection: sqlml.Connection) -> list[str]:
    rows = connection.execute("SELECT name FROM sqlml.inputs WHERE model = 'm' ORDER BY version, position").fetchall()
    return [name for (name,) in rows]


def test_several_targets(connection: sqlml.Connection) -> None:
    cursor = train(connection, "TARGET bought, spent KEY id WITH (n_estimators = 3)")
    rows = answer(cursor)
    assert [(row["target"], row["algorithm"]) for row in rows] == [
        ("bought", "xgboost_classifier"),
        ("spent", "xgboost_regressor"),
    ]
    assert rows[0]["roc_auc"] is not None
    assert rows[0]["rmse"] is None
    assert rows[1]["rmse"] is not None
    assert cursor.footer == "held-out: 120 rows (RANDOM 0.2, seed 0)"
    both = connection.execute("SELECT PREDICT(m) FROM people LIMIT 1").fetchone()
    assert both is not None
    assert set(both[0]) == {"bought", "spent"}
    names = connection.execute("SELECT DISTINCT metric FROM sqlml.metrics WHERE model = 'm'").fetchall()
    assert {("bought.roc_auc",), ("spent.rmse",)} <= set(names)


def test_split_by_and_time(connection: sqlml.Connection) -> None:
    query = "SELECT *, CASE id % 4 WHEN 0 THEN 'test' WHEN 1 THEN 'validation' ELSE 'train' END AS part FROM people"
    cursor = train(connection, "TARGET bought KEY id EXCLUDE (spent) SPLIT BY part WITH (n_estimators = 3)", query)
    assert cursor.footer == "held-out: 150 rows (BY part)"
    assert "part says which rows are held out: it is no feature" in cursor.notices
    assert "part" not in inputs(connection)
    cursor = train(connection, "TARGET bought EXCLUDE (spent) SPLIT TIME id 0.25 WITH (n_estimators = 3)")
    assert cursor.footer == "held-out: 150 rows (TIME id 0.25)"
    with pytest.raises(sqlml.DataError) as caught:
        train(connection, "TARGET bought SPLIT BY job")
    assert str(caught.value).startswith("SPLIT BY job does not understand ")
    assert caught.value.span is not None
    with pytest.raises(sqlml.DataError, match="too few different values"):
        train(connection, "TARGET bought SPLIT TIME one", "SELECT *, 1 AS one FROM people")


def test_transform(connection: sqlml.Connection) -> None:
    items = "ML.STANDARD_SCALER(balance) OVER () AS rich, age * ? AS older, job, bought"
    train(connection, f"TARGET bought TRANSFORM ({items}) WITH (n_estimators = 3)", values=[2])
    assert sorted(inputs(connection)) == ["age", "balance", "job"]
    assert connection.execute("SELECT count(PREDICT(m)) FROM people").fetchone() == (600,)
    with pytest.raises(sqlml.ProgrammingError) as caught:
        train(connection, "TARGET bought TRANSFORM (job, balanc * 2 AS b)")
    assert caught.value.span is not None
    assert (caught.value.source or "")[slice(*caught.value.span)] == "balanc"
    with pytest.raises(sqlml.DataError, match="TRANSFORM cannot compute a row") as failed:
        train(connection, "TARGET bought TRANSFORM (CAST(job AS INTEGER) AS j)")
    assert (failed.value.source or "")[slice(*(failed.value.span or (0, 0)))] == "CAST(job AS INTEGER)"


@pytest.mark.parametrize("call", ["prep(*)", "PREDICT(prep)", "prep@1(*)", "PREDICT(prep@1)", '"prep@1"(*)'])
def test_models_that_only_transform(connection: sqlml.Connection, call: str) -> None:
    cursor = connection.execute(
        "TRAIN MODEL prep USING transform_only TRANSFORM (ML.STANDARD_SCALER(balance) OVER () AS rich, job) "
        "ON inline AS FROM people"
    )
    [row] = answer(cursor)
    assert (row["columns"], row["rows"]) == ("rich, job", 600)
    assert cursor.footer == "fitted on 600 rows"
    train(connection, f"TARGET bought TRANSFORM ({call}, age) WITH (n_estimators = 3)")
    assert sorted(inputs(connection)) == ["age", "balance", "job"]
    before = connection.execute("SELECT PREDICT_PROBA(m, 'yes') FROM people ORDER BY id LIMIT 5").fetchall()
    connection.execute("DROP MODEL prep")
    assert connection.execute("SELECT PREDICT_PROBA(m, 'yes') FROM people ORDER BY id LIMIT 5").fetchall() == before


def test_calls_that_a_transform_cannot_have(connection: sqlml.Connection) -> None:
    train(connection, "TARGET bought EXCLUDE (id, spent) WITH (n_estimators = 2)")
    connection.execute("TRAIN MODEL prep USING transform_only TRANSFORM (age) ON inline AS FROM people")
    for items, message, place in (
        ("PREDICT(m)", "TRANSFORM can call models trained with USING transform_only alone", "m"),
        ("job, prep(*) + 1 AS p", "in TRANSFORM a model is called by itself", "prep(*)"),
        ("prep@7(*)", "model prep has no version 7", "prep@7(*)"),
    ):
        with pytest.raises(sqlml.ProgrammingError, match=message.replace("(", r"\(")) as caught:
            train(connection, f"TARGET bought TRANSFORM ({items})")
        assert (caught.value.source or "")[slice(*(caught.value.span or (0, 0)))] == place


def test_tune(connection: sqlml.Connection) -> None:
    clauses = "TARGET bought EXCLUDE (id, spent) TUNE (max_depth IN (1, 4), learning_rate IN (0.1, 0.3)) WITH (n_estimators = 4)"
    cursor = train(connection, clauses)
    assert any(notice.startswith("TUNE: max_depth = ") for notice in cursor.notices)
    trials = answer(connection.execute("SELECT * FROM sqlml.trials WHERE model = 'm' ORDER BY trial"))
    assert len(trials) == 4
    [chosen] = [trial for trial in trials if trial["chosen"]]
    options = json.loads(version(connection)["options"])
    tried = chosen["options"] if isinstance(chosen["options"], dict) else json.loads(chosen["options"])
    assert tried.items() <= options.items()


def test_tune_with_ranges_in_a_process(connection: sqlml.Connection) -> None:
    cursor = connection.execute(
        "TRAIN MODEL m TARGET bought EXCLUDE (id, spent) TUNE (learning_rate BETWEEN 0.01 AND ? LOG) TRIALS 3 "
        "WITH (n_estimators = 3) AS FROM people",
        [0.5],
    )
    assert answer(cursor)[0]["version"] == 1
    assert connection.execute("SELECT count(*) FROM sqlml.trials WHERE model = 'm'").fetchone() == (3,)


def test_warm_start(connection: sqlml.Connection) -> None:
    usual = "TARGET bought EXCLUDE (id, spent) WITH (n_estimators = 3)"
    train(connection, usual, "FROM people WHERE id < 400")
    train(connection, f"{usual} WARM START FROM m@1")
    assert version(connection)["algorithm"] == "xgboost_classifier"
    assert connection.execute("SELECT max(step) FROM sqlml.curves WHERE model = 'm' AND version = 2").fetchone() == (6,)
    for clauses, message, place in (
        ("TARGET spent EXCLUDE (id, bought) WARM START FROM m", "WARM START needs the same target", "m"),
        ("TARGET bought EXCLUDE (id) WARM START FROM m", "WARM START needs the inputs of m@2: spent is new", "m"),
        ("TARGET bought EXCLUDE (id, spent, age) WARM START FROM m", "age is missing", "m"),
        (
            "USING logistic_regression TARGET bought EXCLUDE (id, spent) WARM START FROM m",
            "WARM START needs the same algorithm: m@2 was trained with xgboost_classifier",
            "logistic_regression",
        ),
        ("TARGET bought TRANSFORM (age, job, balance) WARM START FROM m", "WARM START needs the TRANSFORM of m@2", "m"),
        ("TARGET bought WARM START FROM nope", "unknown model nope", "nope"),
    ):
        with pytest.raises(sqlml.ProgrammingError, match=message) as caught:
            train(connection, clauses)
        assert (caught.value.source or "")[slice(*(caught.value.span or (0, 0)))] == place
    with pytest.raises(sqlml.DataError, match="WARM START cannot add classes") as failed:
        train(
            connection, f"{usual} WARM START FROM m", "SELECT * REPLACE (if(id % 9 = 0, 'maybe', bought) AS bought) FROM people"
        )
    assert (failed.value.source or "")[slice(*(failed.value.span or (0, 0)))] == "m"


def test_algorithms_that_cannot_go_on(connection: sqlml.Connection) -> None:
    train(connection, "USING linear_regression TARGET spent EXCLUDE (id, bought)")
    with pytest.raises(sqlml.ProgrammingError, match="linear_regression cannot go on from an earlier version") as caught:
        train(connection, "TARGET spent EXCLUDE (id, bought) WARM START FROM m")
    assert "xgboost_classifier" in (caught.value.hint or "")


def test_class_weights(connection: sqlml.Connection) -> None:
    usual = "USING logistic_regression TARGET bought EXCLUDE (id, spent)"
    train(connection, f"{usual} WITH (class_weight = {{'yes': 50}})")
    many = connection.execute("SELECT count(*) FROM people WHERE PREDICT(m) = 'yes'").fetchone()
    train(connection, f"{usual} WITH (class_weight = {{'no': 50}})")
    few = connection.execute("SELECT count(*) FROM people WHERE PREDICT(m) = 'yes'").fetchone()
    assert many is not None
    assert few is not None
    assert many > few
    with pytest.raises(sqlml.ProgrammingError, match="class_weight names the class yse") as caught:
        train(connection, f"{usual} WITH (class_weight = {{'yse': 50}})")
    assert caught.value.hint == "did you mean yes?"
    assert (caught.value.source or "")[slice(*(caught.value.span or (0, 0)))].startswith("class_weight")


def test_refit(connection: sqlml.Connection) -> None:
    cursor = train(connection, "TARGET bought EXCLUDE (id, spent) WITH (n_estimators = 3, refit = true)")
    assert cursor.footer == "held-out: 120 rows (RANDOM 0.2, seed 0); then fitted again on all of them"
    assert (version(connection)["rows"], version(connection)["heldout_rows"]) == (600, 120)


def test_lists(connection: sqlml.Connection) -> None:
    query = "SELECT age, [balance, age] AS pair, [job, 'x'] AS words, bought FROM people"
    train(connection, "TARGET bought WITH (n_estimators = 3)", query)
    assert connection.execute(f"SELECT count(PREDICT(m)) FROM ({query})").fetchone() == (600,)


def test_limits_together(connection: sqlml.Connection) -> None:
    cursor = connection.execute("""
        TRAIN MODEL m TARGET bought, spent KEY id TRANSFORM (ML.STANDARD_SCALER(balance) OVER () AS b, age, job)
        LIMIT (ROWS 200, MEMORY '4 GB', TIME '2 min') WITH (n_estimators = 3) AS FROM people""")
    assert len(cursor.fetchall()) == 2
    assert cursor.footer == "held-out: 40 rows (RANDOM 0.2, seed 0; a sample of 200 rows)"
    with pytest.raises(sqlml.OperationalError, match="memory limit"):
        connection.execute("TRAIN MODEL m TARGET bought LIMIT (MEMORY '40 MB') AS FROM people")


@pytest.mark.parametrize("algorithm", ["pca", "isolation_forest", "kmeans"])
def test_without_a_target(connection: sqlml.Connection, algorithm: str) -> None:
    [row] = answer(train(connection, f"USING {algorithm} EXCLUDE (id)"))
    assert row["algorithm"] == algorithm
    assert connection.execute("SELECT count(PREDICT(m)) FROM people").fetchone() == (600,)


def test_a_job_can_be_published_by_who_finds_it(connection: sqlml.Connection) -> None:
    """The job's folder says all that is needed: its document has the plan."""
    from sqlml.plan import JobSpec

    train(connection, "TARGET bought EXCLUDE (id, spent) TUNE (max_depth IN (1, 2)) WITH (n_estimators = 2)")
    assert connection._session is not None
    document = max(connection._session.place.home.glob("jobs/*/job.json"), key=lambda path: int(path.parent.name))
    spec = JobSpec.from_json(json.loads(document.read_text(encoding="utf-8")))
    assert spec.train.targets == ("bought",)
    assert spec.train.tune is not None
