"""Queries over tables of connections beside those of home: what is brought, and what goes wrong on the way."""

from __future__ import annotations

import sqlite3
from collections.abc import Generator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pytest
import sqlalchemy as sa

import sqlml
from sqlml.contracts import Stream
from sqlml.errors import DataError, EngineError, Error, NotSupportedError, OperationalError
from tests.sessions import session_of

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``old.db`` of SQLite; ``mixed`` has a text after 1,500 numbers."""
    folder = tmp_path_factory.mktemp("connections")
    with sqlite3.connect(folder / "old.db") as old:
        old.execute("CREATE TABLE people (id INTEGER, age INTEGER, job TEXT, note TEXT, picture BLOB)")
        rows = [(i, 20 + i % 50, "cook" if i % 3 else None, "n" * 9, b"p") for i in range(400)]
        old.executemany("INSERT INTO people VALUES (?, ?, ?, ?, ?)", rows)
        old.execute("CREATE TABLE mixed (a, y TEXT)")
        old.executemany("INSERT INTO mixed VALUES (?, ?)", [(i if i < 1500 else "late", "x") for i in range(1600)])
    old.close()
    return folder


@pytest.fixture
def connection(folder: Path) -> Iterator[sqlml.Connection]:
    """A database in memory with ``few`` of its own, and ``old``, the connection."""
    with sqlml.connect() as opened:
        opened.execute(f"CREATE CONNECTION old TYPE sqlalchemy WITH (url = 'sqlite:///{folder}/old.db')")
        opened.execute("CREATE TABLE few AS SELECT i AS id, i % 2 AS k FROM range(10) AS r(i)")
        yield opened


@pytest.fixture
def sent(connection: sqlml.Connection) -> list[str]:
    """What the SQLite database is sent, as it comes."""
    connection.execute("SELECT count(*) FROM old.people").fetchall()
    engine = session_of(connection)._places.engine("old")
    texts: list[str] = []
    sa.event.listen(engine._engine, "before_cursor_execute", lambda c, cursor, text, *rest: texts.append(text))  # type: ignore[attr-defined]
    return texts


@pytest.mark.parametrize(
    ("query", "columns", "answer"),
    [
        ("SELECT sum(p.age) FROM old.people p JOIN few USING (id)", '"id", "age"', [(245,)]),
        ("SELECT count(*) FROM old.people, few WHERE k = 7", '"id"', [(0,)]),
        ("SELECT max(AGE * 2) FROM old.people, few", '"age"', [(138,)]),
        ("SELECT people.* FROM old.people, few WHERE people.id = 1 AND k = 1 LIMIT 1", "*", [(1, 21, "cook", "n" * 9, b"p")]),
        ("SELECT count(people) FROM old.people, few", "*", [(4000,)]),
    ],
)
def test_the_columns_that_a_query_names_are_brought(
    connection: sqlml.Connection, sent: list[str], query: str, columns: str, answer: list[tuple[object, ...]]
) -> None:
    assert connection.execute(query).fetchall() == answer
    assert sent[-1].partition(" WHERE ")[0] in (f"SELECT {columns} FROM people", f'SELECT {columns} FROM "people"')


def test_the_inputs_of_a_model_are_brought(connection: sqlml.Connection, sent: list[str]) -> None:
    connection.execute("TRAIN MODEL m TARGET age EXCLUDE (note, picture) WITH (n_estimators = 2) ON inline AS FROM old.people")
    found = connection.execute("SELECT id, PREDICT(m) > 0, m(*) > 0 FROM old.people WHERE id = 3").fetchall()
    assert found == [(3, True, True)]
    assert sent[-1].startswith('SELECT "id", "age", "job" FROM') or sent[-1].startswith('SELECT "id", "job" FROM')


def test_a_misspelt_column_is_told_before_rows_are_brought(connection: sqlml.Connection, sent: list[str]) -> None:
    for query, word in (("SELECT sum(p.agee) FROM old.people p, few", "p.agee"), ("SELECT agee FROM old.people, few", "agee")):
        with pytest.raises(EngineError, match="agee") as raised:
            connection.execute(query)
        assert raised.value.span is not None
        assert query[slice(*raised.value.span)] == word
        assert '"age"' in str(raised.value)
        assert "values list" not in str(raised.value).lower()
    assert all("WHERE 1 = 0" in text for text in sent if text.startswith("SELECT"))


@pytest.mark.parametrize(
    "query",
    [
        "SELECT max(a) FROM old.mixed, few",
        "CREATE TABLE copied AS SELECT a, k FROM old.mixed, few",
        "INSERT INTO few SELECT k, a FROM old.mixed, few",
    ],
)
def test_an_error_in_the_middle_of_the_rows_is_its_own(connection: sqlml.Connection, query: str) -> None:
    """DuckDB, which reads them, tells the text of the error with a stack trace; nobody sees that."""
    with pytest.raises(DataError, match=r"^the column a has values of several types") as raised:
        connection.execute(query).fetchall()
    assert raised.value.span is not None
    assert query[slice(*raised.value.span)] == "old.mixed"
    assert "Traceback" not in str(raised.value)
    assert connection.execute("SELECT count(*) FROM few").fetchone() == (10,)
    assert connection.execute("SELECT y, count(*) FROM old.mixed, few GROUP BY 1").fetchall() == [("x", 16000)]


def test_predictions_of_rows_that_fail_in_the_middle(connection: sqlml.Connection) -> None:
    connection.execute("TRAIN MODEL m TARGET k WITH (n_estimators = 1) ON inline AS SELECT id AS a, k FROM few")
    with pytest.raises(DataError, match=r"^the column a has values of several types"):
        connection.execute("PREDICT MODEL m INTO scores AS SELECT a FROM old.mixed")
    with pytest.raises(EngineError, match="does not exist"):
        connection.execute("FROM scores")


@pytest.mark.parametrize(
    ("statement", "message", "hint"),
    [
        ("SELECT * FROM old.peple", "no such table: peple", "did you mean people?"),
        ("SELECT * FROM old.peple, few", "no such table: peple", "did you mean people?"),
        ("SELECT * FROM odl.people", "does not exist", "did you mean old.…? old is a connection"),
        ("TRAIN MODEL m TARGET k AS SELECT * FROM odl.people", "does not exist", "did you mean old.…? old is a connection"),
        ("UPDATE old.people SET age = 3", "does not exist", "what changes tables of old is for that database itself to run"),
        ("DELETE FROM old.people", "is a table of the connection old", "what changes tables of old"),
        ("CREATE TABLE old.mine AS SELECT 1", "does not exist", "what changes tables of old"),
        ("CREATE TABLE mine AS SELECT nothing FROM old.people", '"nothing" not found', "Candidate bindings"),
        ("INSERT INTO nowhere SELECT id FROM old.people", "nowhere does not exist", "Did you mean"),
    ],
)
def test_what_is_said_of_mistakes(connection: sqlml.Connection, statement: str, message: str, hint: str) -> None:
    with pytest.raises(Error) as raised:
        connection.execute(statement)
    assert message in raised.value.message
    assert hint in (raised.value.hint or "")
    assert "__sqlml" not in str(raised.value)


def test_a_file_that_is_not_there(connection: sqlml.Connection, tmp_path: Path) -> None:
    connection.execute(f"CREATE CONNECTION no TYPE sqlalchemy WITH (url = 'sqlite:///{tmp_path}/no.db')")
    with pytest.raises(OperationalError, match=r"^connection no: cannot connect to sqlite") as raised:
        connection.execute("SELECT * FROM no.t")
    assert raised.value.hint == "there is no such file"


# --- predictions of a connection's rows -----------------------------------------------------------------------------------


@pytest.fixture
def bank(postgres: str) -> Iterator[sqlml.Connection]:
    """A database in memory with the model ``m``, and the connection ``pg`` with a table ``people``."""
    with psycopg.connect(postgres, autocommit=True) as owner:
        owner.execute(
            "CREATE TABLE people AS SELECT i AS id, i % 60 AS age, 'x' AS job, date '2026-01-01' + i AS since "
            "FROM generate_series(1, 300) AS i"
        )
    url = postgres.replace("postgres:@", "postgres@")
    with sqlml.connect() as opened:
        opened.execute(f"CREATE CONNECTION pg TYPE postgres WITH (url = '{url}')")
        opened.execute("CREATE TABLE few AS SELECT i % 60 AS age, i % 60 > 30 AS old FROM range(300) AS r(i)")
        opened.execute("TRAIN MODEL m TARGET old WITH (n_estimators = 3) ON inline AS FROM few")
        yield opened


@pytest.mark.parametrize(
    ("query", "is_there", "rows"),
    [
        ("SELECT id, PREDICT(m) FROM pg.people ORDER BY id LIMIT 2", True, [(1, False), (2, False)]),
        ("SELECT id, m(*), m(age + 30) AS p FROM pg.people WHERE id IN (3, 59) ORDER BY id", True, None),
        ("SELECT PREDICT_PROBA(m, true) > 0.5 AS p FROM pg.people WHERE id = 59", False, [(True,)]),
        ("SELECT PREDICT_REASONS(m, 1) FROM pg.people WHERE id = 59", True, None),
        ("SELECT id, PREDICT(m) FROM pg.people WHERE PREDICT(m) AND id < 32", False, [(31, True)]),
        ("SELECT PREDICT(m), count(*) FROM pg.people GROUP BY 1 ORDER BY 1", False, [(False, 155), (True, 145)]),
        ("SELECT p.id, PREDICT(m USING p.*) FROM pg.people p JOIN few USING (age) LIMIT 0", False, []),
        ("SELECT strftime(DATE '2020-01-01', '%Y') AS y, PREDICT(m) FROM pg.people WHERE id = 59", False, [("2020", True)]),
    ],
)
def test_rows_are_asked_for_where_they_are(
    bank: sqlml.Connection, query: str, is_there: bool, rows: list[tuple[object, ...]] | None
) -> None:
    """Calls that are whole columns of the result are answered from the rows that it has; for others tables are copied."""
    bound = session_of(bank)._queries.bind_there(query, (0, len(query)))
    assert (bound is not None) == is_there
    assert bound is None or (bound.at == "pg" and bound.text.endswith(query.partition("pg.")[2]))
    found = bank.execute(query).fetchall()
    assert rows is None or found == rows


def test_a_column_that_is_not_there_is_told_as_ever(bank: sqlml.Connection) -> None:
    query = "SELECT id, PREDICT(m) FROM (SELECT id, job FROM pg.people) AS q"
    with pytest.raises(Error, match="model m@1 needs columns that this query does not have: age") as raised:
        bank.execute(query)
    assert raised.value.span is not None
    assert query[slice(*raised.value.span)] == "PREDICT(m)"
    assert "it has: id, job\n" in (raised.value.hint or "")
    with pytest.raises(EngineError, match='relation "peple" does not exist') as other:
        bank.execute("SELECT id, PREDICT(m) FROM pg.peple")
    assert other.value.hint is not None
    assert "did you mean people?" in other.value.hint


def test_names_of_another_case(bank: sqlml.Connection) -> None:
    bank.execute('CREATE TABLE more AS SELECT age AS "AGE", old FROM few')
    bank.execute("TRAIN MODEL upper TARGET old WITH (n_estimators = 3) ON inline AS FROM more")
    assert bank.execute("SELECT PREDICT(upper) FROM pg.people WHERE id = 59").fetchall() == [(True,)]


def test_explain_is_the_databases_own(bank: sqlml.Connection) -> None:
    [[plan]] = bank.execute("EXPLAIN (COSTS off) SELECT age FROM pg.people").fetchall()
    assert plan == "Seq Scan on people"
    with pytest.raises(Error, match="is a table of the connection pg"):
        bank.execute("EXPLAIN ANALYZE DELETE FROM pg.people")
    assert bank.execute("SELECT count(*) FROM pg.people").fetchone() == (300,)


# --- how many rows travel ---------------------------------------------------------------------------------------------------


def travelled(connection: sqlml.Connection, name: str, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """(rows, columns) of each result that an engine gives from now on, counted as its batches are read."""
    engine = session_of(connection)._places.engine(name)
    found: list[tuple[int, int]] = []
    run = engine.run

    def counting(text: str, parameters: Any = ()) -> Stream:
        stream = run(text, parameters)
        place = len(found)
        found.append((0, len(stream.schema)))

        def batches() -> Generator[pa.RecordBatch, None, None]:
            for batch in stream.batches:
                found[place] = (found[place][0] + batch.num_rows, found[place][1])
                yield batch

        return replace(stream, batches=batches())

    monkeypatch.setattr(engine, "run", counting)
    return found


@pytest.mark.parametrize(
    ("query", "values", "rows", "brought"),
    [
        ("SELECT id, PREDICT(m) AS p FROM pg.people WHERE id < ? ORDER BY id", [3], [(1, False), (2, False)], 2),
        ("SELECT id, m(age + ?) AS p FROM pg.people WHERE id = ?", [30, 5], [(5, True)], 1),
        ("SELECT id, m(age + $b) AS p FROM pg.people WHERE id = $a", {"a": 5, "b": 30}, [(5, True)], 1),
        ("SELECT id FROM pg.people WHERE PREDICT(m) AND id BETWEEN 30 AND ?", [32], [(31,), (32,)], 3),
        ("SELECT id, PREDICT(m USING CAST(PREDICT(m) AS INT) AS age) AS p FROM pg.people WHERE id = 59", (), [(59, False)], 1),
        ("SELECT count(*) FROM pg.people p JOIN few USING (age) WHERE p.id IN (59, 119) AND few.age > 58", (), [(10,)], 2),
        ("SELECT count(*) FROM few LEFT JOIN pg.people p USING (age) WHERE p.id IS NULL", (), [(0,)], 300),
        ("SELECT count(*) FROM pg.people AS p, few WHERE p.job = 'x' AND p.id < 3 AND p.since >= '2026-01-03'", (), [(300,)], 1),
        ("SELECT count(*) FROM few WHERE age IN (SELECT age FROM pg.people WHERE id = 59)", (), [(5,)], 1),
        ("SELECT count(*) FROM few, pg.people p WHERE p.id / 2 = 1", (), [(300,)], 300),
    ],
)
def test_only_the_rows_that_a_query_asks_for_travel(
    bank: sqlml.Connection,
    monkeypatch: pytest.MonkeyPatch,
    query: str,
    values: Any,
    rows: list[tuple[object, ...]],
    brought: int,
) -> None:
    counted = travelled(bank, "pg", monkeypatch)
    assert bank.execute(query, values).fetchall() == rows
    assert counted[-1][0] == brought
    assert counted[-1][1] <= 3


def test_rows_of_sqlite_for_a_model(connection: sqlml.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    connection.execute("TRAIN MODEL m TARGET k WITH (n_estimators = 1) ON inline AS SELECT id AS age, k FROM few")
    counted = travelled(connection, "old", monkeypatch)
    found = connection.execute("SELECT id, PREDICT(m) IS NULL FROM old.people WHERE id = ? AND age < 40.5", [7]).fetchall()
    assert found == [(7, False)]
    assert counted[-1] == (1, 2)
    assert connection.execute("PREDICT MODEL m AS SELECT age FROM old.people WHERE job = 'cook' AND id < 3").fetchall() != []
    assert counted[-1][0] == 2
    query = "SELECT count(*) FROM (SELECT id, PREDICT(m) AS p FROM old.people WHERE id >= 398 AND note > 'a') AS q, few"
    assert connection.execute(query).fetchall() == [(20,)]
    assert counted[-1] == (2, 3)


def test_a_database_that_only_reads_is_not_predicted_into(connection: sqlml.Connection, sent: list[str]) -> None:
    connection.execute("TRAIN MODEL m TARGET k WITH (n_estimators = 1) ON inline AS SELECT id AS age, k FROM few")
    sent.clear()
    statement = "PREDICT MODEL m INTO old.scores AS SELECT age FROM old.people"
    for text in (statement, f"EXPLAIN {statement}"):
        with pytest.raises(NotSupportedError, match="the sqlite database behind old can only be read from") as raised:
            connection.execute(text)
        assert raised.value.span is not None
        assert text[slice(*raised.value.span)] == "old.scores"
    assert sent == []


def test_a_comparison_that_the_connection_refuses_is_made_at_home(bank: sqlml.Connection, postgres: str) -> None:
    """A label that an enum has not is an error in PostgreSQL; in DuckDB no row is equal to it."""
    with psycopg.connect(postgres, autocommit=True) as owner:
        owner.execute("CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE TABLE moods (m mood); INSERT INTO moods VALUES ('ok')")
    assert bank.execute("SELECT count(*) FROM pg.moods AS q, few WHERE q.m = 'good'").fetchall() == [(0,)]
    assert bank.execute("SELECT count(*) FROM pg.moods AS q, few WHERE q.m = 'ok'").fetchall() == [(300,)]
