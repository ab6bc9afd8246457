"""Spark as an engine, in a real session: the contract, types, results in parts, writing, errors and their places."""

from __future__ import annotations

import datetime as dt
import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from sqlml.contracts import Stream
from sqlml.engines.spark import engine as spark
from sqlml.engines.spark import stage as spark_stage
from sqlml.engines.spark.engine import SparkEngine
from sqlml.engines.spark.types import zone_name
from sqlml.errors import BindError, Cancelled, DatabaseError, DataError, EngineError, NotSupportedError, OperationalError
from sqlml.features.dataset import canonical
from sqlml.spark_common.text import is_query, masked, with_backticks
from sqlml.types import Column, Kind
from tests.kits import check_engine
from tests.servers import spark_session

TABLE = pa.table(
    {
        "i": pa.array([1, None], pa.int32()),
        "word": pa.array(["ß 漢", None]).dictionary_encode(),
        "day": [dt.date(1500, 1, 1), dt.date(9999, 12, 31)],
        "local": pa.array([dt.datetime(1800, 1, 1, 12), None], pa.timestamp("us")),
        "moment": pa.array([dt.datetime(1950, 1, 1, 12), None], pa.timestamp("us", "Europe/Berlin")),
        "time": pa.array([dt.time(1, 2, 3), None]),
        "money": pa.array([Decimal("1.50"), None]),
        "list": pa.array([[1.5], None]),
        "large": pa.array([2**64 - 1, None], pa.uint64()),
        "b c": [True, None],
    }
)


@pytest.fixture(scope="module")
def engine() -> Iterator[SparkEngine]:
    opened = SparkEngine(spark_session())
    yield opened
    opened.close()


def rows(engine: SparkEngine, text: str, parameters: Any = ()) -> list[dict[str, Any]]:
    return [row for batch in engine.run(text, parameters).batches for row in batch.to_pylist()]


class InSparksWords(SparkEngine):
    """The engine, for the kit: Spark says ``range`` for ``generate_series``, STRING for VARCHAR, and has no blanks in names."""

    def describe(self, query: str, parameters: Any = ()) -> tuple[Column, ...]:
        return super().describe(in_sparks_words(query), parameters)

    def run(self, text: str, parameters: Any = ()) -> Stream:
        return super().run(in_sparks_words(text), parameters)

    def estimate_rows(self, query: str, parameters: Any = ()) -> int | None:
        return super().estimate_rows(in_sparks_words(query), parameters)

    def table_rows(self, parts: Sequence[str]) -> int | None:
        return super().table_rows([in_sparks_words(part) for part in parts])

    def write(self, parts: Sequence[str], schema: pa.Schema, batches: Iterable[pa.RecordBatch], mode: str) -> int:
        return super().write([in_sparks_words(part) for part in parts], schema, batches, mode)


def in_sparks_words(text: str) -> str:
    text = re.sub(r"generate_series\((\w+), (\w+)\)", r"range(\1, \2 + 1)", text)
    return text.replace("kit written", "kit_written").replace("VARCHAR", "STRING")


def test_the_contract() -> None:
    engine = InSparksWords(spark_session())
    check_engine(engine, transactions=False)
    engine.run("DROP TABLE IF EXISTS kit_written")
    engine.close()


def test_closing_leaves_a_session_that_was_there_before() -> None:
    opened = SparkEngine.open({"master": "local[2]"})
    assert opened.session is spark_session()
    opened.close()
    assert spark_session().range(1).count() == 1


def test_types_and_values_of_every_sort_come_and_go(engine: SparkEngine) -> None:
    engine.register("given `x", TABLE)
    columns = engine.describe('SELECT * FROM "given `x"')
    assert [(c.sql_type, c.kind) for c in columns] == [
        ("int", Kind.NUMBER), ("string", Kind.TEXT), ("date", Kind.DATE), ("timestamp_ntz", Kind.TIMESTAMP),
        ("timestamp", Kind.TIMESTAMPTZ), ("string", Kind.TEXT), ("decimal(3,2)", Kind.NUMBER), ("array<double>", Kind.NUMBERS),
        ("decimal(20,0)", Kind.NUMBER), ("boolean", Kind.BOOLEAN),
    ]  # fmt: skip
    first, second = rows(engine, 'SELECT * FROM "given `x" ORDER BY i NULLS LAST')
    assert first == {
        "i": 1, "word": "ß 漢", "day": dt.date(1500, 1, 1), "local": dt.datetime(1800, 1, 1, 12),
        "moment": dt.datetime(1950, 1, 1, 12, tzinfo=dt.UTC), "time": "01:02:03.000000", "money": Decimal("1.50"), "list": [1.5],
        "large": 2**64 - 1, "b c": True,
    }  # fmt: skip
    assert second == dict.fromkeys(TABLE.column_names) | {"day": dt.date(9999, 12, 31)}
    assert engine.unregister("given `x")
    with pytest.raises(EngineError):
        engine.describe('SELECT * FROM "given `x"')


def test_values_that_no_model_takes_have_no_kind(engine: SparkEngine) -> None:
    columns = engine.describe(
        "SELECT struct(1) AS s, map(1, 2) AS m, X'00' AS b, INTERVAL '1' DAY AS i, array(DATE '2024-01-01') AS d"
    )
    assert [c.kind for c in columns] == [None] * 5
    with pytest.raises(NotSupportedError, match="column m is interval month"):
        engine.run("SELECT INTERVAL '1' MONTH AS m")


def test_a_large_result_comes_in_parts_and_in_order(engine: SparkEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spark, "SMALL", 0)
    stream = engine.run("SELECT id, CAST(id AS STRING) AS s FROM range(50000) ORDER BY id DESC")
    batches = list(stream.batches)
    assert len(batches) > 1
    found = pa.Table.from_batches(batches, stream.schema)
    assert found.column("id").to_pylist() == list(range(49999, -1, -1))
    stream = engine.run("SELECT id FROM range(50000)")
    next(stream.batches)
    stream.batches.close()
    assert rows(engine, "SELECT 1 AS a") == [{"a": 1}]


def test_an_interrupt_ends_a_stream_that_is_half_read(engine: SparkEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spark, "SMALL", 0)
    stream = engine.run("SELECT id FROM range(50000)")
    next(stream.batches)
    thread = threading.Thread(target=engine.interrupt)
    thread.start()
    thread.join()
    with pytest.raises(Cancelled):
        list(stream.batches)
    assert rows(engine, "SELECT 1 AS a") == [{"a": 1}]


def test_writing_creates_appends_by_name_and_replaces(engine: SparkEngine, tmp_path: Path) -> None:
    def write(table: pa.Table, mode: str, *parts: str) -> int:
        return engine.write(parts or ("written_here",), table.schema, table.to_batches(), mode)

    one = pa.table({"a": [1, 2], "b": ["x", "y"]})
    try:
        assert write(one, "create") == 2
        assert write(pa.table({"b": ["z"], "a": [3]}), "append") == 1
        assert engine.table_rows(["written_here"]) == 3
        assert rows(engine, "SELECT a FROM written_here WHERE b = 'z'") == [{"a": 3}]
        with pytest.raises(BindError, match="exists already"):
            write(one, "create")
        with pytest.raises(DatabaseError):
            write(pa.table({"other": [1]}), "append")
        assert engine.table_rows(["written_here"]) == 3
        assert write(one, "replace") == 2
        again = engine.run("SELECT * FROM written_here")
        assert engine.write(["written_here"], again.schema, again.batches, "replace") == 2
        assert engine.table_rows(["default", "written_here"]) == 2
    finally:
        engine.run("DROP TABLE IF EXISTS written_here")
    folder = str(tmp_path / "people")
    assert write(one, "create", "parquet", folder) == 2
    assert engine.table_rows(["parquet", folder]) == 2
    assert engine.table_rows(["parquet", folder + "x"]) is None


def test_a_reader_is_registered_batch_by_batch(engine: SparkEngine) -> None:
    batches = (pa.record_batch({"a": [i]}) for i in range(3))
    engine.register("streamed", pa.RecordBatchReader.from_batches(pa.schema([("a", pa.int64())]), batches))
    assert rows(engine, "SELECT sum(a) AS s FROM streamed") == [{"s": 3}]
    engine.unregister("streamed")


@pytest.mark.parametrize("zone", ["America/New_York", "GMT-05:00"])
def test_moments_bear_the_session_s_time_zone(engine: SparkEngine, zone: str) -> None:
    """A model of local times then reads what the session's clock shows, as Spark's own cast does."""
    session = spark_session()
    before = session.conf.get("spark.sql.session.timeZone")
    session.conf.set("spark.sql.session.timeZone", zone)
    try:
        stream = engine.run("SELECT TIMESTAMP '2024-01-01 12:00:00' AS t, array(TIMESTAMP '2024-01-01 12:00:00') AS l")
        [batch] = stream.batches
    finally:
        session.conf.set("spark.sql.session.timeZone", before)
    assert batch.column(0).cast(pa.int64())[0].as_py() == 1704128400000000  # 17:00 in UTC
    assert canonical(batch.column(0), Kind.TIMESTAMP).to_pylist() == [dt.datetime(2024, 1, 1, 12)]


@pytest.mark.parametrize(
    ("zone", "name"), [("Z", "UTC"), ("UTC", "UTC"), ("GMT+2", "+02:00"), ("-05:30", "-05:30"), ("Asia/Tokyo", "Asia/Tokyo")]
)
def test_names_of_time_zones(zone: str, name: str) -> None:
    assert zone_name(zone) == name
    with pytest.raises(NotSupportedError, match="PST is known to Spark alone"):
        zone_name("PST")


def test_without_a_place_for_files_few_rows_go_through_the_driver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    engine = SparkEngine(spark_session())
    monkeypatch.setattr(spark_stage.Stage, "_place", lambda self: None)
    engine.register("sent", TABLE)
    assert len(rows(engine, "SELECT * FROM sent")) == 2
    engine.unregister("sent")
    monkeypatch.setattr(spark_stage, "MOST_SENT", 10)
    with pytest.raises(OperationalError, match="staging"):
        engine.register("sent", TABLE)
    monkeypatch.undo()
    given = SparkEngine(spark_session(), str(tmp_path / "shared"))
    given.register("shared", TABLE)
    assert len(list((tmp_path / "shared").iterdir())) == 1
    given.close()
    assert not list((tmp_path / "shared").iterdir())


@pytest.mark.parametrize(
    ("text", "error", "message", "pointed"),
    [
        ("SELECT nowher FROM (SELECT 1 AS nowhere)", EngineError, "nowher", "nowher"),
        ('SELECT "zz" FROM range(3)', EngineError, "zz", '"zz"'),
        ("SELECT *\nFROM nix", EngineError, "`nix` cannot be found", "nix"),
        ("INSERT INTO nix SELECT 1", BindError, "must be one SELECT", None),
        ("WITH x AS (SELECT 1) INSERT INTO nix SELECT * FROM x", EngineError, "INSERT", "INSERT"),
    ],
)
def test_errors_point_into_the_query(
    engine: SparkEngine, text: str, error: type[DatabaseError], message: str, pointed: str | None
) -> None:
    with pytest.raises(error, match=message) as caught:
        engine.describe(text)
    span = caught.value.span
    assert (None if span is None else text[slice(*span)].strip('"')) == (pointed and pointed.strip('"'))


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("SELECT * FROM nearly_right", "did you mean nearly_rihgt?"),
        ("SELECT * FROM near_schema.nearly_right", "did you mean near_schema.nearly_rihgt?"),
        ("SELECT * FROM nare_schema.nearly_right", "did you mean near_schema.nearly_right?"),
        ("CREATE TABLE nare_schema.t (a INT)", "did you mean spark_catalog.near_schema?"),
        ("SELECT * FROM zzzzzz", "Verify the spelling"),
    ],
)
def test_the_nearest_table(engine: SparkEngine, text: str, hint: str) -> None:
    engine.run("CREATE SCHEMA IF NOT EXISTS near_schema")
    for table in ("nearly_rihgt", "near_schema.nearly_rihgt"):
        engine.run(f"CREATE TABLE IF NOT EXISTS {table} (a INT) USING parquet")
    with pytest.raises(EngineError, match="cannot be found") as caught:
        list(engine.run(text).batches)
    assert hint in (caught.value.hint or "")


def test_what_fails_while_running_is_told_then(engine: SparkEngine) -> None:
    stream = engine.run("SELECT 1 / id AS x FROM range(3)")
    with pytest.raises(DataError, match="Division by zero"):
        list(stream.batches)
    with pytest.raises(EngineError, match="`nix` cannot be found"):
        engine.bind("INSERT INTO nix SELECT 1")
    with pytest.raises(EngineError, match="`nix` cannot be found"):
        engine.run("EXPLAIN SELECT * FROM nix")
    engine.bind("CREATE TABLE never_made (a INT)")
    assert engine.table_rows(["never_made"]) is None


def test_parameters_names_and_estimates(engine: SparkEngine) -> None:
    assert rows(engine, "SELECT :a + 1 AS a", {"a": 3}) == [{"a": 4}]
    assert engine.estimate_rows("SELECT * FROM range(77)") == 77
    assert engine.estimate_rows("SELECT * FROM range(77) WHERE id > 5") is None
    engine.register("seen", pa.table({"some column": [1]}))
    names = engine.names()
    engine.unregister("seen")
    assert "seen" in names["tables"]
    assert "some column" in names["columns"]
    assert engine.has_schema("default")
    assert not engine.has_schema("no such `schema")


def test_a_sample_does_not_depend_on_the_order_and_tells_nulls_apart(engine: SparkEngine) -> None:
    values = "SELECT IF(id % 2 = 0, 1, NULL) AS a, IF(id % 2 = 0, NULL, 1) AS b, id % 50 AS c FROM range(1000)"
    up, down = (
        rows(engine, f"SELECT * FROM ({values} ORDER BY id {order}\n){engine.sample_clause(7, 33)}") for order in ("ASC", "DESC")
    )
    assert len(up) == 33
    assert up == down
    assert rows(engine, f"SELECT * FROM ({values}\n){engine.sample_clause(8, 33)}") != up


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('SELECT "a b", \'"s"\' FROM "t`x"', "SELECT `a b`, '\"s\"' FROM `t``x`"),
        ('SELECT \'it\\\'s "x"\', "y"', "SELECT 'it\\'s \"x\"', `y`"),
        ('SELECT 1 -- "no"\n/* "no" /* "no" */ */ "yes"', 'SELECT 1 -- "no"\n/* "no" /* "no" */ */ `yes`'),
        ("SELECT r'\\' , \"a\" , R'\\'", "SELECT r'\\' , `a` , R'\\'"),
        ('SELECT "a""b"', 'SELECT `a"b`'),
        ("SELECT 'a\\\\', \"b\"", "SELECT 'a\\\\', `b`"),
    ],
)
def test_names_in_double_quotes_become_spark_s(text: str, expected: str) -> None:
    assert with_backticks(text) == expected
    assert len(masked(text)) == len(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("((SELECT 1))", True),
        ("-- x\nFROM t", True),
        ("VALUES (1)", True),
        ("DROP TABLE t", False),
        ("", False),
        ("SELEC 1", False),
    ],
)
def test_what_begins_like_a_query(text: str, expected: bool) -> None:
    assert is_query(text) is expected
