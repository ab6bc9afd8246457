"""The table and column that each column of a result comes from, as a real PostgreSQL tells it."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg
import pytest

from tests.wire.places import Place

pytestmark = pytest.mark.slow
TEXTS = (
    "SELECT id, name FROM parents",
    "SELECT * FROM parents WHERE id = 1",
    "SELECT p.name AS called, p.id + 1, k.*, count(*) OVER () FROM public.parents AS p JOIN kids k ON k.pid = p.id ORDER BY 1",
    'SELECT "id", score s FROM "parents" LIMIT 1',
    "SELECT x, y FROM other.far",
    "SELECT name, note FROM parents, kids",
    "SELECT p.*, z FROM parents p LEFT JOIN other.far f ON f.x = p.id",
    "SELECT name FROM grown",
    "SELECT id::text, upper(name), 1 AS one, (SELECT max(a) FROM kids) AS m, CASE WHEN ok THEN id END AS c FROM parents",
    "SELECT count(*), max(id) FROM parents GROUP BY name",
    "SELECT name, count(*) FROM parents GROUP BY name ORDER BY name",
    "SELECT 1 AS id",
    "SELECT name ISNULL, score NOTNULL FROM parents",
    "SELECT id FROM parents UNION SELECT a FROM kids",
)
SILENT = (
    "SELECT id FROM (SELECT id FROM parents) AS t",
    "WITH t AS (SELECT id FROM parents) SELECT id FROM t",
    "SELECT pid FROM kids JOIN (SELECT 1 AS pid2) AS u ON true",
)
"""Of which PostgreSQL knows more; what is not known is 0."""


def origins(place: Place, text: str, *, prepared: bool) -> list[tuple[str, str] | None]:
    """The names of what the numbers of RowDescription mean."""
    with psycopg.connect(place.conninfo, autocommit=True) as client:
        cursor = client.execute(text.encode(), prepare=prepared)
        result = cursor.pgresult
        assert result is not None
        found: list[tuple[str, str] | None] = []
        numbers = [(result.ftable(i), result.ftablecol(i)) for i in range(result.nfields)]
        for table, column in numbers:
            row = client.execute(
                "SELECT c.relname, a.attname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid "
                "WHERE c.oid = %s AND a.attnum = %s",
                (table, column),
            ).fetchone()
            found.append(row)
            assert (row is None) == (table == 0)
        return found


@pytest.mark.parametrize("prepared", [False, True])
@pytest.mark.parametrize("text", TEXTS)
def test_as_postgresql(places: tuple[Place, Place], text: str, prepared: bool) -> None:
    ours, theirs = (origins(place, text, prepared=prepared) for place in places)
    if "UNION" in text:  # PostgreSQL tells those of the first
        theirs = [None]
    assert ours == theirs


@pytest.mark.parametrize("text", SILENT)
def test_nothing_is_told_of_what_is_not_known(places: tuple[Place, Place], text: str) -> None:
    ours, theirs = (origins(place, text, prepared=False) for place in places)
    assert theirs != [None]
    assert ours == [None]


def test_tables_that_come_and_go(places: tuple[Place, Place]) -> None:
    """Also those that another session, or a transaction, has made again under the same name."""
    ours, _ = places
    with psycopg.connect(ours.conninfo, autocommit=True) as one, psycopg.connect(ours.conninfo) as other:

        def table_of(client: psycopg.Connection[Any]) -> int:
            result = client.execute("SELECT a FROM fleeting").pgresult
            assert result is not None
            return result.ftable(0)

        one.execute("CREATE TABLE fleeting (a int)")
        first = table_of(one)
        assert table_of(other) == first != 0
        other.rollback()
        other.execute("DROP TABLE fleeting")
        other.execute("CREATE TABLE fleeting (b int, a int)")
        assert table_of(other) == 0  # what is not committed is not known
        assert table_of(one) == first
        other.commit()
        second = table_of(other)
        assert second not in (first, 0)
        assert table_of(one) == second
        one.execute("CREATE TEMP TABLE fleeting AS SELECT 1 AS a")  # it stands before the other
        assert table_of(one) == 0
        one.execute("DROP TABLE temp.fleeting")
        one.execute("DROP TABLE fleeting")


def test_described_before_it_runs(places: tuple[Place, Place]) -> None:
    import asyncpg

    async def told(place: Place) -> Any:
        client = await asyncpg.connect(host=place.host, port=place.port, database=place.database, user="postgres")
        try:
            prepared = await client.prepare("SELECT id, name FROM parents WHERE id = $1")
            return [(a.name, a.type.name) for a in prepared.get_attributes()], [tuple(row) for row in await prepared.fetch(1)]
        finally:
            await client.close()

    ours, theirs = (asyncio.run(told(place)) for place in places)
    assert ours == theirs
