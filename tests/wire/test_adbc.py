"""ADBC's PostgreSQL driver on sqlml and on a real PostgreSQL: Arrow out and in, and what it asks the catalog."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

from tests.wire.places import USER, Place

pytestmark = pytest.mark.slow
dbapi = pytest.importorskip("adbc_driver_postgresql.dbapi", reason="adbc-driver-postgresql is not installed")

TYPES = (
    "SELECT 1::int2 a, 2::int4 b, 3::int8 c, 1.5::float4 d, 2.5::float8 e, 'té'::text f, true g, date '2026-01-02' h, "
    "timestamp '2026-01-02 03:04:05.6' i, time '01:02:03' j, 12.50::numeric(10,2) k, '\\x0102'::bytea l, NULL::int m, "
    "timestamptz '2026-01-02 03:04:05+00' n, interval '1 month 2 days 3 seconds' o, ARRAY[1,2,NULL]::int[] p"
)
TABLE = pa.table(
    {
        "i": [1, 2, None], "w": ["a", None, "c"], "d": [1.5, None, 2.0], "b": [True, False, None],
        "t": pa.array([datetime.datetime(2026, 1, 1), None, datetime.datetime(2026, 1, 2)], pa.timestamp("us")),
        "s": pa.array([datetime.date(2026, 1, 1), None, None]), "l": pa.array([[1, 2], None, []], pa.list_(pa.int64())),
        "x": [b"1", None, b""],
    }
)  # fmt: skip


def rows(cursor: Any, text: str, values: Any = None) -> Any:
    cursor.execute(text, values)
    return cursor.fetchall()


def arrow(cursor: Any, text: str) -> pa.Table:
    cursor.execute(text)
    return cursor.fetch_arrow_table().replace_schema_metadata(None)


def ingested(connection: Any, cursor: Any) -> Any:
    counts = [cursor.adbc_ingest("taken", TABLE, mode=mode) for mode in ("create", "append")]
    found = arrow(cursor, "SELECT * FROM taken ORDER BY i")
    cursor.adbc_ingest("taken", TABLE.select(["i", "w"]), mode="replace")
    cursor.adbc_ingest("taken", TABLE.select(["w"]), mode="append")
    return counts, found.to_pydict(), rows(cursor, "SELECT * FROM taken ORDER BY i, w")


def objects(connection: Any, cursor: Any) -> Any:
    found = connection.adbc_get_objects(depth="all", table_name_filter="kids").read_all().to_pylist()
    [table] = [t for place in found for schema in place["catalog_db_schemas"] or () for t in schema["db_schema_tables"] or ()]
    columns = [(column["column_name"], column["ordinal_position"]) for column in table["table_columns"]]
    return columns, sorted((each["constraint_type"], each["constraint_column_names"]) for each in table["table_constraints"])


def undone(connection: Any, cursor: Any) -> Any:
    cursor.execute("CREATE TABLE gone (a int)")
    connection.rollback()
    return rows(cursor, "SELECT count(*) FROM information_schema.tables WHERE table_name = 'gone'")


def refused(connection: Any, cursor: Any) -> Any:
    with pytest.raises(dbapi.ProgrammingError) as raised:
        cursor.execute("SELECT nope FROM parents")
    connection.rollback()
    return raised.value.sqlstate, rows(cursor, "SELECT 5")


OPERATIONS: dict[str, Callable[[Any, Any], Any]] = {
    "types": lambda connection, cursor: arrow(cursor, TYPES).to_pydict(),
    "schema": lambda connection, cursor: str(arrow(cursor, "SELECT * FROM parents WHERE false").schema),
    "parameters": lambda connection, cursor: rows(cursor, "SELECT $1::int + 1, $2::text", (41, "hé")),
    "many rows": lambda connection, cursor: arrow(cursor, "SELECT x::int, x::text FROM generate_series(1, 100000) AS t(x)"),
    "described": lambda connection, cursor: str(cursor.adbc_execute_schema("SELECT 1 AS a, 'x'::text AS b")),
    "ingest": ingested,
    "objects": objects,
    "table schema": lambda connection, cursor: str(connection.adbc_get_table_schema("parents")),
    "rollback": undone,
    "error": refused,
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_adbc(name: str, places: tuple[Place, Place]) -> None:
    def run(place: Place) -> Any:
        uri = f"postgresql://{USER}@/{place.database}?host={place.host}&port={place.port}"
        with dbapi.connect(uri) as connection, connection.cursor() as cursor:
            found = OPERATIONS[name](connection, cursor)
            connection.rollback()
            return found

    ours, theirs = map(run, places)
    assert ours == theirs
