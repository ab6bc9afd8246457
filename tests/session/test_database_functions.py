"""DEPLOY MODEL … TO DATABASE, UNDEPLOY FUNCTION: functions of a real PostgreSQL, called by a client that knows no sqlml."""

from __future__ import annotations

import json
from collections.abc import Iterator

import psycopg
import pytest

import sqlml
from tests.sessions import session_of

ROWS = "SELECT id, age, job, balance FROM people ORDER BY id LIMIT 40"


@pytest.fixture
def bank(connection: sqlml.Connection, postgres: str) -> Iterator[tuple[sqlml.Connection, psycopg.Connection]]:
    """A DuckDB home with models and the connection ``pg``, and a plain client of that database."""
    connection.execute(f"CREATE CONNECTION pg TYPE postgres WITH (url = '{postgres}')")
    with psycopg.connect(postgres, autocommit=True) as client:
        yield connection, client


def test_a_function_answers_any_client(bank: tuple[sqlml.Connection, psycopg.Connection]) -> None:
    connection, client = bank
    [(function, version, database, arguments)] = connection.execute("DEPLOY MODEL buys TO DATABASE pg").fetchall()
    assert (function, version, database) == ("public.buys", "buys@1", "pg")
    assert [part.split(" ")[0] for part in arguments.split(", ")] == ["age", "job", "balance"]
    expected = connection.execute(f"SELECT PREDICT(buys), PREDICT_PROBA(buys, 'yes') FROM ({ROWS})").fetchall()
    for (_, *row), (label, share) in zip(connection.execute(ROWS).fetchall(), expected, strict=True):
        [(answer, probs)] = client.execute("SELECT buys(%s, %s, %s), buys_proba(%s, %s, %s)", [*row, *row]).fetchall()
        assert answer == label
        assert probs["yes"] == pytest.approx(share, abs=1e-6)


def test_the_footer_can_be_tried(bank: tuple[sqlml.Connection, psycopg.Connection]) -> None:
    connection, client = bank
    client.execute('CREATE SCHEMA "My Schema"')
    _, result = connection.session.execute('DEPLOY MODEL spends TO DATABASE pg AS FUNCTION "My Schema"."Spend"')
    assert result.footer is not None
    assert result.footer.startswith('try: SELECT "My Schema"."Spend"(')
    [(answer,)] = client.execute(result.footer.removeprefix("try: ")).fetchall()
    assert isinstance(answer, float)


def test_another_version_takes_its_place(bank: tuple[sqlml.Connection, psycopg.Connection]) -> None:
    connection, client = bank
    connection.execute("DEPLOY MODEL spends TO DATABASE pg AS FUNCTION Guess")
    connection.execute("TRAIN MODEL spends USING linear_regression TARGET spent ON inline AS SELECT age, spent FROM people")
    connection.execute("DEPLOY MODEL spends@2 TO DATABASE pg AS FUNCTION guess")
    rows = connection.execute("SELECT function, database, model, version FROM sqlml.functions").fetchall()
    assert rows == [("public.guess", "pg", "spends", 2)]
    assert client.execute("SELECT count(*) FROM pg_proc WHERE proname = 'guess'").fetchall() == [(1,)]
    expected = connection.execute("SELECT PREDICT(spends@2 USING 30 AS age)").fetchall()
    assert client.execute("SELECT guess(30)").fetchall()[0][0] == pytest.approx(expected[0][0], rel=1e-9)


class Broken(Exception):
    """What happens to a catalog."""


def test_a_catalog_that_fails_leaves_the_database_as_it_was(
    bank: tuple[sqlml.Connection, psycopg.Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    connection, client = bank

    def fail(*_: object) -> None:
        raise Broken("disk full")

    connection.execute("DEPLOY MODEL spends TO DATABASE pg AS FUNCTION guess")
    row = connection.execute("SELECT age, job, balance, spent IS NULL FROM people LIMIT 1").fetchall()[0][:-1]
    call = f"SELECT guess({', '.join(['%s'] * len(row))})"
    before = client.execute(call, row).fetchall()
    connection.execute("TRAIN MODEL spends USING linear_regression TARGET spent ON inline AS SELECT age, spent FROM people")
    monkeypatch.setattr(session_of(connection)._catalog, "record_function", fail)
    with pytest.raises(Broken, match="disk full"):
        connection.execute("DEPLOY MODEL spends@2 TO DATABASE pg AS FUNCTION guess")
    with pytest.raises(Broken, match="disk full"):
        connection.execute("DEPLOY MODEL spends@2 TO DATABASE pg AS FUNCTION public.other")
    assert connection.session.notices == []
    assert client.execute(call, row).fetchall() == before
    assert client.execute("SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace").fetchall() == [("guess",)]
    comment = client.execute("SELECT obj_description('guess'::regproc, 'pg_proc')").fetchall()
    assert comment == [("sqlml predict: spends@1, deployed by sqlml",)]
    rows = connection.execute("SELECT function, version FROM sqlml.functions").fetchall()
    assert rows == [("public.guess", 1)]


@pytest.mark.parametrize("there", [True, False])
def test_what_cannot_be_put_back_is_a_notice(
    bank: tuple[sqlml.Connection, psycopg.Connection], monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    connection, client = bank

    def fail(*_: object) -> None:
        client.execute("DROP FUNCTION guess")
        client.execute("CREATE FUNCTION guess(a int) RETURNS int LANGUAGE sql AS 'SELECT 7'")
        raise Broken("disk full")

    if there:
        connection.execute("DEPLOY MODEL spends TO DATABASE pg AS FUNCTION guess")
    monkeypatch.setattr(session_of(connection)._catalog, "record_function", fail)
    with pytest.raises(Broken, match="disk full"):
        connection.execute("DEPLOY MODEL spends TO DATABASE pg AS FUNCTION guess")
    [notice] = connection.session.notices
    noted = "spends@1 is noted for it" if there else "nothing is noted of it"
    assert notice.startswith(f"the database keeps the new function public.guess, while {noted}: ")
    assert "that sqlml did not make" in notice


def test_names_are_folded_as_the_database_does(bank: tuple[sqlml.Connection, psycopg.Connection]) -> None:
    connection, client = bank
    connection.execute('DEPLOY MODEL spends TO DATABASE pg AS FUNCTION "Guess"')
    connection.execute("DEPLOY MODEL spends TO DATABASE pg AS FUNCTION GUESS")
    connection.execute("UNDEPLOY FUNCTION Guess FROM DATABASE pg")
    assert client.execute("SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace").fetchall() == [("Guess",)]
    connection.execute('UNDEPLOY FUNCTION "Guess" FROM DATABASE pg')
    assert connection.execute("SHOW DEPLOYED FUNCTIONS").fetchall() == []


def test_what_is_not_ours_stays(bank: tuple[sqlml.Connection, psycopg.Connection]) -> None:
    connection, client = bank
    client.execute("CREATE FUNCTION buys(a int) RETURNS int LANGUAGE sql AS 'SELECT 7'")
    with pytest.raises(sqlml.ProgrammingError, match="that sqlml did not make"):
        connection.execute("DEPLOY MODEL buys TO DATABASE pg")
    assert connection.execute("SHOW DEPLOYED FUNCTIONS").fetchall() == []
    assert client.execute("SELECT buys(1)").fetchall() == [(7,)]
    with pytest.raises(sqlml.ProgrammingError, match="unknown function buys of connection pg"):
        connection.execute("UNDEPLOY FUNCTION buys FROM DATABASE pg")


def test_undeploy_and_drop(bank: tuple[sqlml.Connection, psycopg.Connection]) -> None:
    connection, client = bank

    def there() -> list[str]:
        return [name for (name,) in client.execute("SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace")]

    connection.execute("DEPLOY MODEL buys TO DATABASE pg")
    connection.execute("DEPLOY MODEL spends TO DATABASE pg AS FUNCTION guess")
    with pytest.raises(sqlml.ProgrammingError, match="unknown function gues of connection pg") as raised:
        connection.execute("UNDEPLOY FUNCTION gues FROM DATABASE pg")
    assert raised.value.hint == "did you mean guess?"
    with pytest.raises(sqlml.ProgrammingError, match="unknown function guess") as raised:
        connection.execute("UNDEPLOY FUNCTION guess")
    assert raised.value.hint == "it is in pg: UNDEPLOY FUNCTION guess FROM DATABASE pg"
    connection.execute("UNDEPLOY FUNCTION public.guess FROM DATABASE PG")
    assert sorted(there()) == ["buys", "buys_proba"]
    with pytest.raises(sqlml.ProgrammingError, match=r"model buys is deployed as the function public\.buys"):
        connection.execute("DROP MODEL buys")
    connection.execute("DROP MODEL buys CASCADE")
    assert there() == []
    assert connection.execute("SHOW DEPLOYED FUNCTIONS").fetchall() == []
    connection.execute("DROP CONNECTION pg")


def test_a_function_that_somebody_dropped_is_forgotten(bank: tuple[sqlml.Connection, psycopg.Connection]) -> None:
    connection, client = bank
    connection.execute("DEPLOY MODEL spends TO DATABASE pg")
    client.execute("DROP FUNCTION spends")
    connection.execute("UNDEPLOY FUNCTION spends FROM DATABASE pg")
    assert connection.session.notices == ["there is no function public.spends in the database: public.spends is forgotten"]
    assert connection.execute("SHOW DEPLOYED FUNCTIONS").fetchall() == []


def test_explain_shows_the_function_and_makes_none(bank: tuple[sqlml.Connection, psycopg.Connection]) -> None:
    connection, client = bank
    [(plan,)] = connection.execute("EXPLAIN (FORMAT JSON) DEPLOY MODEL buys TO DATABASE pg AS FUNCTION f").fetchall()
    found = json.loads(plan)
    assert (found["node"], found["model"], found["database"], found["engine"]) == ("deploy", "buys", "pg", "postgres")
    assert found["function"].startswith("f(age ")
    assert found["nodes"] > 8
    assert found["memory"] > found["nodes"]
    assert client.execute("SELECT count(*) FROM pg_proc WHERE proname = 'f'").fetchall() == [(0,)]
    connection.execute("DEPLOY MODEL buys TO DATABASE pg AS FUNCTION f")
    [(plan,)] = connection.execute("EXPLAIN (FORMAT JSON) UNDEPLOY FUNCTION f FROM DATABASE pg").fetchall()
    assert json.loads(plan) == {"node": "undeploy", "function": "public.f", "database": "pg", "now": "buys@1"}


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("DEPLOY MODEL buys TO DATABASE pgg", "unknown connection pgg"),
        ("DEPLOY MODEL byus TO DATABASE pg", "unknown model byus"),
        ("DEPLOY MODEL buys TO DATABASE", "functions of postgres databases only: this database is of type duckdb"),
        ("DEPLOY MODEL buys TO DATABASE pg AS FUNCTION a.b.c", "its schema and its name, at most"),
        ("DEPLOY MODEL buys TO DATABASE pg AS FUNCTION nowhere.f", "nowhere"),
        ("BEGIN; DEPLOY MODEL buys TO DATABASE pg", "cannot run inside an open transaction"),
    ],
)
def test_mistakes(bank: tuple[sqlml.Connection, psycopg.Connection], statement: str, message: str) -> None:
    connection, client = bank
    with pytest.raises(sqlml.DatabaseError, match=message):
        connection.execute(statement)
    assert client.execute("SELECT count(*) FROM pg_proc WHERE pronamespace = 'public'::regnamespace").fetchall() == [(0,)]


def test_the_homes_own_database(postgres: str) -> None:
    with sqlml.connect(postgres) as connection:
        connection.execute("CREATE TABLE t AS SELECT i AS x, 2 * i AS y FROM generate_series(1, 200) AS s(i)")
        connection.execute("TRAIN MODEL line USING linear_regression TARGET y ON inline AS SELECT * FROM t")
        connection.execute("DEPLOY MODEL line TO DATABASE")
        assert connection.execute("SELECT round(public.line(10)::numeric, 3)::float8").fetchall() == [(20.0,)]
        assert connection.execute("SELECT function, database FROM sqlml.functions").fetchall() == [("public.line", None)]
        connection.execute("UNDEPLOY FUNCTION line")
        assert connection.execute("SELECT count(*) FROM pg_proc WHERE proname = 'line' AND pronamespace = 2200").fetchall() == [
            (0,)
        ]
