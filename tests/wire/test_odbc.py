"""psqlodbc by pyodbc on sqlml and on a real PostgreSQL, with its different ways to prepare and to fetch."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

import pytest

from tests.wire.places import USER, Place

pytestmark = pytest.mark.slow
pyodbc = pytest.importorskip("pyodbc", reason="pyodbc is not installed", exc_type=ImportError)
DRIVER = "PostgreSQL Unicode"
if DRIVER not in pyodbc.drivers():
    pytest.skip("psqlodbc is not installed (Debian: odbc-postgresql)", allow_module_level=True)
pyodbc.pooling = False

MOMENT = datetime.datetime(2026, 1, 2, 3, 4, 5)
TYPES = (
    "SELECT 1::int2 a, 2::int4 b, 3::int8 c, 1.5::float4 d, 2.5::float8 e, 'té'::text f, true g, date '2026-01-02' h, "
    "timestamp '2026-01-02 03:04:05.6' i, time '01:02:03' j, 12.50::numeric(10,2) k, '\\x0102'::bytea l, NULL::int m"
)
WAYS = {
    "plain": "",
    "cursors": "UseDeclareFetch=1;Fetch=100",
    "prepared by the client": "UseServerSidePrepare=0",
    "no savepoints": "Protocol=7.4-0",
}


def rows(connection: Any, text: str, *values: Any) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in connection.execute(text, *values)]


def written(connection: Any) -> Any:
    connection.execute("CREATE TABLE odbc (a int, b text, t timestamp)")
    counts = [connection.execute("INSERT INTO odbc VALUES (?, ?, ?)", 1, "x", MOMENT).rowcount]
    for fast in (False, True):
        cursor = connection.cursor()
        cursor.fast_executemany = fast
        cursor.executemany("INSERT INTO odbc VALUES (?, ?, ?)", [(number, f"w{number}", None) for number in range(50)])
    counts.append(connection.execute("UPDATE odbc SET b = 'z' WHERE a = ?", 1).rowcount)
    connection.commit()
    counts.append(connection.execute("DELETE FROM odbc").rowcount)
    connection.rollback()
    found = rows(connection, "SELECT * FROM odbc ORDER BY a, b, t")
    connection.execute("DROP TABLE odbc")
    connection.commit()
    return counts, found


OPERATIONS: dict[str, Callable[[Any], Any]] = {
    "types": lambda c: rows(c, TYPES),
    "description": lambda c: [column[:6] for column in c.execute("SELECT * FROM parents WHERE id < 0").description],
    "parameters": lambda c: rows(c, "SELECT ? + 1, ?, ?, ?::timestamp, ?::int", 41, "hé", 2.5, MOMENT, None),
    "beside columns": lambda c: rows(c, "SELECT id, name FROM parents WHERE id = ? AND name LIKE ?", 1, "%"),
    "many rows": lambda c: sum(row[0] for row in c.execute("SELECT x, 'row ' || x FROM generate_series(1, 20000) AS t(x)")),
    "a long text": lambda c: rows(c, "SELECT repeat('x', 100000)"),
    "written": written,
    "tables": lambda c: sorted((row.table_schem, row.table_name, row.table_type) for row in c.cursor().tables(schema="public")),
    "columns": lambda c: [
        (row.column_name, row.type_name, row.nullable) for row in c.cursor().columns("parents", schema="public")
    ],
    "keys": lambda c: [(row.column_name, row.key_seq) for row in c.cursor().primaryKeys("kids", schema="public")],
    "foreign keys": lambda c: [
        (row.pktable_name, row.fkcolumn_name) for row in c.cursor().foreignKeys("parents", schema="public")
    ],
    "escapes": lambda c: rows(c, "SELECT {fn ucase('abc')}, id FROM parents WHERE born = {d '2026-03-01'}"),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", OPERATIONS)
def test_odbc(name: str, way: str, places: tuple[Place, Place]) -> None:
    ours, theirs = (run(place, way, OPERATIONS[name]) for place in places)
    assert ours == theirs


@pytest.mark.parametrize("way", [way for way in WAYS if way != "no savepoints"])
def test_an_error_in_a_transaction_that_has_only_read(way: str, places: tuple[Place, Place]) -> None:
    def operation(connection: Any) -> Any:
        before = rows(connection, "SELECT 1")
        with pytest.raises(pyodbc.ProgrammingError) as raised:
            connection.execute("SELECT nope FROM parents")
        return before, raised.value.args[0], rows(connection, "SELECT 5")

    ours, theirs = (run(place, way, operation) for place in places)
    assert ours == theirs == ([(1,)], "42703", [(5,)])


def run(place: Place, way: str, operation: Callable[[Any], Any]) -> Any:
    where = f"Server={place.host};Port={place.port};Database={place.database};Uid={USER}"
    connection = pyodbc.connect(f"Driver={{{DRIVER}}};{where};{WAYS[way]}")
    try:
        found = operation(connection)
        connection.rollback()
        return found
    finally:
        connection.close()
