"""What a runner cannot do is said before any row is read for it, and by EXPLAIN."""

from __future__ import annotations

from typing import Any

import pytest

import sqlml

UNREADABLE = "SELECT id, age, bought, CASE WHEN age >= 0 THEN error('a row was read') END AS never FROM people"
"""The database knows its columns, and gives no row of it."""


@pytest.fixture
def far(connection: sqlml.Connection) -> sqlml.Connection:
    """With a runner whose cluster is not to be reached, and one of this machine."""
    connection.execute("CREATE RUNNER far TYPE spark WITH (master = 'spark://127.0.0.1:1')")
    connection.execute("CREATE RUNNER served TYPE spark WITH (connect = 'sc://127.0.0.1:1')")
    connection.execute("CREATE RUNNER near TYPE spark WITH (master = 'local[1]')")
    connection.execute("CREATE RUNNER crowded TYPE spark WITH (master = 'local[2]', workers = 3)")
    connection.execute(f"CREATE RUNNER lost TYPE spark WITH (master = 'spark://127.0.0.1:1', staging = '{__file__}/nowhere')")
    return connection


def refusal(connection: sqlml.Connection, statement: str) -> Any:
    with pytest.raises(sqlml.Error) as caught:
        connection.execute(statement)
    with pytest.raises(sqlml.Error) as explained:
        connection.execute(f"EXPLAIN {statement}")
    assert explained.value.args == caught.value.args
    return caught.value


@pytest.mark.parametrize(
    ("clauses", "runner", "reason", "place"),
    [
        ("USING random_forest TARGET bought", "far", "random_forest does not learn on Spark", "random_forest"),
        ("USING xgboost TARGET bought, age", "far", "more than one target does not run on Spark (far)", "bought"),
        (
            "USING xgboost TARGET bought TUNE (max_depth IN (2, 3)) TRIALS 2",
            "far",
            "TUNE does not run on Spark (far)",
            "(max_depth IN (2, 3)) TRIALS 2",
        ),
        ("TARGET bought LIMIT (MEMORY '1 GB')", "far", "the runner far cannot hold a memory limit", "(MEMORY '1 GB')"),
        (
            "TARGET bought LIMIT (MEMORY '1 GB')",
            "inline",
            "the runner inline cannot hold a memory limit",
            "(MEMORY '1 GB')",
        ),
        ("TARGET bought", "served", "TRAIN over Spark Connect does not run on Spark (served)", "served"),
        ("USING xgboost TARGET bought WITH (device = 'cuda:99')", "process", "device = 'cuda:99': there ", "device = 'cuda:99'"),
        (
            "USING xgboost TARGET bought WITH (tree_method = 'exact')",
            "near",
            "'exact' cannot be distributed",
            "tree_method = 'exact'",
        ),
        ("USING xgboost TARGET bought", "crowded", "needs its 3 workers at the same time, and the cluster runs 2", "crowded"),
        ("TARGET bought", "far", "the workers of far do not see this machine's files", "far"),
        ("TARGET bought", "lost", "/nowhere' of the runner lost cannot be used: ", "lost"),
        ("USING xgboost TARGET bought WITH (device = 'cuda:99')", "near", "device = 'cuda:99': there ", "device = 'cuda:99'"),
    ],
)
def test_a_job_is_refused_before_its_rows_are_read(
    far: sqlml.Connection, clauses: str, runner: str, reason: str, place: str
) -> None:
    error = refusal(far, f"TRAIN MODEL m {clauses} ON {runner} AS {UNREADABLE}")
    assert reason in str(error)
    assert "a row was read" not in str(error)
    assert error.source[slice(*error.span)] == place


def test_a_prediction_is_refused_before_its_rows_are_read(far: sqlml.Connection) -> None:
    for runner, reason in (("far", "do not see this machine's files"), ("lost", "cannot be used")):
        error = refusal(far, f"PREDICT MODEL buys ON {runner} AS {UNREADABLE.replace('id, ', 'id, job, balance, ')}")
        assert reason in str(error)
        assert error.source[slice(*error.span)] == runner


def test_an_error_of_the_job_itself_bears_its_place_from_there(connection: sqlml.Connection) -> None:
    """What only the values tell: the job writes what it is about, and the statement knows where that stands."""
    statement = "TRAIN MODEL m TARGET bought WEIGHT w ON process AS SELECT age, bought, -1 AS w FROM people"
    with pytest.raises(sqlml.DataError, match="must be finite and not below 0") as caught:
        connection.execute(statement)
    assert (caught.value.about, caught.value.span) == ("weight", (statement.index("w ON"), statement.index("w ON") + 1))
    option = "class_weight = {'maybe': 2}"
    statement = f"TRAIN MODEL m USING logistic_regression TARGET bought WITH ({option}) ON inline AS FROM people"
    with pytest.raises(sqlml.ProgrammingError, match="class_weight names the class") as wrong:
        connection.execute(statement)
    assert wrong.value.span is not None
    assert statement[slice(*wrong.value.span)] == option
