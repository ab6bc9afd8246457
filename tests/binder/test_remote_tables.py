"""Which tables of a query are a connection's, and where a query can run."""

from __future__ import annotations

import pytest

from sqlml.binder.remote_tables import begins_with_from, explains_query, find_tables, is_query

CONNECTIONS = {"pg": "pg", "lake": "lake"}


@pytest.mark.parametrize(
    ("query", "names", "only"),
    [
        ("SELECT * FROM pg.public.customers", ["public.customers"], "pg"),
        (
            "SELECT * FROM PG.public.a JOIN pg.b USING (x), pg.c WHERE z IN (SELECT z FROM pg.d)",
            ["public.a", "b", "c", "d"],
            "pg",
        ),
        ("WITH x AS (SELECT 1 FROM pg.y) SELECT * FROM x", ["y"], "pg"),
        ("WITH x (a, b) AS MATERIALIZED (SELECT 1, 2) SELECT * FROM x JOIN pg.a USING (a)", ["a"], "pg"),
        ("SELECT count(*) FROM (pg.a CROSS JOIN pg.b)", ["a", "b"], "pg"),
        ('FROM pg."My Schema"."T"', ["My Schema.T"], "pg"),
        ("SELECT a FROM lake.parquet.`/data/x`", ["parquet./data/x"], "lake"),
        ("SELECT extract(year FROM d), trim(both FROM x) FROM pg.t WHERE a IS DISTINCT FROM b", ["t"], "pg"),
        ("SELECT * FROM generate_series(1, 3), pg.t", ["t"], "pg"),
        ("SELECT * FROM local, pg.x", ["x"], None),
        ("SELECT * FROM 'x.csv', pg.a", ["a"], None),
        ("SELECT * FROM range(5), pg.a", ["a"], None),
        ("SELECT * FROM pg.a, lake.b", ["a", "b"], None),
        ("SELECT pg.a FROM t pg", [], None),
        ("SELECT 1", [], None),
    ],
)
def test_tables(query: str, names: list[str], only: str | None) -> None:
    tables = find_tables(query, (0, len(query)), CONNECTIONS)
    assert [".".join(table.parts) for table in tables.remote] == names
    assert tables.only == only


def test_places_and_aliases() -> None:
    query = "SELECT * FROM pg.a AS x, pg.b y, pg.c WHERE 1 = 1"
    tables = find_tables(query, (0, len(query)), CONNECTIONS)
    assert [query[slice(*table.span)] for table in tables.remote] == ["pg.a", "pg.b", "pg.c"]
    assert [table.aliased for table in tables.remote] == [True, True, False]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SELECT 1", True),
        ("FROM t", True),
        ("(SELECT 1) UNION SELECT 2", True),
        ("WITH x AS (SELECT 1) SELECT * FROM x", True),
        ("WITH x AS (SELECT 1) INSERT INTO t SELECT * FROM x", False),
        ("INSERT INTO t SELECT * FROM pg.x", False),
        ("CREATE TABLE t AS SELECT * FROM pg.x", False),
        ("EXPLAIN SELECT 1", False),
    ],
)
def test_what_only_reads(text: str, expected: bool) -> None:
    assert is_query(text, (0, len(text))) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("EXPLAIN SELECT 1", True),
        ("explain analyze verbose select 1", True),
        ("EXPLAIN (FORMAT JSON, ANALYZE) WITH x AS (SELECT 1) SELECT * FROM x", True),
        ("EXPLAIN (SELECT 1)", True),
        ("EXPLAIN FORMATTED FROM t", True),
        ("EXPLAIN ANALYZE DELETE FROM t", False),
        ("EXPLAIN (ANALYZE) INSERT INTO t SELECT 1", False),
        ("EXPLAIN (ANALYZE", False),
        ("EXPLAIN", False),
        ("SELECT 1", False),
    ],
)
def test_what_explains_a_query(text: str, expected: bool) -> None:
    assert explains_query(text, (0, len(text))) is expected


def test_from_without_select() -> None:
    assert begins_with_from("FROM t WHERE x", (0, 14))
    assert not begins_with_from("FROM t SELECT x", (0, 15))
