"""The contract of an engine."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

from sqlml.contracts import HomeEngine
from sqlml.errors import BindError, DatabaseError, EngineError, OperationalError
from sqlml.types import Kind

if TYPE_CHECKING:
    pass


def check_engine(engine: HomeEngine, *, transactions: bool = True) -> None:
    """Everything that the contract of an engine asks, on a database that may be written to."""
    columns = engine.describe("SELECT 1 AS a, 'x' AS \"b c\", DATE '2024-02-29' AS d, NULL AS n")
    assert [(c.name, c.kind) for c in columns[:3]] == [("a", Kind.NUMBER), ("b c", Kind.TEXT), ("d", Kind.DATE)]
    assert columns[3].kind in (Kind.NUMBER, Kind.TEXT)
    stream = engine.run("SELECT ? + 1 AS a", [41])
    assert stream.schema.names == [c.name for c in stream.columns] == ["a"]
    assert [row for batch in stream.batches for row in batch.to_pylist()] == [{"a": 42}]
    assert sum(batch.num_rows for batch in engine.run("SELECT 1 AS a WHERE 1 = 0").batches) == 0
    sample = f"SELECT i FROM (SELECT * FROM generate_series(1, 100) AS r(i)){engine.sample_clause(0, 10)}"
    assert len({row["i"] for batch in engine.run(sample).batches for row in batch.to_pylist()}) == 10
    engine.bind("SELECT 1")
    with pytest.raises(EngineError) as missing:
        engine.bind("SELECT nowhere FROM (SELECT 1 AS a, 2 AS b) AS t")
    assert engine.missing_column(missing.value) == "nowhere"
    assert engine.scope("SELECT ", " FROM (SELECT 1 AS a, 2 AS b) AS t") in (("a", "b"), ())
    assert engine.transaction() is None
    assert engine.table_rows(["nowhere"]) is None
    assert engine.has_function("sum")
    assert engine.has_function("SUM")
    assert not engine.has_function("no such function")
    for wrong, error in (("SELECT nothing", EngineError), ("SELEC 1", DatabaseError), ("DROP TABLE nowhere", BindError)):
        with pytest.raises(error):
            engine.describe(wrong)
    check_engine_streams(engine)
    check_engine_writes(engine, transactions)
    check_engine_interrupt(engine)


def check_engine_streams(engine: HomeEngine) -> None:
    """A result that nobody reads to its end is in nobody's way; an error in the middle of one leaves the engine well."""
    series = "SELECT i FROM generate_series(1, 3000000) AS r(i)"
    unread = engine.run(series).batches
    next(unread)
    unread.close()
    engine.run(series)
    assert engine.estimate_rows(series) is not None
    with pytest.raises(DatabaseError):
        list(
            engine.run(
                "SELECT 1 / (i - 3) AS a, CAST(CAST(i AS VARCHAR) || 'x' AS INTEGER) AS b FROM generate_series(1, 5) AS r(i)"
            ).batches
        )
    assert engine.describe("SELECT 1 AS a")


def check_engine_writes(engine: HomeEngine, transactions: bool) -> None:
    """Tables are made, replaced and appended to by their columns' names, all or nothing, also from a query that is still read."""
    probs = pa.list_(pa.struct([("label", pa.string()), ("prob", pa.float64())]))
    schema = pa.schema([("Id", pa.int64()), ("name", pa.string()), ("seen", pa.timestamp("us")), ("probs", probs)])
    rows = [
        {"Id": i, "name": None if i % 3 else f"n{i}", "seen": None, "probs": [{"label": "a", "prob": 0.5}]} for i in range(10)
    ]
    batch = pa.RecordBatch.from_pylist(rows, schema)
    assert engine.write(["kit written"], schema, [batch, batch], "create") == 20
    with pytest.raises(DatabaseError):
        engine.write(["kit written"], schema, [batch], "create")
    assert engine.table_rows(["kit written"]) == 20
    assert engine.write(["kit written"], schema, [batch], "append") == 10
    assert engine.write(["kit written"], schema, iter([]), "append") == 0
    two = pa.record_batch({"name": ["x"], "Id": pa.array([77], pa.int64())})
    assert engine.write(["kit written"], two.schema, [two], "append") == 1
    [found] = engine.run('SELECT "Id", name, seen FROM "kit written" WHERE name = \'x\'').batches
    assert found.to_pylist() == [{"Id": 77, "name": "x", "seen": None}]
    with pytest.raises(DatabaseError):
        engine.write(["kit written"], pa.schema([("other", pa.int64())]), [pa.record_batch({"other": [1]})], "append")

    def failing() -> Iterator[pa.RecordBatch]:
        yield batch
        raise ValueError("no more rows")

    for mode in ("replace", "append"):
        with pytest.raises((ValueError, DatabaseError)):
            engine.write(["kit written"], schema, failing(), mode)
        assert engine.table_rows(["kit written"]) == 31
    stream = engine.run("SELECT i, i * 2 AS j FROM generate_series(1, 200000) AS r(i)")
    assert engine.write(["kit written"], stream.schema, stream.batches, "replace") == 200_000
    assert engine.table_rows(["kit written"]) == 200_000
    if transactions:
        engine.run("BEGIN")
        engine.write(["kit written"], schema, [batch], "replace")
        assert engine.table_rows(["kit written"]) == 10
        engine.run("ROLLBACK")
        assert engine.table_rows(["kit written"]) == 200_000
    engine.run('DROP TABLE "kit written"')
    table = pa.table({"a": [1, 2]})
    engine.register("kit_registered", table)
    assert [b.to_pylist() for b in engine.run("SELECT sum(a) AS s FROM kit_registered").batches] == [[{"s": 3}]]
    assert engine.unregister("kit_registered")


def check_engine_interrupt(engine: HomeEngine) -> None:
    """What runs stops soon after ``interrupt`` from another thread, and the engine works on."""
    timer = threading.Timer(0.3, engine.interrupt)
    timer.start()
    # The inner series is short: Spark looks whether it was stopped only after 1,000 rows of the outer one.
    endless = "SELECT sum(1.0 * a.i * b.i) FROM generate_series(1, 1000000000) AS a(i), generate_series(1, 1000) AS b(i)"
    with pytest.raises(OperationalError, match="cancelled"):
        list(engine.run(endless).batches)
    timer.join()
    assert engine.describe("SELECT 1 AS a")
