"""TRAIN MODEL with its clauses, and what is kept of a version."""

from __future__ import annotations

import datetime
import json
from typing import Any

import pytest

import sqlml


def train(connection: sqlml.Connection, clauses: str, query: str = "FROM people", values: Any = ()) -> sqlml.Cursor:
    return connection.execute(f"TRAIN MODEL m {clauses} ON inline AS {query}", values)


def version(connection: sqlml.Connection, name: str = "m") -> dict[str, Any]:
    """The newest version's row."""
    cursor = connection.execute(f"SELECT * FROM sqlml.versions WHERE model = '{name}' ORDER BY version DESC LIMIT 1")
    return dict(zip([d.name for d in cursor.description or ()], cursor.fetchone() or (), strict=True))


@pytest.mark.parametrize(
    ("target", "algorithm"),
    [("bought", "xgboost_classifier"), ("age > 40", "xgboost_classifier"), ("spent", "xgboost_regressor")],
)
def test_the_algorithm_follows_from_the_target(connection: sqlml.Connection, target: str, algorithm: str) -> None:
    cursor = train(connection, "TARGET t WITH (n_estimators = 3)", f"SELECT balance, job, {target} AS t FROM people")
    assert version(connection)["algorithm"] == algorithm
    assert any(f"using {algorithm}" in notice for notice in cursor.notices)


def test_ten_rows_are_enough(connection: sqlml.Connection) -> None:
    """Trees without a single split, which the ONNX converter writes in another form."""
    train(connection, "TARGET k WITH (n_estimators = 1)", "SELECT i AS a, i % 2 AS k FROM range(10) AS r(i)")
    assert connection.execute("SELECT count(PREDICT(m)) FROM (SELECT 3 AS a)").fetchone() == (1,)


def test_what_is_kept(connection: sqlml.Connection) -> None:
    before = datetime.datetime.now(datetime.UTC).replace(tzinfo=None)
    text = (
        "train model m target bought exclude (id, spent) with (n_estimators = ?, seed = 7) on inline as from people where id < ?"
    )
    connection.execute(text, [4, 500])
    row = version(connection)
    assert (row["model"], row["version"], row["target"], row["task"]) == ("m", 1, "bought", "classification")
    assert (row["statement"], row["query"]) == (text, "from people where id < ?")
    assert json.loads(row["parameters"]) == ["4", "500"]
    assert json.loads(row["options"])["n_estimators"] == 4
    assert (row["seed"], row["split"], row["rows"], row["heldout_rows"]) == (7, "RANDOM 0.2", 400, 100)
    assert len(row["fingerprint"]) >= 32
    assert row["duration"] > 0
    assert row["peak_memory"] > 2**20
    assert {"python", "sqlml", "xgboost"} <= set(json.loads(row["libraries"]))
    assert before <= row["created_at"] <= datetime.datetime.now(datetime.UTC).replace(tzinfo=None)
    splits = connection.execute("SELECT DISTINCT split FROM sqlml.metrics WHERE model = 'm' ORDER BY 1").fetchall()
    assert splits == [("heldout",), ("train",)]
    assert connection.execute("SELECT max(step) FROM sqlml.curves WHERE model = 'm'").fetchone() == (4,)


def test_the_same_again_is_the_same_model(connection: sqlml.Connection) -> None:
    for query in ("FROM people", "FROM people ORDER BY age, id DESC"):
        train(connection, "TARGET bought EXCLUDE (id, spent) WITH (n_estimators = 5)", query)
    rows = connection.execute("SELECT DISTINCT bundle_sha256, fingerprint FROM sqlml.versions WHERE model = 'm'").fetchall()
    assert len(rows) == 1
    connection.execute("DROP MODEL m@1")
    assert connection.execute("SELECT PREDICT(m) FROM people LIMIT 1").fetchone() is not None


def test_another_seed_is_another_split(connection: sqlml.Connection) -> None:
    for seed in (0, 1):
        train(connection, f"TARGET bought EXCLUDE (id, spent) WITH (n_estimators = 5, seed = {seed})")
    rows = connection.execute("SELECT DISTINCT bundle_sha256 FROM sqlml.versions WHERE model = 'm'").fetchall()
    assert len(rows) == 2


def test_split_none(connection: sqlml.Connection) -> None:
    cursor = train(connection, "TARGET bought EXCLUDE (id, spent) SPLIT NONE WITH (n_estimators = 3)")
    assert cursor.footer == "no rows were held out: the figures are of the rows trained on"
    assert (version(connection)["rows"], version(connection)["heldout_rows"]) == (600, 0)
    with pytest.raises(sqlml.ProgrammingError, match="without held-out rows"):
        connection.execute("EVALUATE MODEL m")


def test_split_random(connection: sqlml.Connection) -> None:
    train(connection, "TARGET bought EXCLUDE (id, spent) SPLIT RANDOM 0.5 WITH (n_estimators = 3)")
    assert version(connection)["heldout_rows"] == 300


def test_validate_on(connection: sqlml.Connection) -> None:
    train(
        connection,
        "TARGET bought EXCLUDE (id, spent) VALIDATE ON (FROM people WHERE id >= 500) WITH (n_estimators = 3)",
        "FROM people WHERE id < 500",
    )
    assert (version(connection)["rows"], version(connection)["heldout_rows"]) == (500, 100)


def test_limit_rows_is_a_seeded_sample(connection: sqlml.Connection) -> None:
    for query in ("FROM people", "FROM people ORDER BY id DESC"):
        cursor = train(connection, "TARGET bought EXCLUDE (id, spent) LIMIT (ROWS 200) WITH (n_estimators = 3)", query)
        assert cursor.footer is not None
        assert "a sample of 200 rows" in cursor.footer
    assert version(connection)["rows"] + version(connection)["heldout_rows"] == 200
    assert len(connection.execute("SELECT DISTINCT fingerprint FROM sqlml.versions WHERE model = 'm'").fetchall()) == 1


def test_weight_and_key_are_no_features(connection: sqlml.Connection) -> None:
    train(
        connection,
        "TARGET bought WEIGHT spent KEY id WITH (n_estimators = 3)",
        "SELECT * REPLACE (spent + 1 AS spent) FROM people",
    )
    names = connection.execute("SELECT name FROM sqlml.inputs WHERE model = 'm' ORDER BY position").fetchall()
    assert names == [("age",), ("job",), ("balance",)]
    weighted = connection.execute("EVALUATE MODEL m").fetchone()
    assert weighted is not None
    assert weighted == connection.execute("EVALUATE MODEL m WITH (threshold = 0.5)").fetchone()


def test_labels_of_every_kind(connection: sqlml.Connection) -> None:
    cases = {"age > 50": "BOOLEAN", "age % 3": "BIGINT", "CASE WHEN age > 50 THEN 'ä' WHEN id % 50 > 0 THEN 'b' END": "VARCHAR"}
    for expression, sql_type in cases.items():
        query = f"SELECT age, balance, {expression} AS t FROM people"
        train(connection, "USING xgboost_classifier TARGET t WITH (n_estimators = 3)", query)
        cursor = connection.execute("SELECT PREDICT(m) FROM people")
        assert cursor.description is not None
        assert cursor.description[0].type_code == sql_type
        expected = {value for (value,) in connection.execute(f"SELECT DISTINCT t FROM ({query}) WHERE t IS NOT NULL").fetchall()}
        assert {value for (value,) in cursor.fetchall()} <= expected


def test_every_type_of_column(connection: sqlml.Connection) -> None:
    connection.execute("""
        CREATE TABLE wide AS SELECT id::TINYINT AS "tiny", age::HUGEINT AS "huge int", balance::DECIMAL(9, 2) AS "десятичное",
        balance::FLOAT AS f, age > 3 AS b, job, DATE '2020-01-01' + age::INTEGER AS "day of", TIME '01:00' + to_minutes(age) AS t,
        TIMESTAMP '2020-01-01' + to_hours(age) AS ts, TIMESTAMPTZ '2020-01-01 00:00+00' + to_hours(age) AS "select",
        job::ENUM ('clerk', 'cook', 'it''s "ß"') AS e, uuid() AS u, NULL AS nothing, 7 AS constant,
        if(id % 3 = 0, NULL, age) AS gaps, bought FROM people WHERE id < 120""")
    train(connection, "TARGET bought WITH (n_estimators = 3)", "FROM wide")
    assert connection.execute("SELECT count(PREDICT(m)) FROM wide").fetchone() == (120,)
    nulls = "SELECT PREDICT(m USING NULL AS job) FROM (SELECT COLUMNS(*)::VARCHAR FROM wide WHERE false)"
    with pytest.raises(sqlml.ProgrammingError, match="does not give"):
        connection.execute(nulls)
    described = connection.execute("DESCRIBE MODEL m").fetchall()
    inputs = {name: detail for item, name, _, detail in described if item == "input"}
    assert len(inputs) == 15
    assert "3 categories" in inputs["job"]
    assert inputs["constant"] != "number"
    assert "date" in inputs["day of"]


def test_names_that_look_alike_words(connection: sqlml.Connection) -> None:
    connection.execute("""
        CREATE TABLE model AS SELECT age AS "select", job AS "my ""own"" job", balance AS model, spent AS predict,
        age AS "日本 語", balance AS train, bought AS target FROM people""")
    connection.execute('TRAIN MODEL "my model" TARGET target WITH (n_estimators = 3) ON inline AS FROM model')
    assert connection.execute("SELECT model, predict, train, target FROM model LIMIT 1").fetchone() is not None
    for call in (
        'PREDICT("my model")',
        'PREDICT("MY MODEL"@1)',
        '"my model"(*)',
        '"my model@1"(m.*)',
        'PREDICT("my model" USING m.*)',
    ):
        assert connection.execute(f"SELECT {call} FROM model AS m LIMIT 1").fetchone() in [("yes",), ("no",)]
    assert len(connection.execute('EXPLAIN MODEL "my model"').fetchall()) == 6
    assert connection.execute('DROP MODEL "My Model"').rowcount == -1


def test_qualified_names_and_aliases(connection: sqlml.Connection) -> None:
    for rounds in (3, 4):
        connection.execute(
            f"TRAIN MODEL sales.churn TARGET bought EXCLUDE (id, spent) WITH (n_estimators = {rounds}) ON inline AS FROM people"
        )
    connection.execute("ALTER MODEL Sales.Churn SET ALIAS champion = 1")
    scores = {
        ref: connection.execute(f"SELECT avg(PREDICT_PROBA({ref}, 'yes')) FROM people").fetchone()
        for ref in ("sales.churn", "sales.churn@1", "SALES.CHURN@champion", "sales.churn@2")
    }
    assert scores["sales.churn"] == scores["sales.churn@1"] == scores["SALES.CHURN@champion"] != scores["sales.churn@2"]
    assert connection.execute('SELECT "sales.churn@2"(*) FROM people LIMIT 1').fetchone() is not None
    assert connection.execute("SHOW VERSIONS OF sales.churn").fetchall()[0][2] == ["champion"]


def test_versions_are_never_used_twice(connection: sqlml.Connection) -> None:
    for expected in (1, 2):
        assert train(connection, "TARGET bought EXCLUDE (id, spent) WITH (n_estimators = 2)").fetchone()[1] == expected  # type: ignore[index]
    connection.execute("DROP MODEL m@2")
    assert train(connection, "TARGET bought EXCLUDE (id, spent) WITH (n_estimators = 2)").fetchone()[1] == 3  # type: ignore[index]
    connection.execute("DROP MODEL m")
    with pytest.raises(sqlml.ProgrammingError, match="unknown model m"):
        connection.execute("SELECT PREDICT(m) FROM people")


def test_a_trained_query_may_predict(connection: sqlml.Connection) -> None:
    train(
        connection,
        "TARGET bought WITH (n_estimators = 3)",
        "SELECT age, PREDICT(groups) AS grp, bought FROM people",
    )
    score = "SELECT PREDICT(m USING age, PREDICT(groups USING age, balance) AS grp) FROM people LIMIT 1"
    assert connection.execute(score).fetchone() is not None


def test_refused_leaves_no_job_and_failed_does(connection: sqlml.Connection) -> None:
    with pytest.raises(sqlml.DataError):
        train(connection, "TARGET bought", "FROM people WHERE false")
    with pytest.raises(sqlml.DataError):
        train(connection, "TARGET bought", "SELECT job::INTEGER AS j, bought FROM people")
    assert connection.execute("SELECT count(*) FROM sqlml.jobs WHERE model = 'm'").fetchone() == (0,)
    with pytest.raises(sqlml.OperationalError, match="time limit"):
        train(connection, "TARGET bought LIMIT (TIME 0.001) WITH (n_estimators = 50)")
    [(state, error, version_)] = connection.execute("SELECT state, error, version FROM sqlml.runs WHERE model = 'm'").fetchall()
    assert (state, version_) == ("failed", None)
    assert "time limit" in error
