"""What takes part in the database's transactions and what is refused inside one."""

from __future__ import annotations

import pytest

import sqlml


def count(connection: sqlml.Connection, table: str) -> int:
    [(number,)] = connection.execute(f"SELECT count(*) FROM {table}").fetchall()
    return int(number)


def test_predict_into_rolls_back(connection: sqlml.Connection) -> None:
    connection.begin()
    connection.execute("PREDICT MODEL buys INTO scores AS FROM people")
    assert count(connection, "scores") == 600
    connection.execute("EXPLAIN MODEL buys INTO weights")
    connection.rollback()
    assert connection.execute("SHOW TABLES").fetchall() == [("people",)]


@pytest.mark.parametrize("statement", ["SAVEPOINT here", "RELEASE SAVEPOINT here", "ROLLBACK TO here"])
def test_savepoints_are_refused_with_the_reason(connection: sqlml.Connection, statement: str) -> None:
    connection.execute("BEGIN")
    with pytest.raises(sqlml.NotSupportedError, match="no savepoints"):
        connection.execute(statement)
    connection.execute("ROLLBACK")


def test_predict_into_commits(connection: sqlml.Connection) -> None:
    connection.execute("CREATE VIEW w AS SELECT PREDICT(spends) AS p FROM people")
    connection.execute("BEGIN")
    connection.execute("PREDICT MODEL buys INTO scores AS FROM people")
    connection.execute("CREATE VIEW v AS SELECT PREDICT(spends) AS p FROM people")
    assert count(connection, "v") == 600
    connection.execute("COMMIT")
    assert count(connection, "scores") == count(connection, "v") == 600


def test_a_view_over_a_model_first_used_inside(connection: sqlml.Connection) -> None:
    connection.begin()
    with pytest.raises(sqlml.NotSupportedError) as raised:
        connection.execute("CREATE VIEW v AS SELECT PREDICT(spends) AS p FROM people")
    assert str(raised.value) == (
        "inside an open transaction no view or macro can begin to call spends@1\n  COMMIT or ROLLBACK first"
    )
    connection.rollback()
    connection.execute("CREATE VIEW v AS SELECT PREDICT(spends) AS p FROM people")
    assert count(connection, "v") == 600


@pytest.mark.parametrize(
    "statement",
    [
        "TRAIN MODEL m TARGET bought ON inline AS FROM people",
        "ALTER MODEL buys SET ALIAS champion = 1",
        "DROP MODEL buys",
        "DEPLOY MODEL buys",
        "UNDEPLOY ENDPOINT buys",
    ],
)
def test_refused_inside(connection: sqlml.Connection, statement: str) -> None:
    connection.begin()
    connection.execute("CREATE TABLE mine AS SELECT 1 AS a")
    with pytest.raises(sqlml.NotSupportedError, match="cannot run inside an open transaction") as raised:
        connection.execute(statement)
    assert "COMMIT or ROLLBACK first" in str(raised.value)
    assert count(connection, "mine") == 1
    connection.commit()
    assert count(connection, "mine") == 1
    assert len(connection.execute("SHOW MODELS").fetchall()) == 3


def test_questions_inside(connection: sqlml.Connection) -> None:
    connection.begin()
    assert len(connection.execute("SHOW MODELS").fetchall()) == 3
    assert connection.execute("DESCRIBE MODEL buys").fetchall()
    assert connection.execute("EVALUATE MODEL buys AS FROM people").fetchone() is not None
    assert connection.execute("EXPLAIN TRAIN MODEL m TARGET bought AS FROM people").fetchall()
    with pytest.raises(sqlml.ProgrammingError, match="exists already"):
        connection.execute("PREDICT MODEL buys INTO people AS FROM people")
    assert count(connection, "people") == 600
    connection.rollback()


def test_an_aborted_transaction_says_so(connection: sqlml.Connection) -> None:
    connection.begin()
    with pytest.raises(sqlml.Error):
        connection.execute("SELECT * FROM nowhere")
    with pytest.raises(sqlml.Error, match=r"(?i)transaction"):
        connection.execute("SELECT PREDICT(buys) FROM people").fetchall()
    connection.rollback()
    assert connection.execute("SELECT count(PREDICT(buys)) FROM people").fetchone() == (600,)


def _fail_inside(database: object) -> None:
    with sqlml.connect(database) as connection:  # type: ignore[arg-type]
        connection.begin()
        connection.execute("PREDICT MODEL buys INTO scores AS FROM people")
        raise ValueError("mine")


def test_the_context_manager(database: object) -> None:
    with pytest.raises(ValueError, match="mine"):
        _fail_inside(database)
    with sqlml.connect(database) as connection:  # type: ignore[arg-type]
        assert connection.execute("SHOW TABLES").fetchall() == [("people",)]
        connection.begin()
        connection.execute("PREDICT MODEL buys INTO scores AS FROM people")
    with sqlml.connect(database) as connection:  # type: ignore[arg-type]
        assert count(connection, "scores") == 600


def test_versions_within_one_transaction_and_after(connection: sqlml.Connection, database: object) -> None:
    with sqlml.connect(database) as other:  # type: ignore[arg-type]
        connection.begin()
        before = connection.execute("SELECT sum(PREDICT_PROBA(buys, 'yes')) FROM people").fetchone()
        other.execute("TRAIN MODEL buys TARGET bought EXCLUDE (id, spent) WITH (n_estimators = 2) ON inline AS FROM people")
        after = connection.execute("SELECT sum(PREDICT_PROBA(buys, 'yes')) FROM people").fetchone()
        connection.rollback()
        assert before != after == other.execute("SELECT sum(PREDICT_PROBA(buys, 'yes')) FROM people").fetchone()
        assert connection.execute("SELECT sum(PREDICT_PROBA(buys, 'yes')) FROM people").fetchone() == after


@pytest.mark.parametrize("inside", [False, True])
def test_statements_of_ours_take_no_rows_of_values(connection: sqlml.Connection, inside: bool) -> None:
    if inside:
        connection.begin()
    for statement in ("DROP MODEL buys", "PREDICT MODEL buys AS SELECT * FROM people WHERE id = ?"):
        with pytest.raises(sqlml.NotSupportedError, match="values for many rows are for the database's own statements") as raised:
            connection.cursor().executemany(statement, [(1,), (2,)])
        assert "run it once for each" in str(raised.value)
    with pytest.raises(sqlml.ProgrammingError, match="this text has 2"):
        connection.cursor().executemany("CREATE TABLE a AS SELECT 1; DROP MODEL buys", [()])
    assert len(connection.execute("SHOW MODELS").fetchall()) == 3


def test_every_way_in_is_authorised(connection: sqlml.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    import sqlml.session

    seen: list[str] = []
    monkeypatch.setattr(sqlml.session, "authorise", lambda principal, statement: seen.append(statement.kind))
    connection.execute("CREATE TABLE mine (a INTEGER)")
    connection.cursor().executemany("INSERT INTO mine VALUES (?)", [(1,), (2,)])
    assert len(seen) == 2
    assert count(connection, "mine") == 2
