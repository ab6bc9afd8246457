"""EXPLAIN MODEL: of several targets, of TRANSFORM, and of models that cannot tell."""

from __future__ import annotations

import pytest

import sqlml


def test_several_targets(connection: sqlml.Connection) -> None:
    connection.execute(
        "TRAIN MODEL both USING xgboost TARGET bought, spent EXCLUDE (id) WITH (n_estimators = 4) ON inline AS FROM people"
    )
    cursor = connection.execute("EXPLAIN MODEL both")
    assert [d.name for d in cursor.description or ()] == ["target", "feature", "importance"]
    rows = cursor.fetchall()
    assert {row[0] for row in rows} == {"bought", "spent"}
    for target in ("bought", "spent"):
        own = [row for row in rows if row[0] == target]
        assert own[0][1] == "age"
        assert sum(row[2] for row in own) == pytest.approx(1)
    assert len(connection.execute("EXPLAIN MODEL both TOP 1").fetchall()) == 2
    connection.execute("EXPLAIN MODEL both INTO weights")
    assert connection.execute("SELECT target, feature, importance FROM weights").fetchall() == rows
    with pytest.raises(sqlml.ProgrammingError, match="EXPLAIN MODEL of single rows is for models of one target"):
        connection.execute("EXPLAIN MODEL both AS FROM people")


def test_what_transform_makes(connection: sqlml.Connection) -> None:
    connection.execute(
        "TRAIN MODEL made USING xgboost_classifier TARGET bought TRANSFORM (age * 2 AS twice, job) WITH (n_estimators = 4) "
        "ON inline AS FROM people"
    )
    assert {row[0] for row in connection.execute("EXPLAIN MODEL made").fetchall()} == {"twice", "job"}
    [row] = connection.execute("EXPLAIN MODEL made TOP 1 AS SELECT age, job FROM people WHERE id = 1").fetchall()
    assert row[:3] == (62, "clerk", "yes")
    assert [(reason["feature"], reason["value"]) for reason in row[3]] == [("twice", "124")]


@pytest.mark.parametrize(
    ("training", "rest", "message", "hint"),
    [
        (
            "USING nearest_neighbors_classifier TARGET bought",
            "",
            "nearest_neighbors_classifier cannot tell",
            "xgboost_classifier",
        ),
        ("USING isolation_forest", "", "isolation_forest cannot tell", "PREDICT MODEL m@1 AS … gives each row's score"),
        ("USING pca", "AS FROM people", "pca cannot tell", "without a query"),
        ("USING transform_only TRANSFORM (age * 2 AS twice)", "", "m@1 only transforms", "DESCRIBE MODEL m@1"),
    ],
)
def test_models_that_cannot_tell(connection: sqlml.Connection, training: str, rest: str, message: str, hint: str) -> None:
    connection.execute(
        f"TRAIN MODEL m {training} ON inline AS SELECT age, balance, bought FROM people".replace(
            ", bought", ", bought" if "TARGET" in training else ""
        )
    )
    for statement in (f"EXPLAIN MODEL m {rest}", f"EXPLAIN EXPLAIN MODEL m {rest}"):
        with pytest.raises(sqlml.ProgrammingError) as raised:
            connection.execute(statement)
        assert raised.value.message.startswith(message)
        assert hint in (raised.value.hint or "")
        assert raised.value.span is not None


def test_components(connection: sqlml.Connection) -> None:
    connection.execute("TRAIN MODEL m USING pca WITH (n_components = 2) ON inline AS SELECT age, balance, spent FROM people")
    rows = connection.execute("EXPLAIN MODEL m").fetchall()
    assert sum(row[1] for row in rows) == pytest.approx(1)


def test_a_column_that_is_there_already(shared: sqlml.Connection) -> None:
    with pytest.raises(sqlml.ProgrammingError, match="the query has a column reasons already"):
        shared.execute("EXPLAIN MODEL buys AS SELECT *, 1 AS reasons FROM people")
    with pytest.raises(sqlml.ProgrammingError, match="model buys@1 needs columns"):
        shared.execute("EXPLAIN MODEL buys AS SELECT age FROM people")
