"""A connection whose database is a PostgreSQL server: the same statements, on its tables."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import sqlml
from sqlml.errors import BindError, Error, NotSupportedError, OperationalError
from tests.sessions import session_of

pytestmark = pytest.mark.slow

PEOPLE = """
    CREATE TABLE people AS SELECT i AS id, (i * 7919) % 97 AS age, (ARRAY[NULL, 'clerk', 'cook', 'it''s "ß"'])[1 + i % 4] AS job,
    ((i * 31 % 100) / 10.0)::numeric(6, 2) AS balance,
    CASE WHEN (i * 7919) % 97 + i * 13 % 20 > 55 THEN 'yes' ELSE 'no' END AS bought,
    ((i * 7919) % 97 * 2 + i % 5)::double precision AS spent FROM generate_series(0, 599) AS numbers(i)
"""


@pytest.fixture
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@pytest.fixture
def connection(postgres: str, own_home: None) -> Iterator[sqlml.Connection]:
    opened = sqlml.connect(postgres)
    opened.execute(PEOPLE)
    yield opened
    opened.close()


def train(connection: sqlml.Connection) -> None:
    connection.execute(
        "TRAIN MODEL buys USING xgboost_classifier TARGET bought EXCLUDE (id, spent) WITH (n_estimators = 8) ON inline "
        "AS SELECT * FROM people"
    )


def test_plain_sql_is_the_servers(connection: sqlml.Connection) -> None:
    assert connection.execute("SELECT current_setting('server_version_num')::int > 100000, 2 ^ 3").fetchall() == [(True, 8.0)]
    assert connection.execute("SELECT count(*) FROM people WHERE age = ?", [3]).fetchone() == (7,)
    assert connection.dialect == "postgres"


def test_train_and_predict_anywhere_in_a_query(connection: sqlml.Connection) -> None:
    train(connection)
    right, share = connection.execute(
        "SELECT avg((PREDICT(buys) = bought)::int), avg((PREDICT_PROBA(buys, 'yes') > 0.5)::int) "
        "FROM people WHERE buys(*) IN ('yes', 'no')"
    ).fetchall()[0]
    assert right > 0.9
    assert 0.3 < share < 0.6
    ranked = connection.execute(
        "SELECT id FROM people WHERE PREDICT_PROBA(buys, 'yes') > 0.8 ORDER BY PREDICT_PROBA(buys, 'yes') DESC, id LIMIT 3"
    ).fetchall()
    assert len(ranked) == 3


def test_the_same_query_after_what_it_calls_has_gone(connection: sqlml.Connection, postgres: str) -> None:
    train(connection)
    query = "SELECT count(*) FROM people WHERE PREDICT(buys) = 'yes'"
    connection.begin()
    within = connection.execute(query).fetchall()
    connection.rollback()
    assert connection.execute(query).fetchall() == within
    assert connection.execute(query).fetchall() == within
    [(own,)] = connection.execute("SELECT pg_backend_pid()").fetchall()
    with sqlml.connect(postgres) as other:
        other.execute(f"SELECT pg_terminate_backend({own})").fetchall()
    with suppress(Error):  # the one that finds it gone
        connection.execute(query).fetchall()
    assert connection.execute(query).fetchall() == within


def test_the_same_answers_as_in_duckdb(connection: sqlml.Connection, tmp_path: Path) -> None:
    train(connection)
    here = connection.execute("SELECT id, PREDICT_PROBA(buys, 'yes') AS p FROM people ORDER BY id").fetch_arrow_table()
    table = connection.execute("SELECT id, age, job, balance FROM people ORDER BY id").fetch_arrow_table()
    connection.execute(f"EXPORT MODEL buys TO '{tmp_path / 'buys.zip'}' FORMAT bundle")
    with sqlml.connect() as other:
        other.execute(f"IMPORT MODEL buys FROM '{tmp_path / 'buys.zip'}'")
        session_of(other)._engine.register("people", table)
        there = other.execute("SELECT id, PREDICT_PROBA(buys, 'yes') AS p FROM people ORDER BY id").fetch_arrow_table()
    assert here["id"] == there["id"]
    assert here["p"].to_pylist() == pytest.approx(there["p"].to_pylist(), abs=1e-6)


def test_reasons_stand_in_the_select_list(connection: sqlml.Connection) -> None:
    train(connection)
    cursor = connection.execute("SELECT id, PREDICT_REASONS(buys, 2) AS why, age FROM people WHERE id < 3 ORDER BY id")
    rows = cursor.fetchall()
    assert [column[0] for column in cursor.description or ()] == ["id", "why", "age"]
    assert [row[0] for row in rows] == [0, 1, 2]
    assert all(len(row[1]) == 2 and {"feature", "value", "contribution"} == row[1][0].keys() for row in rows)
    with pytest.raises(NotSupportedError, match=r"outermost SELECT|PREDICT MODEL") as caught:
        connection.execute("SELECT count(*) FROM people WHERE PREDICT_REASONS(buys, 1) IS NOT NULL")
    assert caught.value.span is not None


def test_predict_into(connection: sqlml.Connection) -> None:
    train(connection)
    assert connection.execute("PREDICT MODEL buys INTO scores AS SELECT * FROM people WHERE id < 100").rowcount == 100
    with pytest.raises(BindError, match="exists already"):
        connection.execute("PREDICT MODEL buys INTO scores AS SELECT * FROM people")
    connection.execute("PREDICT MODEL buys INTO scores APPEND AS SELECT * FROM people WHERE id >= 100 AND id < 150")
    assert connection.execute("SELECT count(*), count(predicted_bought) FROM scores").fetchone() == (150, 150)
    connection.execute("PREDICT MODEL buys INTO scores REPLACE AS SELECT * FROM people WHERE id < 10")
    assert connection.execute("SELECT count(*) FROM scores WHERE predicted_bought = PREDICT(buys)").fetchone() == (10,)
    [(probs,)] = connection.execute("SELECT predicted_bought_probs->0->>'label' FROM scores WHERE id = 1").fetchall()
    assert probs in ("yes", "no")


def test_predict_into_belongs_to_the_users_transaction(connection: sqlml.Connection) -> None:
    train(connection)
    connection.begin()
    connection.execute("UPDATE people SET age = 90 WHERE id = 1")
    connection.execute("PREDICT MODEL buys INTO scores AS SELECT * FROM people WHERE id = 1 AND age = 90")
    assert connection.execute("SELECT count(*) FROM scores").fetchone() == (1,)
    connection.rollback()
    with pytest.raises(Error, match="scores"):
        connection.execute("SELECT * FROM scores")
    assert connection.execute("SELECT count(*) FROM people WHERE age = 90 AND id = 1").fetchone() == (0,)


def test_figures_and_explanations(connection: sqlml.Connection) -> None:
    train(connection)
    figures = connection.execute("EVALUATE MODEL buys AS SELECT * FROM people")
    assert dict(zip([d[0] for d in figures.description or ()], figures.fetchone() or (), strict=True))["accuracy"] > 0.9
    assert connection.execute("SELECT count(*) FROM ML.PREDICT(MODEL buys, (SELECT * FROM people)) p").fetchone() == (600,)
    assert connection.execute("SELECT accuracy FROM ML.EVALUATE(MODEL buys, (SELECT * FROM people)) e").fetchone()[0] > 0.9  # type: ignore[index]
    rows = connection.execute("EXPLAIN MODEL buys TOP 2 AS SELECT * FROM people WHERE id < 5").fetchall()
    assert len(rows) == 5
    plan = "\n".join(row[0] for row in connection.execute("EXPLAIN PREDICT MODEL buys AS SELECT * FROM people").fetchall())
    assert "postgres" in plan
    assert "batch by batch" in plan


def test_a_plan_tells_where_each_model_is_computed(connection: sqlml.Connection) -> None:
    train(connection)
    inside = "inside the database, by a function in its own SQL"
    beside = "here, batch by batch as the rows come from the database"
    before = "here, before the query runs: its rows are copied into the database"

    def places(statement: str) -> dict[str, str]:
        [(text,)] = connection.execute(f"EXPLAIN (FORMAT JSON) {statement}").fetchall()
        return {node["function"]: node["where"] for node in scoring_nodes(json.loads(text))}

    both = "SELECT *, PREDICT(buys) AS p, PREDICT_REASONS(buys) AS why FROM people"
    assert places(f"PREDICT MODEL buys AS {both}") == {"predict": inside, "predict_reasons": beside, "predict_model": beside}
    table = "SELECT * FROM ML.PREDICT(MODEL buys, (SELECT *, PREDICT(buys) AS p FROM people)) AS scored"
    assert places(f"EVALUATE MODEL buys AS {table}") == {"ml.predict": before, "predict": inside}
    with pytest.raises(NotSupportedError, match="cannot compute a model's answer inside this query"):
        places(f"EVALUATE MODEL buys AS {both}")
    with pytest.raises(NotSupportedError, match="cannot compute a model's answer inside this query"):
        connection.execute(f"EVALUATE MODEL buys AS {both}")


def scoring_nodes(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if document["node"] == "scoring":
        yield document
    for child in document.get("children", ()):
        yield from scoring_nodes(child)


def test_the_catalog_is_there_to_be_joined(connection: sqlml.Connection) -> None:
    train(connection)
    assert connection.execute("SHOW MODELS").fetchall()[0][0] == "buys"
    found = connection.execute("SELECT m.model, count(p.id) FROM sqlml.models m CROSS JOIN people p GROUP BY 1").fetchall()
    assert found == [("buys", 600)]
    assert (
        connection.execute("SELECT value FROM sqlml.metrics WHERE metric = 'roc_auc' AND split = 'heldout'").fetchone()
        is not None
    )


def test_missing_columns_are_named(connection: sqlml.Connection) -> None:
    train(connection)
    with pytest.raises(BindError, match=r"needs columns that this query does not have: balance") as caught:
        connection.execute("SELECT PREDICT(buys) FROM (SELECT age, job FROM people) p")
    assert "PREDICT(buys)" in str(caught.value)
    with pytest.raises(BindError, match="balance"):
        connection.execute("PREDICT MODEL buys AS SELECT age, job FROM people")


def test_views_call_deployed_functions_only(connection: sqlml.Connection) -> None:
    train(connection)
    with pytest.raises(NotSupportedError, match="view") as caught:
        connection.execute("CREATE VIEW v AS SELECT PREDICT(buys) FROM people")
    assert "DEPLOY MODEL" in str(caught.value)


def test_models_are_there_at_the_next_connection(connection: sqlml.Connection, postgres: str) -> None:
    train(connection)
    with sqlml.connect(postgres) as again:
        assert again.execute("SELECT count(PREDICT(buys)) FROM people").fetchone() == (600,)


def test_the_catalog_in_the_same_database(postgres: str, own_home: None) -> None:
    with sqlml.connect(postgres, catalog="database") as connection:
        connection.execute(PEOPLE)
        train(connection)
        tables = connection.execute("SELECT count(*) FROM sqlml_catalog.versions").fetchone()
    assert tables == (1,)
    with sqlml.connect(postgres, catalog="database") as connection:
        assert connection.execute("SELECT count(PREDICT(buys)) FROM people").fetchone() == (600,)
    with sqlml.connect(postgres) as connection:
        assert connection.execute("SHOW MODELS").fetchall() == []


def test_no_server(own_home: None, tmp_path: Path) -> None:
    with pytest.raises(OperationalError) as caught:
        sqlml.connect("postgresql://me:geheim@127.0.0.1:1/bank")
    assert "geheim" not in str(caught.value)
    assert "127.0.0.1" in str(caught.value)
    assert not (tmp_path / "home" / ".sqlml").exists()
    shutil.rmtree(tmp_path / "home", ignore_errors=True)


def test_other_databases_cannot_be_a_home() -> None:
    with pytest.raises(NotSupportedError, match="mysql"):
        sqlml.connect("mysql://me@host/db")


def test_a_deployed_function_of_the_models_name_does_not_hide_it(connection: sqlml.Connection, postgres: str) -> None:
    train(connection)
    connection.execute("DEPLOY MODEL buys TO DATABASE AS FUNCTION buys")
    same = connection.execute("SELECT count(*) FROM people WHERE buys(*) = public.buys(age, job, balance)").fetchone()
    assert same == (600,)
    assert not [notice for notice in connection.session.notices if "function of the database" in notice]


def test_the_probability_of_each_rows_own_class(connection: sqlml.Connection) -> None:
    train(connection)
    high, low = connection.execute(
        "SELECT avg(PREDICT_PROBA(buys, bought)), avg(PREDICT_PROBA(buys, CASE bought WHEN 'yes' THEN 'no' ELSE 'yes' END)) "
        "FROM people"
    ).fetchall()[0]
    assert high > 0.9
    assert high + low == pytest.approx(1, abs=1e-6)


def test_unquoted_names_fold_as_the_server_folds_them(connection: sqlml.Connection) -> None:
    train(connection)
    connection.execute("PREDICT MODEL buys INTO Scores AS SELECT * FROM People WHERE id < 5")
    assert connection.execute("SELECT count(*) FROM scores").fetchone() == (5,)
    connection.execute('PREDICT MODEL buys INTO "Scores" AS SELECT * FROM people WHERE id < 7')
    assert connection.execute('SELECT count(*) FROM "Scores"').fetchone() == (7,)
    connection.execute("PREDICT MODEL buys INTO PUBLIC.Scores APPEND AS SELECT * FROM people WHERE id < 2")
    assert connection.execute("SELECT count(*) FROM scores").fetchone() == (7,)


def test_a_program_that_never_closes_ends_quietly(connection: sqlml.Connection, postgres: str) -> None:
    script = f"import sqlml; c = sqlml.connect({postgres!r}); print(c.execute('SELECT count(*) FROM people').fetchone())"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert (done.stdout, done.stderr) == ("(600,)\n", "")


def test_arguments_of_a_column_computed_here_are_taken_by_name(connection: sqlml.Connection) -> None:
    connection.execute(
        "TRAIN MODEL near USING nearest_neighbors_classifier TARGET bought ON inline AS SELECT age, balance, bought FROM people"
    )
    plain = connection.execute("SELECT id, PREDICT(near) AS p FROM people ORDER BY id").fetchall()
    swapped = connection.execute(
        "SELECT id, PREDICT(near USING balance AS balance, age AS age) AS p FROM people ORDER BY id"
    ).fetchall()
    assert swapped == plain
    with pytest.raises(NotSupportedError):  # the database would order by a column without values
        connection.execute("SELECT id, PREDICT(near) AS p FROM people ORDER BY p")


def test_a_connections_table_beside_the_servers_own(connection: sqlml.Connection, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "other.db") as other:
        other.execute("CREATE TABLE cities (id INTEGER, city TEXT)")
        other.executemany("INSERT INTO cities VALUES (?, ?)", [(i, f"c{i % 3}") for i in range(600)])
    other.close()
    connection.execute(f"CREATE CONNECTION lite TYPE sqlalchemy WITH (url = 'sqlite:///{tmp_path}/other.db')")
    train(connection)
    found = connection.execute(
        "SELECT c.city, count(PREDICT(buys)) FROM people p JOIN lite.cities c ON c.id = p.id GROUP BY 1 ORDER BY 1"
    ).fetchall()
    assert found == [("c0", 200), ("c1", 200), ("c2", 200)]


def test_into_another_database_is_refused_inside_a_transaction(postgres: str, tmp_path: Path, own_home: None) -> None:
    with sqlml.connect(tmp_path / "a.duckdb") as connection:
        connection.execute("CREATE TABLE t AS SELECT i AS a, i % 2 AS y FROM range(100) r(i)")
        connection.execute("TRAIN MODEL m TARGET y WITH (n_estimators = 2) ON inline AS FROM t")
        url = postgres.replace("postgres:@", "postgres@")
        connection.execute(f"CREATE CONNECTION pg TYPE postgres WITH (url = '{url}')")
        connection.begin()
        with pytest.raises(NotSupportedError, match="ROLLBACK"):
            connection.execute("PREDICT MODEL m INTO pg.scores AS FROM t")
        connection.rollback()
        assert connection.execute("PREDICT MODEL m INTO pg.scores AS FROM t").rowcount == 100
        assert connection.execute("SELECT count(*) FROM pg.scores").fetchone() == (100,)


def test_options_that_predict_does_not_know(connection: sqlml.Connection) -> None:
    train(connection)
    for runner in ("", "ON inline "):
        with pytest.raises(BindError, match="no option nonsense"):
            connection.execute(f"PREDICT MODEL buys WITH (nonsense = 1) {runner}AS SELECT * FROM people")


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE INDEX i ON people (PREDICT(buys))",
        "ALTER TABLE people ADD COLUMN p text GENERATED ALWAYS AS (PREDICT(buys)) STORED",
        "CREATE TABLE g (age int, p text DEFAULT PREDICT(buys USING 1 AS age, 'a' AS job, 2 AS balance))",
        "ALTER TABLE people ADD CONSTRAINT c CHECK (PREDICT(buys) <> 'maybe')",
        "CREATE POLICY p ON people USING (PREDICT(buys) = 'yes')",
        "CREATE MATERIALIZED VIEW m AS SELECT PREDICT(buys) FROM people",
    ],
)
def test_what_keeps_an_expression_cannot_call_a_function_that_goes(connection: sqlml.Connection, statement: str) -> None:
    """The server would drop it, and its data, together with the function."""
    train(connection)
    with pytest.raises(NotSupportedError, match="goes with it"):
        connection.execute(statement)
    connection.execute("CREATE TABLE kept AS SELECT id, PREDICT(buys) AS p FROM people")


def test_columns_keep_the_servers_types(connection: sqlml.Connection) -> None:
    train(connection)
    connection.execute("CREATE TYPE mood AS ENUM ('sad', 'ok'); ")
    connection.execute(
        "CREATE TABLE odd AS SELECT *, 'ok'::mood AS mood, gen_random_uuid() AS u, '{\"a\": 1}'::jsonb AS j, "
        "'1.2.3.4'::inet AS ip, 12345678901234567890.5::numeric AS n, '1 day'::interval AS i, "
        "id::varchar(9) AS v FROM people WHERE id < 20"
    )
    connection.execute("PREDICT MODEL buys INTO typed AS SELECT * FROM odd")
    query = "SELECT column_name, udt_name FROM information_schema.columns WHERE table_name = ? ORDER BY ordinal_position"
    before, after = (connection.execute(query, [name]).fetchall() for name in ("odd", "typed"))
    assert after[: len(before)] == before
    assert connection.execute("SELECT count(*) FROM odd JOIN typed USING (id, mood, u, j, ip, i, v)").fetchone() == (20,)


def test_exact_numbers_and_tables_of_numbers_come_back_as_they_were(connection: sqlml.Connection) -> None:
    train(connection)
    connection.execute(
        "CREATE TABLE odd AS SELECT *, 12345678901234567890.5::numeric AS n, 1.5::numeric(40,20) AS wide, "
        "ARRAY[[1,2],[3,NULL]] AS grid, ARRAY[]::numeric[] AS none FROM people WHERE id < 20"
    )
    query = "SELECT n::text, wide::text, grid::text, none::text, grid[2][1] FROM {} WHERE id = 3"
    expected = [("12345678901234567890.5", "1.50000000000000000000", "{{1,2},{3,NULL}}", "{}", 3)]
    for mode in ("", "APPEND", "REPLACE"):
        connection.execute(f"PREDICT MODEL buys INTO scores {mode} AS SELECT * FROM odd")
        assert connection.execute(query.format("scores") + " LIMIT 1").fetchall() == expected
    connection.execute("EXPLAIN MODEL buys INTO reasons AS SELECT * FROM odd")
    assert connection.execute(query.format("reasons")).fetchall() == expected


def test_a_moment_for_a_local_time_is_what_the_clock_shows_in_the_session(connection: sqlml.Connection, postgres: str) -> None:
    """Inside the server and on this side: 23:30 in New York is 04:30 in UTC."""
    connection.execute(
        "CREATE TABLE hours AS SELECT ts, extract(hour FROM ts) < 12 AS early "
        "FROM (SELECT timestamp '2026-01-01' + i * interval '30 min' AS ts FROM generate_series(0, 479) AS i) AS t"
    )
    connection.execute("TRAIN MODEL early USING xgboost_classifier TARGET early WITH (n_estimators = 8) ON inline AS TABLE hours")
    moments = "SELECT timestamptz '2026-01-05 04:30+00' AS ts UNION ALL SELECT timestamptz '2026-01-05 14:30+00'"
    for zone, expected in (("America/New_York", [False, True]), ("UTC", [True, False]), ("Asia/Tokyo", [False, False])):
        connection.execute(f"SET TimeZone = '{zone}'")
        inside = connection.execute(f"SELECT PREDICT(early) FROM ({moments}) AS m ORDER BY ts").fetchall()
        here = connection.execute(f"PREDICT MODEL early AS SELECT * FROM ({moments}) AS m ORDER BY ts").fetchall()
        local = f"SELECT ts::timestamp AS ts FROM ({moments}) AS m"
        plain = connection.execute(f"SELECT PREDICT(early) FROM ({local}) AS m ORDER BY ts").fetchall()
        assert [row[0] for row in inside] == [row[1] for row in here] == [row[0] for row in plain] == expected


def test_notices_of_the_server_belong_to_the_cursor(connection: sqlml.Connection) -> None:
    cursor = connection.execute("DO $$ BEGIN RAISE NOTICE 'hello'; RAISE WARNING 'mind'; END $$")
    assert cursor.notices == ("hello", "warning: mind")
    connection.execute(
        "CREATE FUNCTION say(i int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN RAISE NOTICE 'row %', i; RETURN i; END $$"
    )
    query = "SELECT repeat('x', 1000), CASE WHEN i = 60000 THEN say(i) END FROM generate_series(1, 60000) AS i"
    rows = connection.execute(query)
    assert (rows.notices, cursor.notices) == ((), ("hello", "warning: mind"))
    assert len(rows.fetchall()) == 60_000
    assert rows.notices == ("row 60000",)  # it came with the last rows
    with pytest.raises(Error):
        rows.execute("DO $$ BEGIN RAISE NOTICE 'before'; PERFORM 1 / 0; END $$")
    assert rows.notices == ("before",)
    assert rows.execute("SELECT 1").notices == ()


def test_replace_leaves_views_alone(connection: sqlml.Connection) -> None:
    train(connection)
    connection.execute("CREATE VIEW v AS SELECT * FROM people")
    with pytest.raises(BindError, match="v is a view"):
        connection.execute("PREDICT MODEL buys INTO v REPLACE AS SELECT * FROM people")
    assert connection.execute("SELECT count(*) FROM v").fetchone() == (600,)


def test_a_failed_transaction_is_not_committed_in_silence(connection: sqlml.Connection) -> None:
    connection.execute("BEGIN")
    with pytest.raises(Error):
        connection.execute("SELECT 1 / 0")
    with pytest.raises(OperationalError, match="rolled back"):
        connection.execute("COMMIT")
    assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_write_that_fails_elsewhere_leaves_the_connection_free(postgres: str, tmp_path: Path, own_home: None) -> None:
    with sqlml.connect(tmp_path / "a.duckdb") as connection:
        connection.execute("CREATE TABLE t AS SELECT i AS a, i % 2 AS y FROM range(300000) r(i)")
        connection.execute("TRAIN MODEL m TARGET y LIMIT (ROWS 100) WITH (n_estimators = 2) ON inline AS FROM t")
        connection.execute(f"CREATE CONNECTION pg TYPE postgres WITH (url = '{postgres.replace('postgres:@', 'postgres@')}')")
        with pytest.raises(Error, match="nowhere"):
            connection.execute("PREDICT MODEL m INTO pg.nowhere.scores AS FROM t")
        connection.execute("BEGIN")
        connection.execute("CREATE TABLE u AS SELECT 1 AS a")
        connection.execute("ROLLBACK")


def test_a_driver_in_the_url_is_no_matter(postgres: str, own_home: None) -> None:
    with sqlml.connect(postgres.replace("postgresql://", "postgresql+psycopg://")) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_no_file_is_left_by_a_catalog_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(NotSupportedError, match="beside it"):
        sqlml.connect(tmp_path / "x.duckdb", catalog="database")
    assert list(tmp_path.iterdir()) == []
