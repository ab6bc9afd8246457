"""PostgreSQL as an engine, on a real server: the contract, types, parameters, results in turns, transactions, names."""

from __future__ import annotations

import datetime as dt
import gc
import os
import signal
import threading
import uuid
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import psutil
import psycopg
import pyarrow as pa
import pytest

from sqlml.contracts import Stream
from sqlml.engines.postgres import PostgresEngine
from sqlml.engines.postgres_runs import ABORTED
from sqlml.engines.postgres_types import kind_of_type
from sqlml.errors import (
    BindError,
    Cancelled,
    DatabaseError,
    DataError,
    EngineError,
    IntegrityError,
    NotSupportedError,
    OperationalError,
    ProgrammingError,
)
from sqlml.types import Kind
from tests.kits import check_engine

SERIES = "SELECT i, repeat('x', 100) AS x FROM generate_series(1, 400000) AS i"
"""Some 50 MB: more batches than are read ahead."""


@pytest.fixture
def engine(postgres: str) -> Iterator[PostgresEngine]:
    opened = PostgresEngine.open(postgres)
    yield opened
    opened.close()


def rows(stream: Stream) -> list[dict[str, Any]]:
    return [row for batch in stream.batches for row in batch.to_pylist()]


def values(engine: PostgresEngine, query: str, parameters: Any = ()) -> list[Any]:
    """The first row of a query."""
    [batch] = engine.run(query, parameters).batches
    return [column[0].as_py() for column in batch.columns]


def test_the_contract(engine: PostgresEngine) -> None:
    check_engine(engine)


# --- types ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sql_type", "kind"),
    [
        ("integer", Kind.NUMBER), ("numeric(10,2)", Kind.NUMBER), ("numeric", Kind.NUMBER), ("money", None),
        ("boolean", Kind.BOOLEAN), ("character varying(9)", Kind.TEXT), ("character(3)", Kind.TEXT), ("char", Kind.TEXT),
        ("uuid", Kind.TEXT), ("date", Kind.DATE), ("time without time zone", Kind.TIME), ("timestamptz", Kind.TIMESTAMPTZ),
        ("timestamp(3) without time zone", Kind.TIMESTAMP), ("int4", Kind.NUMBER), ("double precision[]", Kind.NUMBERS),
        ("text[]", Kind.TEXTS), ("date[]", None), ("bytea", None), ("interval", None), ("jsonb", None), ("point", None),
    ],
)  # fmt: skip
def test_kinds(sql_type: str, kind: Kind | None) -> None:
    assert kind_of_type(sql_type) == kind


UTC = dt.UTC

TYPES: list[tuple[str, str, Kind | None, pa.DataType, Any]] = [
    ("7::smallint", "smallint", Kind.NUMBER, pa.int16(), 7),
    ("9223372036854775807", "bigint", Kind.NUMBER, pa.int64(), 2**63 - 1),
    ("'-0.1'::real", "real", Kind.NUMBER, pa.float32(), pytest.approx(-0.1)),
    ("'-Infinity'::float8", "double precision", Kind.NUMBER, pa.float64(), -float("inf")),
    ("1.5::numeric(10,2)", "numeric(10,2)", Kind.NUMBER, pa.decimal128(10, 2), Decimal("1.50")),
    ("1234::numeric(3,-2)", "numeric(3,-2)", Kind.NUMBER, pa.decimal128(5, 0), Decimal("1200")),
    ("0.0012::numeric(2,4)", "numeric(2,4)", Kind.NUMBER, pa.decimal128(4, 4), Decimal("0.0012")),
    ("12345678901234567890123456789012345678::numeric(38)", "numeric(38,0)", Kind.NUMBER, pa.decimal128(38, 0),
     Decimal("12345678901234567890123456789012345678")),
    ("1.25::numeric(60,30)", "numeric(60,30)", Kind.NUMBER, pa.float64(), 1.25),
    ("1.25", "numeric", Kind.NUMBER, pa.float64(), 1.25),
    ("'Infinity'::numeric", "numeric", Kind.NUMBER, pa.float64(), float("inf")),
    ("'12.34'::money", "money", None, pa.decimal128(21, 4), Decimal("12.3400")),
    ("4294967295::oid", "oid", None, pa.int64(), 4294967295),
    ("true", "boolean", Kind.BOOLEAN, pa.bool_(), True),
    ("'ä日本'::varchar(9)", "character varying", Kind.TEXT, pa.string(), "ä日本"),
    ("'ab'::char(3)", "character", Kind.TEXT, pa.string(), "ab "),
    ("'x'::\"char\"", '"char"', Kind.TEXT, pa.string(), "x"),
    ("'8ab0c6f0-0000-0000-0000-00000000000f'::uuid", "uuid", Kind.TEXT, pa.string(), "8ab0c6f0-0000-0000-0000-00000000000f"),
    ("date '1960-02-29'", "date", Kind.DATE, pa.date32(), dt.date(1960, 2, 29)),
    ("time '23:59:59.000001'", "time without time zone", Kind.TIME, pa.time64("us"), dt.time(23, 59, 59, 1)),
    ("timestamp '1900-01-01 00:00:00.5'", "timestamp without time zone", Kind.TIMESTAMP, pa.timestamp("us"),
     dt.datetime(1900, 1, 1, 0, 0, 0, 500_000)),
    ("timestamptz '2020-01-01 00:00+02'", "timestamp with time zone", Kind.TIMESTAMPTZ, pa.timestamp("us", "UTC"),
     dt.datetime(2019, 12, 31, 22, tzinfo=UTC)),
    ("'{\"a\": [1]}'::jsonb", "jsonb", None, pa.string(), '{"a": [1]}'),
    ("'{\"a\":1}'::json", "json", None, pa.string(), '{"a":1}'),
    ("'\\x00ff'::bytea", "bytea", None, pa.binary(), b"\x00\xff"),
    ("interval '1 month 2 days 3 s'", "interval", None, pa.month_day_nano_interval(), (1, 2, 3 * 10**9)),
    ("'1.2.3.0/24'::inet", "inet", None, pa.string(), "1.2.3.0/24"),
    ("point(1, 2.5)", "point", None, pa.string(), "(1,2.5)"),
    ("int4range(1, 5)", "int4range", None, pa.string(), "[1,5)"),
    ("timetz '10:00+02'", "time with time zone", None, pa.string(), "10:00:00+02"),
    ("B'101'", "bit", Kind.TEXT, pa.string(), "101"),
    ("'pg_class'::regclass", "regclass", None, pa.string(), "pg_class"),
    ("to_tsvector('simple', 'a b')", "tsvector", None, pa.string(), "'a':1 'b':2"),
    ("ROW(1, 'x')", "record", None, pa.string(), "(1,x)"),
    ("ARRAY[1, NULL]", "integer[]", Kind.NUMBERS, pa.list_(pa.int32()), [1, None]),
    ("ARRAY[1.5, 'NaN']::numeric(5,1)[]", "numeric[]", Kind.NUMBERS, pa.list_(pa.float64()),
     [1.5, pytest.approx(float("nan"), nan_ok=True)]),
    ("ARRAY['a', NULL]", "text[]", Kind.TEXTS, pa.list_(pa.string()), ["a", None]),
    ("ARRAY['::1']::inet[]", "inet[]", None, pa.list_(pa.string()), ["::1/128"]),
    ("NULL", "text", Kind.TEXT, pa.string(), None),
]  # fmt: skip


@pytest.mark.parametrize(("sql", "sql_type", "kind", "arrow", "value"), TYPES, ids=[case[0] for case in TYPES])
def test_types(engine: PostgresEngine, sql: str, sql_type: str, kind: Kind | None, arrow: pa.DataType, value: Any) -> None:
    query = f"SELECT {sql} AS v"
    stream = engine.run(query)
    assert stream.columns == engine.describe(query)
    assert (stream.columns[0].sql_type, stream.columns[0].kind) == (sql_type, kind)
    assert stream.schema.field("v").type == arrow
    [batch] = stream.batches
    assert batch.schema == stream.schema
    found = batch.column(0)[0].as_py()
    assert (tuple(found) if isinstance(value, tuple) else found) == value


def test_types_of_the_user(engine: PostgresEngine) -> None:
    """Made on this very connection, so unknown to the driver."""
    engine.run("CREATE TYPE mood AS ENUM ('sad', 'it''s ok')")
    engine.run("CREATE DOMAIN share AS numeric(4,2) CHECK (VALUE >= 0)")
    engine.run("CREATE DOMAIN word AS text")
    engine.run("CREATE TYPE pair AS (x integer, y text)")
    engine.run("CREATE TABLE t (m mood, ms mood[], s share, w word, p pair)")
    engine.run("""INSERT INTO t VALUES ('it''s ok', ARRAY['sad']::mood[], 0.5, 'w', (1, 'a'))""")
    columns = engine.describe("TABLE t")
    assert [(c.sql_type, c.kind) for c in columns] == [
        ("mood", Kind.TEXT), ("mood[]", Kind.TEXTS), ("numeric(4,2)", Kind.NUMBER), ("text", Kind.TEXT), ("pair", None),
    ]  # fmt: skip
    assert values(engine, "TABLE t") == ["it's ok", ["sad"], Decimal("0.50"), "w", "(1,a)"]


def test_cast_columns_keep_order_and_names(engine: PostgresEngine) -> None:
    engine.run("CREATE TABLE t (a integer, p point)")
    stream = engine.run("INSERT INTO t SELECT i, point(i, 0) FROM generate_series(1, 3) AS i RETURNING a, p AS a, p")
    assert stream.schema.names == ["a", "a", "p"]
    assert stream.rowcount == 3
    [batch] = stream.batches
    assert batch.column(1).to_pylist() == ["(1,0)", "(2,0)", "(3,0)"]
    [batch] = engine.run("SELECT a, p, a FROM t ORDER BY a DESC -- the last first").batches
    assert [batch.column(i).to_pylist() for i in (0, 2)] == [[3, 2, 1]] * 2
    engine.run("PREPARE points AS SELECT a, p FROM t")
    with pytest.raises(NotSupportedError, match="column p has the type point, which has no Arrow form") as raised:
        engine.run("EXECUTE points")
    assert "p::text" in str(raised.value)


def test_dates_without_end(engine: PostgresEngine) -> None:
    """As DuckDB has them in Arrow: the largest number."""
    query = (
        "SELECT d, ts, tz, NULL::date AS n FROM (VALUES (date 'infinity', timestamp '-infinity', timestamptz 'infinity'), "
        "('2020-01-01', '2020-01-01', '2020-01-01')) AS v(d, ts, tz)"
    )
    [batch] = engine.run(query).batches
    assert batch.column(0).view(pa.int32()).to_pylist() == [2**31 - 1, 18262]
    assert batch.column(1).view(pa.int64())[0].as_py() == -(2**63 - 1)
    assert batch.column(2).view(pa.int64())[0].as_py() == 2**63 - 1
    assert batch.column(2)[1].as_py() == dt.datetime(2020, 1, 1, tzinfo=UTC)
    [batch] = engine.run("SELECT date '4713-01-01 BC' AS d, date '0044-03-15 BC' AS e, timestamp '12024-01-01' AS f").batches
    assert batch.column(1).cast(pa.string()).to_pylist() == ["-0043-03-15"]
    [batch] = engine.run("SELECT ARRAY[date 'infinity', '2020-01-01'] AS a").batches
    assert batch.column(0).values.view(pa.int32()).to_pylist() == [2**31 - 1, 18262]


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("'NaN'::numeric(10,2)", "column v has the numeric value NaN"),
        ("timestamp '294276-06-01'", "column v has a time after the year 294246"),
    ],
)
def test_values_without_an_arrow_form(engine: PostgresEngine, sql: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as raised:
        list(engine.run(f"SELECT {sql} AS v").batches)
    assert raised.value.hint
    assert values(engine, f"SELECT ({sql})::text AS v")


# --- parameters -------------------------------------------------------------------------------------------------------


PARAMETERS = [
    "it's \\ \"ß\" $1 ?", "", -5, 2**40, 2**70, 1.5, float("-inf"), True, None, Decimal("1.50"), b"\x00'\\",
    [1, -2, None], ["a,\"}", None, "\\"],
    [], [1.5, 2], dt.date(1960, 1, 1), dt.datetime(2020, 1, 1, 2, 3, 4, 5), dt.datetime(2020, 1, 1, tzinfo=UTC), dt.time(10, 0),
]  # fmt: skip


@pytest.mark.parametrize("value", PARAMETERS, ids=repr)
def test_values_come_back(engine: PostgresEngine, value: Any) -> None:
    if value == [] or (isinstance(value, list) and isinstance(value[0], str)):
        assert values(engine, "SELECT ?::text[]", [value]) == [value]
    else:
        assert values(engine, "SELECT ?", [value]) == [value]


def test_a_text_is_what_its_place_asks_for(engine: PostgresEngine) -> None:
    engine.run("CREATE TYPE mood AS ENUM ('sad', 'ok')")
    engine.run("CREATE TABLE t (d date, m mood, u uuid, n numeric(6,2), j jsonb)")
    key = uuid.uuid4()
    engine.run("INSERT INTO t VALUES (?, ?, ?, ?, ?)", ["2020-01-01", "ok", str(key), 1.5, {"a": 1}])
    query = "SELECT count(*) AS c FROM t WHERE d = ? AND m = ? AND u = ? AND n = ? AND d > $$1999-01-01$$"
    assert values(engine, query, ["2020-01-01", "ok", key, "1.5"]) == [1]
    assert values(engine, "SELECT count(*) FROM t WHERE m = ANY(?)", [["ok", "sad"]]) == [1]
    assert values(
        engine, "SELECT count(*) AS c FROM t WHERE d BETWEEN $from AND $to", {"from": dt.date(2019, 1, 1), "to": "2021-01-01"}
    ) == [1]
    assert values(engine, "SELECT $2, $1, $2", [1, 2]) == [2, 1, 2]
    assert values(engine, "SELECT $1 AS a", {"1": 7}) == [7]
    assert values(engine, "SELECT ($1)[2]", [[5, 6]]) == [6]
    assert values(engine, "SELECT - ?", [-5]) == [5]


def test_question_marks_are_operators_too(engine: PostgresEngine) -> None:
    jsonb = "'{\"a\": 1}'::jsonb"
    assert values(engine, f"SELECT {jsonb} ? 'a', {jsonb} ?| ARRAY['b'], {jsonb} ?& ARRAY['a']") == [True, False, True]
    assert values(engine, f"SELECT {jsonb} ? $1, {jsonb} ?| ARRAY['b']", ["a"]) == [True, False]
    assert values(engine, f"SELECT {jsonb} ?| ARRAY[?], ?||'x'", ["a", "b"]) == [True, "bx"]


@pytest.mark.parametrize(
    ("text", "given", "message"),
    [
        ("SELECT ?, ?", [1], "has no value"),
        ("SELECT $a", {"b": 1}, r"\$a has no value"),
        ("SELECT $a", [1], "is named"),
        ("SELECT ?", [1, 2], r"does not have: \$2"),
        ("SELECT 1", {"b": 1}, r"does not have: \$b"),
        ("SELECT ?", ["\0"], "NUL"),
        ("SELECT ?", [object()], "no SQL form"),
    ],
)
def test_values_that_do_not_fit(engine: PostgresEngine, text: str, given: Any, message: str) -> None:
    with pytest.raises((ProgrammingError, DataError), match=message):
        engine.run(text, given)


# --- running ----------------------------------------------------------------------------------------------------------


def test_statements_of_every_sort(engine: PostgresEngine) -> None:
    created = engine.run("CREATE TABLE t (a integer PRIMARY KEY, b text)")
    assert (created.has_rows, created.rowcount, created.columns, list(created.batches)) == (False, -1, (), [])
    assert engine.run("INSERT INTO t SELECT i, 'x' FROM generate_series(1, 5) AS i").rowcount == 5
    changed = engine.run("UPDATE t SET a = a + 10 WHERE a > 3 RETURNING a;")
    assert (changed.rowcount, rows(changed)) == (2, [{"a": 14}, {"a": 15}])
    assert engine.run("DELETE FROM t WHERE a > 10").rowcount == 2
    assert engine.run("CREATE TABLE u AS TABLE t").rowcount == 3
    moved = engine.run("WITH gone AS (DELETE FROM u RETURNING a) SELECT a FROM gone")
    moved.batches.close()  # it has run, whoever reads it
    assert engine.table_rows(["u"]) == 0
    assert rows(engine.run("SHOW standard_conforming_strings")) == [{"standard_conforming_strings": "on"}]
    assert "Seq Scan" in rows(engine.run("EXPLAIN SELECT * FROM t"))[0]["QUERY PLAN"]
    engine.run("DO $$ BEGIN RAISE NOTICE 'hello'; END $$")
    engine.run("VACUUM t")
    assert rows(engine.run("(VALUES (1), (2)) /* both */ -- of them")) == [{"column1": 1}, {"column1": 2}]
    with pytest.raises(NotSupportedError, match="COPY"):
        engine.run("COPY t TO STDOUT")
    with pytest.raises(EngineError, match="multiple commands"):
        engine.run("SELECT 1; SELECT 2")


def test_many_rows_of_values(engine: PostgresEngine) -> None:
    engine.run("CREATE TABLE t (a integer PRIMARY KEY, b date)")
    engine.run_many("INSERT INTO t VALUES (?, ?)", [(1, "2020-01-01"), (2, dt.date(2020, 1, 2)), (3, None)])
    assert engine.table_rows(["t"]) == 3
    with pytest.raises(IntegrityError, match="duplicate key") as raised:
        engine.run_many("INSERT INTO t VALUES (?, ?)", [(4, None), (1, None)])
    assert "Key (a)=(1) already exists." in str(raised.value)
    assert engine.table_rows(["t"]) == 3
    assert engine.transaction() is None


def test_results_are_read_in_turns(engine: PostgresEngine) -> None:
    one, two = engine.run(SERIES), engine.run("SELECT 1 / (i - 2900000) AS b FROM generate_series(1, 3000000) AS i")
    three = engine.run(SERIES)
    first = next(three.batches).num_rows
    assert first < 100_000  # batches are bounded
    assert sum(batch.num_rows for batch in one.batches) == 400_000
    with pytest.raises(DataError, match="division by zero"):  # kept for its own reader
        list(two.batches)
    assert first + sum(batch.num_rows for batch in three.batches) == 400_000


def test_what_nobody_reads_is_in_nobodys_way(engine: PostgresEngine, postgres: str) -> None:
    engine.run("CREATE TABLE t AS " + SERIES)
    for how in ("close", "forget", "forget unread"):
        stream = engine.run("TABLE t")
        if how != "forget unread":
            next(stream.batches)
        if how == "close":
            stream.batches.close()
        del stream
        gc.collect()
        with psycopg.connect(postgres) as other:  # the server has let go of the table
            other.execute("SET lock_timeout = '5s'")
            other.execute("LOCK TABLE t")
    assert values(engine, "SELECT 1") == [1]


def test_memory_is_flat(engine: PostgresEngine) -> None:
    process = psutil.Process()
    for batch in engine.run(SERIES).batches:
        assert batch.nbytes < 16 * 2**20
    before = process.memory_info().rss
    most = 0
    for _ in engine.run("SELECT i, repeat('x', 100) AS x FROM generate_series(1, 2000000) AS i").batches:
        most = max(most, process.memory_info().rss - before)
    assert most < 64 * 2**20  # of 250 MB


def test_the_snapshot_holds(engine: PostgresEngine, postgres: str) -> None:
    engine.run("CREATE TABLE t AS " + SERIES)
    batches = engine.run("SELECT i FROM t").batches
    seen = [next(batches)]
    with psycopg.connect(postgres, autocommit=True) as other:
        other.execute("UPDATE t SET i = -i")
        other.execute("INSERT INTO t VALUES (-1, 'new')")
        other.execute("DELETE FROM t WHERE i % 2 = 0")
    found = pa.Table.from_batches([*seen, *batches])["i"].to_pylist()
    assert sorted(found) == list(range(1, 400_001))


def test_a_sample_does_not_depend_on_the_rows_order(engine: PostgresEngine) -> None:
    def sample(order: str, seed: int) -> list[Any]:
        query = f"SELECT i, i::text AS t FROM generate_series(1, 5000) AS i ORDER BY i {order}"
        return sorted(row["i"] for row in rows(engine.run(f"SELECT * FROM ({query}){engine.sample_clause(seed, 100)}")))

    assert sample("ASC", 7) == sample("DESC", 7) != sample("ASC", 8)
    assert len(sample("ASC", 7)) == 100
    assert len(sample("ASC", 2**70)) == 100


# --- interrupts -------------------------------------------------------------------------------------------------------


def test_interrupted_between_two_batches(engine: PostgresEngine) -> None:
    batches = engine.run("SELECT generate_series(1, 40000000) AS i, repeat('x', 100) AS x").batches
    next(batches)
    engine.interrupt()
    with pytest.raises(Cancelled):
        list(batches)
    assert values(engine, "SELECT 1") == [1]


def test_a_timeout_of_the_server_is_no_cancelling(engine: PostgresEngine) -> None:
    engine.run("SET statement_timeout = 50")
    with pytest.raises(OperationalError, match="statement timeout") as raised:
        engine.run("SELECT pg_sleep(5)")
    assert not isinstance(raised.value, Cancelled)


def test_control_c(engine: PostgresEngine) -> None:
    """Python's own signal reaches whoever waits, and ends the statement on the server."""
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        engine.run("SELECT pg_sleep(60)")
    timer.join()
    assert values(engine, "SELECT 1") == [1]


# --- transactions -----------------------------------------------------------------------------------------------------


def test_transactions_are_seen(engine: PostgresEngine) -> None:
    assert engine.transaction() is None
    engine.run("BEGIN")
    number = engine.transaction()
    assert number not in (None, ABORTED)
    engine.run("CREATE TABLE t (a integer)")
    assert engine.transaction() == number
    with pytest.raises(EngineError):
        engine.run("SELECT * FROM nowhere")
    assert engine.transaction() == ABORTED
    assert engine.table_rows(["t"]) is None
    assert not engine.has_function("mine")
    with pytest.raises(OperationalError, match="transaction is aborted"):
        engine.run("SELECT 1")
    engine.run("ROLLBACK")
    assert engine.transaction() is None
    engine.run("BEGIN")
    second = engine.transaction()
    engine.run("COMMIT AND CHAIN")
    assert len({number, second, engine.transaction()}) == 3
    engine.run("COMMIT")
    assert engine.transaction() is None


def test_one_sees_ones_own_rows(engine: PostgresEngine, postgres: str) -> None:
    engine.run("CREATE TABLE t (a integer)")
    engine.run("BEGIN")
    engine.run("INSERT INTO t VALUES (1), (2)")
    engine.run("SAVEPOINT here")
    engine.run("INSERT INTO t VALUES (3)")
    engine.run("ROLLBACK TO here")
    assert engine.table_rows(["t"]) == 2
    assert engine.transaction() is not None
    other = PostgresEngine.open(postgres)
    assert other.table_rows(["t"]) == 0
    engine.run("COMMIT")
    assert other.table_rows(["t"]) == 2
    other.close()


def test_questions_do_no_harm_to_a_transaction(engine: PostgresEngine) -> None:
    engine.run("BEGIN")
    for wrong in (engine.describe, engine.bind, engine.estimate_rows):
        with pytest.raises(DatabaseError):
            wrong("SELECT * FROM nowhere")
    assert engine.scope("SELECT ", " FROM nowhere") == ()
    assert engine.table_rows(["nowhere"]) is None
    assert engine.table_rows(["elsewhere", "public", "t"]) is None
    batches = engine.run(SERIES).batches
    next(batches)
    batches.close()  # not cancelled: that would abort the transaction
    assert values(engine, "SELECT 1") == [1]
    assert engine.transaction() not in (None, ABORTED)
    engine.run("ROLLBACK")


# --- names ------------------------------------------------------------------------------------------------------------


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
