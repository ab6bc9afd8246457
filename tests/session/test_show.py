"""SHOW, DESCRIBE MODEL and the relations, of versions made in every way."""

from __future__ import annotations

import json
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import sqlml

TRANSFORMED = """TRAIN MODEL both USING xgboost TARGET bought, spent KEY id WEIGHT balance
    TRANSFORM (ML.STANDARD_SCALER(age) OVER () AS scaled, job) SPLIT BY held
    WITH (n_estimators = 4, max_depth = 3) ON inline AS SELECT *, id % 5 = 0 AS held FROM people"""
TUNED = """TRAIN MODEL tuned USING logistic_regression TARGET bought EXCLUDE (id, spent)
    TUNE (C IN (0.1, 1.0, 10.0)) BY GRID WITH (class_weight = 'balanced') ON inline AS FROM people"""


@pytest.fixture(scope="module")
def made(people_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlml.Connection]:
    """A connection with models trained in more ways."""
    folder = tmp_path_factory.mktemp("made") / "copy"
    shutil.copytree(people_folder, folder)
    connection = sqlml.connect(folder / "people.duckdb")
    connection.execute(TRANSFORMED)
    connection.execute(TUNED)
    connection.execute(
        "TRAIN MODEL buys USING xgboost_classifier TARGET bought EXCLUDE (id, spent) WARM START FROM buys@1 "
        "WITH (n_estimators = 12) LIMIT (ROWS 300) ON inline AS FROM people"
    )
    yield connection
    connection.close()


def described(connection: sqlml.Connection, model: str) -> list[tuple[str, str, str, str]]:
    return connection.execute(f"DESCRIBE MODEL {model}").fetchall()


def test_describe_several_targets_and_transform(made: sqlml.Connection) -> None:
    rows = described(made, "both")
    assert rows[0][:3] == ("model", "both@1", "classification")
    targets = {name: (kind, detail) for item, name, kind, detail in rows if item == "target"}
    assert targets == {
        "bought": ("VARCHAR", "classification, classes: no, yes"),
        "spent": ("DOUBLE", "regression"),
    }
    assert [name for item, name, _, _ in rows if item == "input"] == ["age", "job"]
    features = {name: detail for item, name, _, detail in rows if item == "feature"}
    assert features["scaled"].startswith("ML.STANDARD_SCALER(age) OVER (); ")
    assert set(features) == {"scaled", "job"}
    for item, name in (("key", "id"), ("weight", "balance"), ("split column", "held")):
        [found] = [row for row in rows if row[0] == item]
        assert found[1] == name
        assert found[3].startswith("not a feature")
    assert ("split", "BY held", "", "seed 0") in rows
    assert any(row[0] == "metric" and row[1] == "bought.roc_auc" for row in rows)
    assert not [row for row in rows if row[:2] == ("default", "SPLIT")]


def test_describe_options(made: sqlml.Connection) -> None:
    options = {name: (whence, value) for item, name, whence, value in described(made, "tuned") if item == "option"}
    assert options["C"][0] == "tuned"
    assert options["class_weight"] == ("given", "balanced")
    assert options["max_iter"][0] == "default"
    assert options["seed"] == ("default", "0")
    rows = described(made, "tuned")
    [tune] = [row for row in rows if row[0] == "tune"]
    assert tune[1] == "grid"
    assert tune[3].startswith("3 trials, maximize roc_auc: C")
    assert ("run", "trials", "", "3, in sqlml.trials") in rows
    assert [row for row in rows if row[:2] == ("default", "SPLIT")]


def test_describe_warm_start_and_sample(made: sqlml.Connection) -> None:
    rows = described(made, "buys@2")
    assert ("warm start", "buys@1", "", "training went on from this version") in rows
    assert ("rows", "sample", "", "300 rows of the query, by seed 0") in rows
    assert ("excluded", "spent", "", "not a feature: EXCLUDE") in rows


def test_defaults_that_move_results(connection: sqlml.Connection) -> None:
    connection.execute("TRAIN MODEL plain TARGET bought EXCLUDE (id, spent) ON inline AS FROM people")
    defaults = {name: detail for item, name, _, detail in described(connection, "plain") if item == "default"}
    assert set(defaults) == {"USING", "SPLIT", "refit", "text columns"}
    assert defaults["USING"].startswith("xgboost_classifier")
    assert defaults["SPLIT"].startswith("RANDOM 0.2 with seed 0, the same part of each class")
    connection.execute(
        "TRAIN MODEL said USING xgboost_classifier TARGET bought EXCLUDE (id, spent) SPLIT RANDOM 0.3 ON inline AS FROM people"
    )
    defaults = {name: detail for item, name, _, detail in described(connection, "said") if item == "default"}
    assert set(defaults) == {"refit", "text columns"}


def test_the_relation_trials(made: sqlml.Connection) -> None:
    rows = made.execute(
        "SELECT trial, options, metrics, state, chosen FROM sqlml.trials WHERE model = 'tuned' ORDER BY 1"
    ).fetchall()
    assert [json.loads(options)["C"] for _, options, _, _, _ in rows] == [0.1, 1.0, 10.0]
    assert all("roc_auc" in json.loads(metrics) for _, _, metrics, _, _ in rows)
    assert sum(chosen for *_, chosen in rows) == 1
    assert {state for _, _, _, state, _ in rows} == {"done"}


def test_the_relation_features(made: sqlml.Connection) -> None:
    query = "SELECT position, input, min, max, category_count, null_count FROM sqlml.features WHERE model = 'both' ORDER BY 1"
    rows = made.execute(query).fetchall()
    assert [row[1] for row in rows] == ["age", "job"]
    assert rows[0][2:4] == (0.0, 96.0)
    assert rows[1][4] == 3
    assert rows[1][5] > 0


def test_the_relation_versions(made: sqlml.Connection) -> None:
    query = "SELECT target, targets, key_columns, split, origin, comment FROM sqlml.versions WHERE model = 'both'"
    assert made.execute(query).fetchall() == [("bought", ["bought", "spent"], ["id"], "BY held", None, None)]


def test_the_relation_models(made: sqlml.Connection) -> None:
    shown = {row[0]: row for row in made.execute("SHOW MODELS").fetchall()}
    assert shown["both"][5] == "bought, spent"
    assert shown["buys"][1:4] == (2, 2, None)
    assert shown["groups"][4:6] == ("clustering", None)


def test_show_a_model_is_of_the_version_that_is_meant(connection: sqlml.Connection) -> None:
    connection.execute("TRAIN MODEL spends USING xgboost_classifier TARGET bought EXCLUDE (id) ON inline AS FROM people")
    shown = "SELECT task, target FROM sqlml.models WHERE model = 'spends'"
    assert connection.execute(shown).fetchall() == [("classification", "bought")]
    connection.execute("ALTER MODEL spends SET ALIAS champion = 1")
    assert connection.execute(shown).fetchall() == [("regression", "spent")]


def test_every_relation_can_be_read(made: sqlml.Connection) -> None:
    names = {name for (name,) in made.execute("SELECT view_name FROM duckdb_views() WHERE database_name = 'sqlml'").fetchall()}
    assert {"models", "versions", "tags", "inputs", "features", "metrics", "curves", "trials", "runs", "jobs", "logs"} <= names
    for name in sorted(names):
        made.execute(f"SELECT * FROM sqlml.{name}").fetchall()


def test_a_relation_without_a_show_of_its_own(shared: sqlml.Connection) -> None:
    with pytest.raises(sqlml.DatabaseError) as raised:
        shared.execute("SHOW TRIALS")
    assert raised.value.hint == "it is a relation: FROM sqlml.trials"


def test_the_log_of_a_job_that_wrote_none(connection: sqlml.Connection, database: Path) -> None:
    (database.with_suffix(".sqlml") / "jobs" / "1" / "job.log").unlink()
    assert connection.execute("SHOW LOGS FOR JOB 1").fetchall() == []
    with pytest.raises(sqlml.ProgrammingError, match="there is no job 99"):
        connection.execute("SHOW LOGS FOR JOB 99")


def test_a_version_of_an_older_catalog(tmp_path: Path) -> None:
    with tarfile.open(Path(__file__).parent.parent / "fixtures" / "old_home" / "format_1.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    with sqlml.connect(tmp_path / "shop.duckdb") as connection:
        rows = described(connection, "buys@2")
        assert rows[0] == ("model", "buys@2", "classification", "logistic_regression")
        assert {row[2] for row in rows if row[0] == "option"} == {""}  # nobody kept which were given
        assert connection.execute("COMPARE MODELS buys@1, buys@2").fetchall()
        assert connection.execute("EXPLAIN MODEL buys").fetchall()


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("SELECT PREDCIT(buys) FROM people", "did you mean PREDICT?"),
        ("SELECT PREDICT_PROB(buys, 'yes') FROM people", "did you mean PREDICT_PROBA?"),
        ("SELECT bus(age, job, balance) FROM people", "did you mean buys?"),
        ("SELECT lenght(job) FROM people", 'Did you mean "length", '),  # the database's own is nearer
        ("DESCRIBE buys", "did you mean DESCRIBE MODEL buys?"),
        ("SELECT * FROM sqlm.models", "did you mean sqlml?"),
        ("SELECT * FROM sqml('SHOW MODELS')", "did you mean sqlml('…')?"),
        ("SELECT * FROM ML.ROC(MODEL buys)", "did you mean ML.ROC_CURVE?"),
        ("TRAIN MODEL m USING logistic TARGET bought AS FROM people", "did you mean logistic_regression?"),
        ('DESCRIBE ENDPOINT "it\'s"', "write SHOW ENDPOINTS LIKE 'it''s'; FROM sqlml.endpoint_options has the options"),
        ("DESC endpoints", "write SHOW ENDPOINTS; FROM sqlml.endpoint_options has the options"),
        ("ALTER SERVER SET (port = 8081)", "the endpoints' server has its options by ALTER ENDPOINTS SET (port = …)"),
        ("RESET port", "it is an option of all endpoints together: ALTER ENDPOINTS SET (port = NULL)"),
        ("RESET GLOBAL max_rows", "it is an option of one endpoint: ALTER ENDPOINT e SET (max_rows = NULL)"),
        ("RESET ENDPOINT churn", "write ALTER ENDPOINT churn SET (option = NULL)"),
        ("SET grpc_port = 8081", "it is an option of all endpoints together: ALTER ENDPOINTS SET (grpc_port = …)"),
        ("RESET treads", '"threads"'),  # the database's own
    ],
)
def test_words_that_the_database_cannot_guess(connection: sqlml.Connection, text: str, hint: str) -> None:
    with pytest.raises(sqlml.Error) as caught:
        connection.execute(text)
    assert hint.rstrip(", ") in (caught.value.hint or "")
