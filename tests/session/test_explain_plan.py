"""EXPLAIN of every statement of ours: what would be done, as lines and as JSON, and that nothing is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import sqlml
from tests.sessions import session_of

TRAIN = """TRAIN MODEL m USING xgboost_classifier TARGET bought KEY id EXCLUDE (spent)
    WITH (n_estimators = 4, class_weight = 'balanced') LIMIT (ROWS 100, TIME '1 min', MEMORY '2 GB') ON process
    AS SELECT * FROM people WHERE age > ?"""


def lines(connection: sqlml.Connection, statement: str, values: tuple[object, ...] = ()) -> list[str]:
    cursor = connection.execute(f"EXPLAIN {statement}", values)
    assert [d.name for d in cursor.description or ()] == ["plan"]
    return [line for (line,) in cursor.fetchall()]


def tree(connection: sqlml.Connection, statement: str, values: tuple[object, ...] = ()) -> dict[str, Any]:
    [(text,)] = connection.execute(f"EXPLAIN (FORMAT JSON) {statement}", values).fetchall()
    document: dict[str, Any] = json.loads(text)
    return document


def nodes(document: dict[str, Any], name: str) -> Iterator[dict[str, Any]]:
    if document["node"] == name:
        yield document
    for child in document.get("children", ()):
        yield from nodes(child, name)


def contents(folder: Path) -> dict[str, str]:
    """Every file with the hash of its bytes; SQLite's shared memory is not part of what is stored."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.endswith("-shm"))
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_train(connection: sqlml.Connection) -> None:
    shown = lines(connection, TRAIN, (30,))
    assert shown[0] == "TRAIN MODEL m: a new version"
    text = "\n".join(shown)
    for part in (
        "engine: duckdb",
        'SELECT "age", "job", "balance", "bought", "id" FROM (SELECT * FROM people WHERE age > ?',
        "left to the database: 5 of 6 columns, a sample of 100 rows by seed 0",
        "target: bought VARCHAR",
        "held out: RANDOM 0.2, seed 0",
        "no feature: id (KEY: it names the row)",
        "no feature: spent (EXCLUDE)",
        "3 features",
        "age BIGINT: number as it is",
        "job VARCHAR: categories as codes; unseen ones as missing",
        "algorithm: xgboost_classifier",
        "option: n_estimators = 4",
        'class weights: "balanced"',
        "learning_rate = 0.3",
        "runner: process",
        "limits: 60 s, 1,907 MiB",
        "sample: 100 rows",
    ):
        assert part in text, part


def test_train_as_json(connection: sqlml.Connection) -> None:
    document = tree(connection, TRAIN, (30,))
    assert (document["node"], document["model"]) == ("train", "m")
    assert [child["node"] for child in document["children"]] == ["extraction", "data", "features", "learning", "job"]
    extraction, data, features, learning, job = document["children"]
    assert extraction["columns"] == ["age", "job", "balance", "bought", "id"]
    assert extraction["engine"] == "duckdb"
    assert 0 < extraction["estimated_rows"] <= 600
    assert connection.execute(f"SELECT count(*) FROM ({extraction['sql']})", [30]).fetchone() == (100,)  # it is what runs
    assert data["targets"] == {"bought": "VARCHAR"}
    assert data["key"] == ["id"]
    assert data["no_features"] == {"id": "KEY: it names the row", "spent": "EXCLUDE"}
    assert data["split"] == {"method": "random", "fraction": 0.2, "column": None}
    assert [f["column"] for f in features["children"]] == ["age", "job", "balance"]
    assert learning["algorithm"] == "xgboost_classifier"
    assert learning["options_given"] == {"n_estimators": 4, "class_weight": "balanced"}
    assert learning["options_default"]["max_depth"] == 6
    assert job == {
        "node": "job", "kind": "train", "runner": "process", "type": "process", "asynchronous": False,
        "seconds": 60.0, "memory": 2_000_000_000,
        "threads": None, "sample_rows": 100,
    }  # fmt: skip


def test_the_algorithm_is_chosen_later(connection: sqlml.Connection) -> None:
    learning = next(nodes(tree(connection, "TRAIN MODEL m TARGET bought AS FROM people"), "learning"))
    assert learning["algorithm"] == "xgboost_classifier"  # of a text there is no regression
    learning = next(nodes(tree(connection, "TRAIN MODEL m TARGET age AS FROM people"), "learning"))
    assert learning["algorithm"] is None
    assert learning["candidates"] == ["xgboost_classifier", "xgboost_regressor"]
    text = "\n".join(lines(connection, "TRAIN MODEL m TARGET age AS FROM people"))
    assert "algorithm: xgboost_classifier or xgboost_regressor, as the values of age ask for" in text


def test_transform_tune_warm_start(connection: sqlml.Connection) -> None:
    document = tree(
        connection,
        """TRAIN MODEL m USING xgboost_classifier TARGET bought WEIGHT balance
        TRANSFORM (ML.STANDARD_SCALER(age) OVER () AS age, job, balance * 2 AS twice)
        TUNE (max_depth IN (2, 4), learning_rate BETWEEN 0.01 AND 0.3 LOG) TRIALS 5 MAXIMIZE roc_auc
        SPLIT BY spent AS SELECT * EXCLUDE (balance), balance, id % 2 = 0 AS held FROM people""".replace(
            "SPLIT BY spent", "SPLIT BY held"
        ).replace("balance * 2 AS twice", "id * 2 AS twice"),
    )
    transform = next(nodes(document, "transform"))
    assert transform["gives"] == ["age", "job", "twice"]
    assert [item["learns"] for item in transform["children"]] == [["STANDARD_SCALER"], [], []]
    assert next(nodes(document, "data"))["no_features"] == {"balance": "WEIGHT", "held": "SPLIT BY"}
    tuning = next(nodes(document, "tuning"))
    assert (tuning["trials"], tuning["metric"], tuning["maximize"]) == (5, "roc_auc", True)
    assert tuning["space"]["max_depth"] == {"values": [2, 4]}
    assert tuning["space"]["learning_rate"]["log"] is True
    start = "TRAIN MODEL buys USING xgboost_classifier TARGET bought EXCLUDE (id, spent) WARM START FROM buys@1 AS FROM people"
    assert next(nodes(tree(connection, start), "learning"))["warm_start"] == "buys@1"


def test_models_inside_the_query(connection: sqlml.Connection) -> None:
    document = tree(connection, "TRAIN MODEL m TARGET bought AS SELECT age, bought, PREDICT(spends) AS s FROM people")
    [scoring] = nodes(document, "scoring")
    assert (scoring["model"], scoring["version"], scoring["function"]) == ("spends", 1, "predict")
    assert scoring["inputs"] == ["age", "job", "balance"]
    assert scoring["where"] == "inside the database, chunk by chunk"


def test_predict(connection: sqlml.Connection) -> None:
    shown = lines(connection, "PREDICT MODEL buys INTO scores AS SELECT * FROM people LIMIT 10")
    assert shown[0] == "PREDICT MODEL buys@1"
    assert "├─ adds: predicted_bought, predicted_bought_probs" in shown
    assert any("estimated rows: 10" in line for line in shown)
    assert shown[-1] == "└─ into scores: new; all rows or none"
    document = tree(connection, "PREDICT MODEL buys AS SELECT *, PREDICT(spends) AS s FROM people")
    assert [scoring["model"] for scoring in nodes(document, "scoring")] == ["spends", "buys"]
    connection.execute("PREDICT MODEL buys INTO scores AS FROM people")
    assert lines(connection, "PREDICT MODEL buys INTO scores APPEND AS FROM people")[-1].endswith(
        "600 rows there now; all rows or none"
    )
    with pytest.raises(sqlml.ProgrammingError, match="table scores exists already"):
        lines(connection, "PREDICT MODEL buys INTO scores AS FROM people")


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("EVALUATE MODEL buys", "└─ the 120 rows that buys@1 held out, as scored then"),
        ("EVALUATE MODEL buys AS FROM people", "   └─ estimated rows: 600"),
        ("EXPLAIN MODEL buys AS FROM people", "   └─ estimated rows: 600"),
        ("EXPLAIN MODEL buys", "└─ reads: the importance that the model keeps: no row of the database is read"),
        ("DEPLOY MODEL buys TO ENDPOINT front", "├─ endpoint: front"),
        ("ALTER MODEL buys SET ALIAS champion = 1", "└─ then: 1"),
        ("ALTER MODEL buys RENAME TO b", "└─ change: ALTER MODEL buys RENAME TO b"),
        ("ALTER MODEL buys SET TAG a = 1", "└─ change: ALTER MODEL buys SET TAG a = 1"),
        ("DROP MODEL buys", "├─ goes: buys@1"),
        ("DROP MODEL IF EXISTS nope", "└─ model: nope"),
        ("EXPORT MODEL buys TO '/nowhere/x'", "├─ path: /nowhere/x"),
        ("IMPORT MODEL n FROM '/nowhere/x'", "└─ file: missing"),
        ("SHOW MODELS", "└─ reads: the relation models of the catalog"),
        ("DESCRIBE MODEL buys", "└─ reads: what the catalog keeps of buys@1"),
        ("SHOW LOGS FOR JOB 1", "└─ reads: the log of job 1"),
        ("CANCEL JOB 1", "└─ state: done"),
    ],
)
def test_every_statement(shared: sqlml.Connection, statement: str, expected: str) -> None:
    assert expected in lines(shared, statement)
    document = tree(shared, statement)
    assert isinstance(document["node"], str)


def test_drop_says_what_goes(connection: sqlml.Connection) -> None:
    connection.execute("CREATE VIEW calls AS SELECT PREDICT(buys) AS p FROM people")
    connection.execute("TRAIN MODEL buys USING logistic_regression TARGET bought EXCLUDE (id) ON inline AS FROM people")
    document = tree(connection, "DROP MODEL buys@2")
    assert (document["goes"], document["stays"], document["refused"]) == (["buys@2"], ["buys@1"], False)
    assert document["views_that_call_the_model"] == ["calls"]
    session_of(connection)._catalog.deploy("front", session_of(connection)._catalog.resolve("buys", 2))
    document = tree(connection, "DROP MODEL buys")
    assert (document["goes"], document["endpoints"], document["refused"]) == (["buys@1", "buys@2"], ["front"], True)
    assert tree(connection, "DROP MODEL buys CASCADE")["refused"] is False
    assert tree(connection, "UNDEPLOY ENDPOINT front")["now"] == "buys@2"


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("TRAIN MODEL m TARGET nope AS FROM people", "the query has no column nope"),
        ("PREDICT MODEL nope AS FROM people", "unknown model nope"),
        ("DROP MODEL nope", "unknown model nope"),
        ("UNDEPLOY ENDPOINT nope", "unknown endpoint nope"),
        ("CANCEL JOB 99", "there is no job 99"),
        ("ALTER MODEL buys SET ALIAS champion = 9", "model buys has no version 9"),
        ("COMPARE MODELS buys, spends", "spends@1 cannot be compared with buys@1"),
        ("ROLLBACK ENDPOINT e", "unknown endpoint e"),
    ],
)
def test_a_wrong_statement_has_no_plan(shared: sqlml.Connection, statement: str, message: str) -> None:
    with pytest.raises(sqlml.DatabaseError) as raised:
        lines(shared, statement)
    assert raised.value.message.startswith(message)


def test_nothing_runs_and_nothing_is_written(database: Path) -> None:
    statements = [
        TRAIN.replace("?", "30"),
        "TRAIN MODEL m TARGET bought ASYNC AS FROM people",
        "PREDICT MODEL buys INTO scores AS FROM people",
        "EVALUATE MODEL buys AS FROM people",
        "EXPLAIN MODEL buys INTO weights",
        "DEPLOY MODEL buys",
        "ALTER MODEL buys SET ALIAS champion = 1",
        "ALTER MODEL buys RENAME TO b",
        "DROP MODEL buys CASCADE",
        "EXPORT MODEL buys TO 'exported'",
    ]
    with sqlml.connect(database) as connection:
        before = contents(database.parent)
        for statement in statements:
            for form in ("", "(FORMAT JSON) "):
                connection.execute(f"EXPLAIN {form}{statement}").fetchall()
        assert contents(database.parent) == before
        assert connection.execute("SHOW TABLES").fetchall() == [("people",)]


def test_the_database_explains_its_own(shared: sqlml.Connection) -> None:
    names = [d.name for d in shared.execute("EXPLAIN (FORMAT JSON) SELECT PREDICT(buys) FROM people").description or ()]
    assert names == ["explain_key", "explain_value"]
    assert shared.execute("EXPLAIN SELECT 1").fetchall()


# --- ANALYZE ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_analyze_train(connection: sqlml.Connection) -> None:
    statement = "TRAIN MODEL m TARGET bought EXCLUDE (id, spent) WITH (n_estimators = 5) AS FROM people"
    [(text,)] = connection.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}").fetchall()
    [ran] = nodes(json.loads(text), "run")
    assert (ran["version"], ran["rows"], ran["heldout_rows"]) == (1, 480, 120)
    assert ran["peak_memory"] > 2**20
    stages = {stage["name"]: stage["seconds"] for stage in ran["children"]}
    assert {"planning", "reading", "training", "evaluating"} <= set(stages)
    assert all(seconds >= 0 for seconds in stages.values())
    assert sum(stages.values()) == pytest.approx(ran["seconds"], abs=0.5)
    assert connection.execute("SELECT count(PREDICT(m)) FROM people").fetchone() == (600,)
    shown = lines(connection, f"ANALYZE {statement.replace('AS FROM', 'ON inline AS FROM')}")
    assert any(line.startswith("└─ ran: m@2 in ") for line in shown)
    assert any("training: " in line for line in shown)


def test_analyze_predict(connection: sqlml.Connection) -> None:
    assert lines(connection, "ANALYZE PREDICT MODEL buys AS FROM people LIMIT 7")[-1].startswith("└─ ran: 7 rows in ")
    shown = lines(connection, "ANALYZE PREDICT MODEL buys INTO scores AS FROM people")
    assert shown[-1].startswith("└─ ran: 600 rows in ")
    assert connection.execute("SELECT count(*) FROM scores").fetchone() == (600,)


def test_what_is_not_analyzed(connection: sqlml.Connection) -> None:
    for statement, message in (
        ("DROP MODEL buys", "EXPLAIN ANALYZE runs TRAIN and PREDICT MODEL only, not DROP MODEL"),
        ("TRAIN MODEL m TARGET bought ASYNC AS FROM people", "EXPLAIN ANALYZE waits for the end, ASYNC does not"),
    ):
        with pytest.raises(sqlml.NotSupportedError, match=message):
            lines(connection, f"ANALYZE {statement}")
    connection.execute("BEGIN")
    with pytest.raises(sqlml.NotSupportedError, match="EXPLAIN cannot run inside an open transaction"):
        lines(connection, "ANALYZE TRAIN MODEL m TARGET bought AS FROM people")
    connection.execute("ROLLBACK")
    assert connection.execute("SELECT count(*) FROM sqlml.models").fetchone() == (3,)
