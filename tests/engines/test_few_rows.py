"""A query that gave few rows takes a shorter road the next time: the same answers, the same errors, each run once."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pytest

from sqlml.contracts import Stream
from sqlml.engines.duckdb.engine import DuckDBEngine
from sqlml.engines.duckdb.selects import FEW
from sqlml.errors import DatabaseError
from sqlml.types import Column

PLAIN = """
    SELECT i::TINYINT AS a, i::SMALLINT AS b, i::INTEGER AS c, 9007199254740993 + i AS d, i::UTINYINT AS e, i::USMALLINT AS f,
           i::UINTEGER AS g, 18446744073709551615::UBIGINT AS h, i > 1 AS k, (i + 0.1)::FLOAT AS l, i / 3 AS m, 'ä' || i AS n,
           CASE i WHEN 0 THEN 'nan'::DOUBLE WHEN 1 THEN 'inf'::DOUBLE WHEN 2 THEN -0.0::DOUBLE END AS o, NULL::VARCHAR AS p,
           i AS a
    FROM range(4) AS t(i) ORDER BY i
"""


@pytest.fixture
def engine() -> Iterator[DuckDBEngine]:
    found = DuckDBEngine.open(":memory:")
    yield found
    found.close()


def table(stream: Stream) -> pa.Table:
    return pa.Table.from_batches(list(stream.batches), stream.schema)


def runs(engine: DuckDBEngine, text: str, values: Any = (), count: int = 3) -> list[tuple[tuple[Column, ...], pa.Table]]:
    """The columns and rows of several runs of a query."""
    found = []
    for _ in range(count):
        stream = engine.run(text, values)
        found.append((stream.columns, table(stream)))
    return found


def is_short(engine: DuckDBEngine, text: str) -> bool:
    select = engine._selects.of(text)
    assert select is not None
    return bool(select.short)


@pytest.mark.parametrize("text", [PLAIN, PLAIN + " LIMIT 0", "SELECT 1", "SELECT true, 'x' WHERE false"])
def test_plain_values_are_the_same(engine: DuckDBEngine, text: str) -> None:
    found = runs(engine, text)
    assert is_short(engine, text)
    for one, other in pairwise(found):
        assert (one[0], one[1].schema) == (other[0], other[1].schema)
        assert [repr(c.to_pylist()) for c in one[1].columns] == [repr(c.to_pylist()) for c in other[1].columns]  # of NaN and -0.0


@pytest.mark.parametrize(
    "value",
    [
        "1.5::DECIMAL(4, 2)",
        "DATE '2024-01-01'",
        "now()",
        "[1]",
        "{'a': 1}",
        "1::HUGEINT",
        "'a'::BLOB",
        "uuid()",
        "INTERVAL 1 DAY",
    ],
)
def test_other_values_stay_on_the_long_road(engine: DuckDBEngine, value: str) -> None:
    text = f"SELECT {value} AS v"
    (_, one), (_, two), _ = runs(engine, text)
    assert one.schema == two.schema
    assert not is_short(engine, text)


def test_more_rows_than_the_last_time(engine: DuckDBEngine) -> None:
    text = "SELECT i, i::VARCHAR AS s FROM range($1) AS t(i)"
    more_came = False
    for rows in (1, FEW - 1, 0, 2, 100_000, FEW, FEW + 1, 300_000, 2, 2, 0):
        found = table(engine.run(text, [rows]))
        assert found["i"].to_pylist() == list(range(rows))
        assert found["s"].to_pylist() == [str(i) for i in range(rows)]
        more_came = more_came or rows >= FEW
        assert is_short(engine, text) is not more_came


def test_many_rows_are_not_held(engine: DuckDBEngine) -> None:
    """And whoever stops early leaves the connection free, and a transaction as it was."""
    engine.run("BEGIN")
    engine.run("CREATE TABLE t AS SELECT 1 AS a")
    text = "SELECT i FROM range($1) AS t(i)"
    table(engine.run(text, [1]))
    stream = engine.run(text, [10**12])
    assert sum(next(stream.batches).num_rows for _ in range(3)) >= FEW
    stream.batches.close()
    assert table(engine.run("FROM t"))["a"].to_pylist() == [1]
    engine.run("ROLLBACK")


def test_a_table_that_is_another_by_now(engine: DuckDBEngine) -> None:
    text = "SELECT * FROM t"
    for definition in ("1 AS a", "'x' AS a", "1 AS a, 2.5::DOUBLE AS b", "DATE '2024-01-01' AS a", "[1] AS a", "1 AS a"):
        engine.run(f"CREATE OR REPLACE TABLE t AS SELECT {definition}")
        wanted = table(engine.run(f"SELECT * FROM (FROM t) -- {definition}"))
        for columns, found in runs(engine, text):
            assert found.equals(wanted)
            assert [column.name for column in columns] == wanted.column_names
    engine.run("DROP TABLE t")
    with pytest.raises(DatabaseError, match="t does not exist"):
        engine.run(text)


def test_each_run_is_one(engine: DuckDBEngine) -> None:
    """What a query does beside its answer happens once, also where more rows come than the last time."""
    engine.run("CREATE SEQUENCE s")
    text = "SELECT nextval('s') AS v FROM range($1)"
    values = [value for rows in (1, 1, FEW, 1, 2, 5000, 3) for value in table(engine.run(text, [rows]))["v"].to_pylist()]
    assert values == list(range(1, len(values) + 1))
    assert len(values) == 8 + FEW + 5000


def test_errors_are_the_same(engine: DuckDBEngine) -> None:
    text = "SELECT CAST($1 AS INTEGER) AS a"
    messages = []
    for before in ([], ["1"]):
        for value in before:
            table(engine.run(text, [value]))
        with pytest.raises(DatabaseError) as raised:
            table(engine.run(text, ["x"]))
        messages.append((type(raised.value), raised.value.message))
    assert messages[0] == messages[1]
    assert table(engine.run(text, ["7"]))["a"].to_pylist() == [7]


def test_a_setting_that_changes_the_schema(engine: DuckDBEngine) -> None:
    text = "SELECT 'a' AS x"
    for setting in ("true", "false"):
        engine.run(f"SET arrow_large_buffer_size = {setting}")
        one, two, three = (found.schema for _, found in runs(engine, text))
        assert one == two == three
        assert (one.field("x").type == pa.large_string()) is (setting == "true")
        assert is_short(engine, text)


def test_while_the_rest_is_read_other_work_waits_its_turn(engine: DuckDBEngine) -> None:
    """As with a stream by Arrow: the connection is taken until that is closed."""
    text = "SELECT i FROM range($1) AS t(i)"
    for rows in (1, 1, 10_000):
        stream = engine.run(text, [rows])
        if rows == 1:
            table(stream)
    next(stream.batches)
    assert engine._is_reading()
    stream.batches.close()
    assert not engine._is_reading()
    assert table(engine.run("SELECT 1 AS a"))["a"].to_pylist() == [1]


def test_a_rest_that_nobody_reads(engine: DuckDBEngine) -> None:
    for closes in (True, False):
        text = f"SELECT i FROM range($1) AS t(i) -- {closes}"
        table(engine.run(text, [1]))
        stream = engine.run(text, [10_000])
        if closes:
            stream.batches.close()
        del stream
        assert table(engine.run("SELECT 1 AS a"))["a"].to_pylist() == [1]
