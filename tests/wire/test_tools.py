"""What tools for PostgreSQL send when they browse and draw: the same columns and rows come from sqlml and from a PostgreSQL.

The queries are in ``tools/*.sql``, a name before each.  They are our own, made of what failed once under the tool in the name.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlglot

from tests.wire.places import Place

pytestmark = pytest.mark.slow

FOLDER = Path(__file__).with_name("tools")
FILES = ("functions.sql", "browsing.sql")
TEXTS = dict.fromkeys((18, 19, 1042, 1043), 25)
"""Types of texts, which are all text here."""


def queries(file: str) -> list[tuple[str, str]]:
    parts = re.split(r"(?m)^--: ", (FOLDER / file).read_text(encoding="utf-8"))[1:]
    return [(name.strip(), query.strip()) for name, _, query in (part.partition("\n") for part in parts)]


def answer(place: Place, query: str, *, prepare: bool) -> tuple[Any, Any]:
    """The columns and the rows; of a prepared query its columns were described before it ran."""
    with psycopg.connect(place.conninfo, autocommit=True) as connection:
        connection.execute("SET TIME ZONE 'UTC'")
        cursor = connection.execute(query.encode(), prepare=prepare)
        if cursor.description is None:
            return cursor.statusmessage, None
        rows = cursor.fetchall()
        return [(column.name, TEXTS.get(column.type_code, column.type_code)) for column in cursor.description], rows


@pytest.mark.parametrize("prepare", [False, True], ids=["simple", "prepared"])
@pytest.mark.parametrize(
    "query", [pytest.param(q, id=name) for file in ("functions.sql", "browsing.sql") for name, q in queries(file)]
)
def test_same(query: str, prepare: bool, places: tuple[Place, Place]) -> None:
    ours, theirs = (answer(place, query, prepare=prepare) for place in places)
    assert ours == theirs


def test_the_number_of_a_relation_is_an_oid(places: tuple[Place, Place]) -> None:
    """Programs that get an eight-byte number, such as node-postgres and pgAdmin, read it as text."""
    query = "SELECT oid, relnamespace, array_agg(oid) AS l, max(oid) AS m FROM pg_class WHERE relname = 'kids' GROUP BY 1, 2"
    for place in places:
        columns, rows = answer(place, query, prepare=False)
        assert [kind for _, kind in columns] == [26, 26, 1028, 26]
        with psycopg.connect(place.conninfo) as connection:
            assert connection.cursor(binary=True).execute(query).fetchall() == rows


PGADMIN_EXPLAINS = (
    "EXPLAIN (FORMAT JSON, ANALYZE FALSE, VERBOSE FALSE, COSTS TRUE, BUFFERS FALSE, TIMING FALSE, SUMMARY FALSE, SETTINGS FALSE, "
    "WAL FALSE) "
)


@pytest.mark.parametrize("prepare", [False, True], ids=["simple", "prepared"])
def test_a_plan_that_is_drawn(prepare: bool, places: tuple[Place, Place]) -> None:
    for place in places:
        columns, rows = answer(place, PGADMIN_EXPLAINS + "SELECT count(*) FROM parents WHERE score > 1", prepare=prepare)
        assert columns == [("QUERY PLAN", 114)]
        ((plans,),) = rows
        (plan,) = [each["Plan"] for each in plans]
        while "Plans" in plan:
            assert plan["Node Type"]
            (plan,) = plan["Plans"]
        assert plan["Node Type"] == "Seq Scan"
        assert plan["Relation Name"] == "parents"


@pytest.mark.parametrize("options", ["(ANALYZE FALSE)", "(ANALYZE off, COSTS)", "(VERBOSE, ANALYZE 0)"])
def test_explain_without_analyze_runs_nothing(options: str, places: tuple[Place, Place]) -> None:
    for place in places:
        with psycopg.connect(place.conninfo, autocommit=True) as connection:
            assert connection.execute(f"EXPLAIN {options} DELETE FROM parents".encode()).fetchall()
            assert connection.execute("SELECT count(*) FROM parents").fetchone() == (2,)


def test_what_sqlglot_writes_anew(places: tuple[Place, Place]) -> None:
    """Superset reads each query with sqlglot, and sends what that makes of it."""
    with psycopg.connect(places[0].conninfo, autocommit=True) as connection:
        connection.execute(
            "TRAIN MODEL twice USING linear_regression TARGET y ON inline AS SELECT range AS x, 2 * range AS y FROM range(50)"
        )
        for query, expected in (
            ("SELECT x, round(sqlml.PREDICT(twice), 2) AS y FROM (SELECT 21 AS x) t", [(21, 42.0)]),
            ("SELECT sqlml.PREDICT(twice) > 41 AS y FROM (SELECT 21 AS x) t WHERE twice(x) > 40", [(True,)]),
            ("SELECT model FROM sqlml('SHOW MODELS') AS m WHERE model = 'twice'", [("twice",)]),
        ):
            written = sqlglot.parse_one(query, read="postgres").sql("postgres", pretty=True)
            assert connection.execute(written.encode()).fetchall() == expected
        with pytest.raises(psycopg.Error, match="unknown model twise") as raised:
            connection.execute("SELECT sqlml.PREDICT(twise) FROM parents")
        assert raised.value.diag.message_hint == "did you mean twice?"
        connection.execute("DROP MODEL twice")
