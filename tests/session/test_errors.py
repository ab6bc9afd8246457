"""Every wrong statement gives its exact message, and changes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

import sqlml
from tests.dialect.golden import read_messages

MESSAGES = [*read_messages("errors/statements.txt"), *read_messages("errors/deploy_query.txt")]


def state(connection: sqlml.Connection) -> list[tuple[object, ...]]:
    """Everything that a refused statement must leave as it was."""
    questions = (
        "SELECT table_name, estimated_size FROM duckdb_tables() WHERE NOT internal ORDER BY ALL",
        "SELECT view_name FROM duckdb_views() WHERE NOT internal ORDER BY ALL",
        "SELECT model, version, bundle FROM sqlml.versions ORDER BY ALL",
        "SELECT job, state FROM sqlml.jobs ORDER BY ALL",
        "SELECT * FROM sqlml.models ORDER BY ALL",
        "SELECT count(*) FROM sqlml.metrics",
        "SELECT endpoint FROM sqlml.endpoints",
    )
    home = connection.models_home
    assert home is not None
    files = sorted(str(path) for path in Path(home).rglob("*") if not path.name.startswith("catalog.db"))
    return [row for question in questions for row in connection.execute(question).fetchall()] + [(file,) for file in files]


@pytest.fixture(scope="module")
def untouched(shared: sqlml.Connection) -> list[tuple[object, ...]]:
    return state(shared)


@pytest.mark.parametrize(("statement", "message"), MESSAGES, ids=[statement for statement, _ in MESSAGES])
def test_message(shared: sqlml.Connection, untouched: list[tuple[object, ...]], statement: str, message: str) -> None:
    with pytest.raises(sqlml.DatabaseError) as raised:
        shared.execute(statement).fetchall()
    assert str(raised.value) == message
    assert "__sqlml" not in message
    assert state(shared) == untouched
    assert raised.value.__cause__ is None or not isinstance(raised.value.__cause__, sqlml.Error)


def test_the_pieces_of_an_error(shared: sqlml.Connection) -> None:
    text = "SELECT 1;\nTRAIN MODEL m USING xgbost_classifier TARGET bought AS FROM people"
    with pytest.raises(sqlml.ProgrammingError) as raised:
        shared.execute(text)
    error = raised.value
    assert error.message == "unknown algorithm xgbost_classifier"
    assert error.source is not None
    assert error.span is not None
    assert error.source[slice(*error.span)] == "xgbost_classifier"
    assert error.hint is not None
    assert "\n  line 2:  TRAIN" in str(error)


def test_a_script_stops_at_its_first_error(connection: sqlml.Connection) -> None:
    with pytest.raises(sqlml.ProgrammingError):
        connection.execute("CREATE TABLE one (a INT); SELECT PREDICT(nobody) FROM people; CREATE TABLE two (a INT)")
    tables = [name for (name,) in connection.execute("SHOW TABLES").fetchall()]
    assert tables == ["one", "people"]


def test_a_script_with_a_misspelt_statement_of_ours_does_not_begin(connection: sqlml.Connection) -> None:
    with pytest.raises(sqlml.ProgrammingError, match="unknown clause TARGTE"):
        connection.execute("CREATE TABLE one (a INT); TRAIN MODEL m TARGTE bought AS FROM people")
    assert connection.execute("SHOW TABLES").fetchall() == [("people",)]
