"""Tables written by COPY: types, other tables' types, all or nothing."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from decimal import Decimal

import pyarrow as pa
import pytest

from sqlml.engines.postgres.engine import PostgresEngine
from sqlml.engines.postgres.runs import ABORTED
from sqlml.errors import BindError, Cancelled, DataError, EngineError, IntegrityError, NotSupportedError, OperationalError
from tests.engines.postgres.asking import SERIES, kill, number, rows


def test_written_types_come_back(engine: PostgresEngine) -> None:
    columns = {
        "i8": pa.array([1, None], pa.int8()),
        "u4": pa.array([2**32 - 1, None], pa.uint32()),
        "u8": pa.array([2**64 - 1, None], pa.uint64()),
        "f2": pa.array([1.5, None], pa.float16()),
        "f8": pa.array([float("nan"), None]),
        "b": pa.array([True, None]),
        "d": pa.array([Decimal("1.50"), None], pa.decimal128(10, 2)),
        "s": pa.array(["ß\\\t", None], pa.large_string()),
        "k": pa.array(["a", None]).dictionary_encode(),
        "y": pa.array([b"\0", None]),
        "day": pa.array([dt.date(1960, 1, 1), None]),
        "seen": pa.array([dt.datetime(1960, 1, 1), None], pa.timestamp("ns")),
        "tz": pa.array([dt.datetime(2020, 1, 1), None], pa.timestamp("s", "Europe/Berlin")),
        "t": pa.array([dt.time(1, 2, 3), None], pa.time32("s")),
        "took": pa.array([dt.timedelta(seconds=90), None]),
        "n": pa.nulls(2),
        "l": pa.array([[1, None], None]),
        "v": pa.array([[1.0, 2.0], None], pa.list_(pa.float32(), 2)),
        "w": pa.array([["a"], []]),
    }
    table = pa.table(columns)
    engine.write(["t"], table.schema, table.to_batches(), "create")
    [batch] = engine.run("TABLE t").batches
    found = batch.to_pylist()[0]
    assert str(found.pop("f8")) == "nan"
    assert found.pop("took").nanoseconds == 90 * 10**9
    assert found == {
        "i8": 1, "u4": 2**32 - 1, "u8": 2**64 - 1, "f2": 1.5, "b": True, "d": Decimal("1.50"), "s": "ß\\\t", "k": "a",
        "y": b"\0", "day": dt.date(1960, 1, 1), "seen": dt.datetime(1960, 1, 1), "tz": dt.datetime(2020, 1, 1, tzinfo=dt.UTC),
        "t": dt.time(1, 2, 3), "n": None, "l": [1, None], "v": [1.0, 2.0], "w": ["a"],
    }  # fmt: skip
    assert all(value is None or value == [] for value in batch.to_pylist()[1].values())
    with pytest.raises(NotSupportedError, match="column x has the Arrow type"):
        engine.write(["u"], pa.schema([("x", pa.run_end_encoded(pa.int32(), pa.int32()))]), [], "create")


def test_moments_without_end(engine: PostgresEngine) -> None:
    last = 2**63 - 1
    moments = pa.array([last, -last, 0, None], pa.int64())
    batch = pa.record_batch({
        "d": pa.array([2**31 - 1, -(2**31) + 1, 0, None], pa.int32()).view(pa.date32()),
        "t": moments.view(pa.timestamp("us")),
        "z": moments.view(pa.timestamp("us", "Asia/Tokyo")),
        "zs": pa.array([[dt.datetime(1960, 1, 1, tzinfo=dt.UTC)], [], [None], None], pa.list_(pa.timestamp("us", "UTC"))),
        "l": pa.array([[dt.timedelta(seconds=1)], [], [None], None], pa.list_(pa.duration("us"))),
    })  # fmt: skip
    engine.write(["t"], batch.schema, [batch.slice(0, 2), batch.slice(2)], "create")
    stream = engine.run("SELECT d::text, t::text, z::text, zs = ARRAY[timestamptz '1960-01-01 00:00+00'] AS same, l::text FROM t")
    assert rows(stream) == [
        {"d": "infinity", "t": "infinity", "z": "infinity", "same": True, "l": "{00:00:01}"},
        {"d": "-infinity", "t": "-infinity", "z": "-infinity", "same": False, "l": "{}"},
        {"d": "1970-01-01", "t": "1970-01-01 00:00:00", "z": "1970-01-01 00:00:00+00", "same": False, "l": "{NULL}"},
        {"d": None, "t": None, "z": None, "same": None, "l": None},
    ]
    types = [c.sql_type for c in engine.describe("TABLE t")]
    assert types[3:] == ["timestamp with time zone[]", "interval[]"]


def test_nested_values_become_jsonb(engine: PostgresEngine) -> None:
    probs = pa.list_(pa.struct([("label", pa.string()), ("prob", pa.float64())]))
    texts = ['q"uo\\te', "tab\tbell\x07", "ß日本", None]
    rows = [
        {"p": [{"label": text, "prob": 0.25}, None], "m": [('k"', float("nan")), ("l", 1e-7)], "d": [[1], None, []]}
        for text in texts
    ] + [{"p": None, "m": None, "d": None}, {"p": [], "m": [], "d": []}]
    schema = pa.schema([("p", probs), ("m", pa.map_(pa.string(), pa.float64())), ("d", pa.list_(pa.list_(pa.int32())))])
    engine.write(
        ["t"],
        schema,
        [pa.RecordBatch.from_pylist(rows, schema).slice(0, 3), pa.RecordBatch.from_pylist(rows, schema).slice(3)],
        "create",
    )
    assert [c.sql_type for c in engine.describe("TABLE t")] == ["jsonb"] * 3
    query = (
        "SELECT p->0->>'label' AS label, p->1 AS second, m->>'l' AS l, jsonb_typeof(m->'k\"') AS nan, d->0 AS d, d->1 AS e FROM t"
    )
    found = [row for batch in engine.run(query).batches for row in batch.to_pylist()]
    assert [row["label"] for row in found] == [*texts, None, None]
    assert found[0] == {"label": texts[0], "second": "null", "l": "0.0000001", "nan": "null", "d": "[1]", "e": "null"}
    assert number(engine, "SELECT count(*) FROM t WHERE p IS NULL AND m IS NULL") == 1


def test_appended_to_a_table_of_other_types(engine: PostgresEngine) -> None:
    engine.run("CREATE TYPE mood AS ENUM ('sad', 'ok')")
    engine.run('CREATE TABLE t (id serial PRIMARY KEY, a smallint, d date, m mood, "Score" numeric(4,1), j json)')
    batch = pa.record_batch({
        "score": [1.25, 2.0], "a": pa.array([1, 2], pa.int64()), "d": ["2020-01-01", None], "m": ["ok", "sad"],
        "j": [{"a": 1}, None],
    })  # fmt: skip
    assert engine.write(["t"], batch.schema, [batch], "append") == 2
    [found] = engine.run("TABLE t").batches
    assert [str(v) for v in found.to_pylist()[0].values()] == ["1", "1", "2020-01-01", "ok", "1.3", '{"a": 1}']
    with pytest.raises(DataError, match="out of range"):
        engine.write(["t"], pa.schema([("a", pa.int64())]), [pa.record_batch({"a": [70_000]})], "append")
    with pytest.raises(EngineError, match='relation "nowhere" does not exist'):
        engine.write(["nowhere"], batch.schema, [batch], "append")
    assert engine.table_rows(["t"]) == 2


def test_replaced_views_and_what_depends(engine: PostgresEngine) -> None:
    batch = pa.record_batch({"a": [1]})
    engine.run("CREATE VIEW v AS SELECT 1 AS z")
    with pytest.raises(BindError, match="v is a view, not a table"):
        engine.write(["v"], batch.schema, [batch], "replace")
    assert engine.write(["t"], batch.schema, [batch], "create") == 1
    engine.run("CREATE VIEW above AS SELECT * FROM t")
    with pytest.raises(EngineError, match="other objects depend on it") as raised:
        engine.write(["t"], batch.schema, [batch], "replace")
    assert "view above depends on table t" in str(raised.value)
    assert engine.table_rows(["above"]) == 1


def pieces(count: int) -> Iterator[pa.RecordBatch]:
    for _ in range(count):
        yield pa.record_batch({"x": ["y" * 1000] * 20_000})


def test_nothing_is_half_written(engine: PostgresEngine, postgres: str) -> None:
    schema = pa.schema([("x", pa.string())])
    engine.write(["t"], schema, pieces(1), "create")

    def interrupted() -> Iterator[pa.RecordBatch]:
        yield from pieces(2)
        engine.interrupt()
        yield from pieces(20)

    pid = number(engine, "SELECT pg_backend_pid()")

    def lost() -> Iterator[pa.RecordBatch]:
        yield from pieces(2)
        kill(engine, postgres, pid)
        yield from pieces(20)

    for mode in ("replace", "append"):
        with pytest.raises(Cancelled):
            engine.write(["t"], schema, interrupted(), mode)
        assert engine.table_rows(["t"]) == 20_000
    with pytest.raises(OperationalError, match="lost"):
        engine.write(["t"], schema, lost(), "replace")
    assert engine.transaction() is None
    assert engine.table_rows(["t"]) == 20_000
    assert engine.table_rows(["u"]) is None


def test_a_failed_write_leaves_the_transaction(engine: PostgresEngine) -> None:
    engine.run("CREATE TABLE t (a integer CHECK (a > 0))")
    engine.run("BEGIN")
    engine.run("INSERT INTO t VALUES (1)")
    with pytest.raises(IntegrityError):
        engine.write(["t"], pa.schema([("a", pa.int32())]), [pa.record_batch({"a": pa.array([2, -1], pa.int32())})], "append")
    assert engine.transaction() not in (None, ABORTED)
    stream = engine.run("SELECT i AS a FROM generate_series(1, 300000) AS i")
    assert engine.write(["t"], stream.schema, stream.batches, "append") == 300_000
    engine.run("COMMIT")
    assert engine.table_rows(["t"]) == 300_001


def test_a_table_is_replaced_by_rows_read_from_it(engine: PostgresEngine) -> None:
    engine.run("CREATE TABLE t AS " + SERIES)
    stream = engine.run("SELECT i, i + 1 AS j FROM t")
    assert engine.write(["public", "t"], stream.schema, stream.batches, "replace") == 400_000
    assert [c.name for c in engine.describe("TABLE t")] == ["i", "j"]


def test_a_table_is_replaced_by_rows_that_another_connection_reads_from_it(engine: PostgresEngine, postgres: str) -> None:
    """To drop it first would wait for the reader, which waits for its rows to be taken."""
    engine.run("CREATE TABLE t AS " + SERIES)
    other = PostgresEngine.open(postgres)
    try:
        stream = other.run("SELECT i, i + 1 AS j FROM t")
        assert engine.write(["t"], stream.schema, stream.batches, "replace") == 400_000
    finally:
        other.close()
    assert [c.name for c in engine.describe("TABLE public.t")] == ["i", "j"]
    assert engine.names()["tables"] == ("t",)


def test_registered_tables_are_temporary(engine: PostgresEngine, postgres: str) -> None:
    engine.run("CREATE TABLE r AS SELECT 0 AS a")
    engine.register("r", pa.table({"a": [1, 2]}))
    engine.register("r", pa.table({"a": [1, 2, 3]}))
    assert engine.table_rows(["r"]) == 3
    assert engine.table_rows(["public", "r"]) == 1
    batches = engine.run(SERIES).batches
    assert not engine.unregister("r")
    list(batches)
    assert engine.unregister("r")
    assert engine.unregister("r")
    assert engine.table_rows(["r"]) == 1
