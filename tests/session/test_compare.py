"""COMPARE MODELS: figures beside each other, and in what versions differ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import sqlml

SECOND = "TRAIN MODEL buys USING logistic_regression TARGET bought EXCLUDE (id, spent, balance) ON inline AS FROM people"
DEEPER = (
    "TRAIN MODEL other USING xgboost_classifier TARGET bought EXCLUDE (id, spent) WITH (n_estimators = 30) "
    "ON inline AS FROM people"
)


def compared(connection: sqlml.Connection, statement: str) -> dict[tuple[str, str], dict[str, Any]]:
    """(item, name) → the row's other columns by name."""
    cursor = connection.execute(statement)
    names = [d.name for d in cursor.description or ()]
    assert names[:2] == ["item", "name"]
    assert names[-3:] == ["best", "difference", "note"]
    rows = cursor.fetchall()
    assert len({row[:2] for row in rows}) == len(rows)
    return {(row[0], row[1]): dict(zip(names[2:], row[2:], strict=True)) for row in rows}


def test_heldout_figures(connection: sqlml.Connection) -> None:
    notices: list[str] = []
    connection.on_event = lambda event: notices.append(str(event["text"])) if event["event"] == "notice" else None
    connection.execute(SECOND)
    connection.execute(DEEPER)
    notices.clear()
    rows = compared(connection, "COMPARE MODELS buys@1, buys@2, other")
    assert next(iter(rows)) == ("metric", "roc_auc")
    figures = dict(
        connection.execute(
            "SELECT version, value FROM sqlml.metrics WHERE model = 'buys' AND metric = 'log_loss' AND split = 'heldout'"
        ).fetchall()
    )
    loss = rows["metric", "log_loss"]
    assert {name: float(loss[f"buys@{name}"]) for name in (1, 2)} == pytest.approx(figures, rel=1e-5)
    shown = {name: float(loss[name]) for name in ("buys@1", "buys@2", "other@1")}
    first, second, _ = sorted(shown.values())
    assert loss["best"] == min(shown, key=lambda name: shown[name])
    assert loss["difference"] == pytest.approx(second - first, abs=1e-5)
    assert loss["note"] == "lower is better"
    assert rows["metric", "roc_auc"]["note"] == "higher is better"
    assert rows["model", "algorithm"]["buys@2"] == "logistic_regression"
    assert rows["rows", "measured"]["buys@1"] == "120"
    assert rows["feature", "balance"] == {
        "buys@1": rows["feature", "balance"]["other@1"],
        "buys@2": "–", "other@1": rows["feature", "balance"]["buys@1"], "best": None, "difference": None, "note": "not in all",
    }  # fmt: skip
    assert ("feature", "age") not in rows
    assert "may have held out different rows: the data differs" in notices[0]  # it has other columns


def test_options_that_differ(connection: sqlml.Connection) -> None:
    connection.execute(DEEPER)
    rows = compared(connection, "COMPARE MODELS buys, other")
    assert {name for item, name in rows if item == "option"} == {"n_estimators"}
    assert rows["option", "n_estimators"]["buys@1"] == "8"
    assert ("data", "fingerprint") not in rows


def test_other_validation_rows(connection: sqlml.Connection) -> None:
    notices: list[str] = []
    connection.on_event = lambda event: notices.append(str(event["text"])) if event["event"] == "notice" else None
    for limit in (100, 200):
        connection.execute(
            "TRAIN MODEL m USING logistic_regression TARGET bought EXCLUDE (id, spent) ON inline "
            f"VALIDATE ON (SELECT * FROM people LIMIT {limit}) AS FROM people"
        )
    notices.clear()
    connection.execute("COMPARE MODELS m@1, m@2")
    assert "the query of VALIDATE ON differs" in notices[0]


def test_the_same_rows_for_all(connection: sqlml.Connection) -> None:
    connection.execute(SECOND)
    notices: list[str] = []
    connection.on_event = lambda event: notices.append(str(event["text"])) if event["event"] == "notice" else None
    rows = compared(connection, "COMPARE MODELS buys@1, buys@2 AS SELECT * FROM people WHERE id < 300")
    assert notices == []
    assert rows["rows", "measured"]["buys@1"] == rows["rows", "measured"]["buys@2"] == "300"
    alone = connection.execute("EVALUATE MODEL buys@2 AS SELECT * FROM people WHERE id < 300")
    figures = dict(zip([d.name for d in alone.description or ()], alone.fetchone() or (), strict=True))
    for name in ("roc_auc", "log_loss", "f1"):
        assert float(rows["metric", name]["buys@2"]) == pytest.approx(figures[name], rel=1e-5)


def test_a_threshold_and_a_parameter(connection: sqlml.Connection) -> None:
    connection.execute(SECOND)
    statement = "COMPARE MODELS buys@1, buys@2 WITH (threshold = ?) AS SELECT * FROM people WHERE id < ?"
    cursor = connection.execute(statement, [0.9, 200])
    strict = {row[1]: row for row in cursor.fetchall() if row[0] == "metric"}
    rows = compared(connection, "COMPARE MODELS buys@1, buys@2 AS SELECT * FROM people WHERE id < 200")
    assert float(strict["recall"][2]) < float(rows["metric", "recall"]["buys@1"])
    heldout = compared(connection, "COMPARE MODELS buys@1, buys@2 WITH (threshold = 0.9)")
    assert float(heldout["metric", "recall"]["buys@1"]) < 1


def test_clusters(connection: sqlml.Connection) -> None:
    connection.execute("TRAIN MODEL groups USING kmeans WITH (n_clusters = 2) ON inline AS SELECT age, balance FROM people")
    rows = compared(connection, "COMPARE MODELS groups@1, groups@2 AS FROM people")
    assert rows["metric", "mean_squared_distance"]["best"] == "groups@1"
    assert rows["option", "n_clusters"]["groups@2"] == "2"


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("COMPARE MODELS buys, spends", "spends@1 cannot be compared with buys@1: spends@1 is a regression of spent"),
        ("COMPARE MODELS buys, nope", "unknown model nope"),
        ("COMPARE MODELS buys, buys@1", "buys@1 is there twice"),
        ("COMPARE MODELS buys, buys@1 WITH (folds = 3)", "buys@1 is there twice"),
    ],
)
def test_what_cannot_be_compared(shared: sqlml.Connection, statement: str, message: str) -> None:
    with pytest.raises(sqlml.ProgrammingError) as raised:
        shared.execute(statement)
    assert raised.value.message.startswith(message)
    assert raised.value.span is not None


def test_wrong_options_and_queries(connection: sqlml.Connection) -> None:
    connection.execute(DEEPER)
    for rest, message in (
        ("WITH (folds = 3)", "COMPARE MODELS has no option folds"),
        ("WITH (threshold = 2)", "option threshold of COMPARE MODELS is a number"),
        ("AS SELECT age FROM people", "to evaluate buys@1 the query must give its target bought"),
        ("AS SELECT age, bought FROM people", "model buys@1 needs columns that this query does not have"),
    ):
        with pytest.raises(sqlml.ProgrammingError) as raised:
            connection.execute(f"COMPARE MODELS buys, other {rest}")
        assert raised.value.message.startswith(message)


def test_no_held_out_rows(connection: sqlml.Connection, database: Path) -> None:
    connection.execute(DEEPER.replace("WITH", "SPLIT NONE WITH"))
    with pytest.raises(sqlml.ProgrammingError, match="other@1 was trained without held-out rows"):
        connection.execute("COMPARE MODELS buys, other")
    assert compared(connection, "COMPARE MODELS buys, other AS FROM people")
