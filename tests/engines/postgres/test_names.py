"""Names, scopes and questions to PostgreSQL's catalog."""

from __future__ import annotations

import pytest

from sqlml.engines.postgres.engine import PostgresEngine
from sqlml.errors import BindError, EngineError
from tests.engines.postgres.asking import values


def test_table_rows(engine: PostgresEngine) -> None:
    for statement in (
        'CREATE TABLE "odd ""name" AS SELECT 1 FROM generate_series(1, 3)',
        "CREATE TEMP TABLE passing AS SELECT 1 FROM generate_series(1, 2)",
        "CREATE VIEW v AS SELECT 1 FROM generate_series(1, 4)",
        "CREATE TABLE p (a integer) PARTITION BY LIST (a)",
        "CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1)",
        "INSERT INTO p VALUES (1)",
        "CREATE SCHEMA s",
        "CREATE TABLE s.t AS SELECT 1",
        "CREATE SEQUENCE counter",
    ):
        engine.run(statement)
    [[database]] = [values(engine, "SELECT current_database()::text")]
    names = [
        ['odd "name'],
        ["public", 'odd "name'],
        ["passing"],
        ["v"],
        ["p"],
        ["t"],
        ["s", "t"],
        [database, "s", "t"],
        ["counter"],
    ]
    assert [engine.table_rows(parts) for parts in names] == [3, 3, 2, 4, 1, None, 1, 1, None]
    engine.run("SET search_path = s")
    assert engine.table_rows(["t"]) == 1
    assert {'odd "name', "t", "v"} <= set(engine.names()["tables"])
    assert "a" in engine.names()["columns"]


def test_functions_of_the_database(engine: PostgresEngine) -> None:
    engine.run("CREATE FUNCTION mine(a integer) RETURNS integer LANGUAGE sql AS 'SELECT a + 1'")
    for name in ("mine", "MINE", "row_number", "coalesce", "values", "in", "generate_series", "greatest"):
        assert engine.has_function(name), name
    for name in ("predict", "churn", "sales.churn", 'quo"te', "two\nlines"):
        assert not engine.has_function(name), name


def test_estimates(engine: PostgresEngine) -> None:
    engine.run("CREATE TABLE t AS SELECT i FROM generate_series(1, 1000) AS i")
    engine.run("ANALYZE t")
    assert engine.estimate_rows("SELECT * FROM t") == 1000
    assert engine.estimate_rows("SELECT * FROM t LIMIT ?", [7]) == 7
    assert engine.estimate_rows("SELECT * FROM t WHERE false") == 0


@pytest.mark.parametrize(
    ("before", "after", "columns"),
    [
        ("SELECT ", " FROM t", ("a", "b")),
        ("SELECT abs(", " + 1) FROM t AS x WHERE x.a > 3 ORDER BY 1", ("a", "b")),
        ("WITH w AS (SELECT 1 AS z) SELECT a FROM t JOIN w ON true WHERE ", " > 3 GROUP BY a", ("a", "b", "z")),
        ("SELECT * FROM (SELECT ", " AS p FROM (SELECT 1 AS q) AS y) AS x, t WHERE p IS DISTINCT FROM 3", ("q",)),
        ("SELECT extract(year FROM ", ") FROM t", ("a", "b")),
        ("SELECT 1 FROM t UNION SELECT ", " FROM (SELECT 1 AS u) AS v", ("u",)),
        ("CREATE TABLE n AS SELECT ", " AS p FROM t", ("a", "b")),
        ("UPDATE t SET a = ", "", ()),
        ("SELECT ", " FROM nowhere", ()),
    ],
)
def test_scope(engine: PostgresEngine, before: str, after: str, columns: tuple[str, ...]) -> None:
    engine.run("CREATE TABLE t (a integer, b text)")
    assert engine.scope(before, after) == columns


def test_missing_columns(engine: PostgresEngine) -> None:
    engine.run('CREATE TABLE t (a integer, "B c" text)')
    for query, name in (
        ("SELECT x.nope FROM t AS x", "nope"),
        ("SELECT nope", "nope"),
        ('SELECT "No ""pe" FROM t', 'No "pe'),
        ('SELECT x."N p" FROM t x', "N p"),
    ):
        with pytest.raises(EngineError) as raised:
            engine.bind(query)
        assert engine.missing_column(raised.value) == name
    with pytest.raises(EngineError) as raised:
        engine.bind("SELECT * FROM nowhere")
    assert engine.missing_column(raised.value) is None


@pytest.mark.parametrize(
    "query",
    [
        "SELECT 1; SELECT 2",
        "INSERT INTO t VALUES (1) RETURNING a",
        "WITH x AS (DELETE FROM t RETURNING a) SELECT * FROM x",
        "SHOW server_version",
        "CREATE TABLE x ()",
        "",
    ],
)
def test_only_queries_are_described(engine: PostgresEngine, query: str) -> None:
    engine.run("CREATE TABLE t (a integer)")
    with pytest.raises(BindError, match="must be one SELECT"):
        engine.describe(query)
