"""PostgreSQL's types: their names, what they are to a model, and the values that come of them."""

from __future__ import annotations

import datetime as dt
import ipaddress
import json
import uuid
from decimal import Decimal
from typing import Any

import psycopg
import pyarrow as pa
import pytest

from sqlml.engines.postgres.engine import PostgresEngine
from sqlml.engines.postgres.types import kind_of_type
from sqlml.errors import DataError, NotSupportedError
from sqlml.types import Kind
from tests.engines.postgres.asking import rows, values


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
    ("'ä日本'::varchar(9)", "character varying(9)", Kind.TEXT, pa.string(), "ä日本"),
    ("'ab'::char(3)", "character(3)", Kind.TEXT, pa.string(), "ab "),
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
    ("B'101'", '"bit"', Kind.TEXT, pa.string(), "101"),
    ("B'101'::bit(3)", "bit(3)", Kind.TEXT, pa.string(), "101"),
    ("'ab'::bpchar", "bpchar", Kind.TEXT, pa.string(), "ab"),
    ("'pg_class'::regclass", "regclass", None, pa.string(), "pg_class"),
    ("to_tsvector('simple', 'a b')", "tsvector", None, pa.string(), "'a':1 'b':2"),
    ("ROW(1, 'x')", "record", None, pa.string(), "(1,x)"),
    ("ARRAY[1, NULL]", "integer[]", Kind.NUMBERS, pa.list_(pa.int32()), [1, None]),
    ("ARRAY[1.5, 'NaN']::numeric(5,1)[]", "numeric(5,1)[]", Kind.NUMBERS, pa.list_(pa.float64()),
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


MANY = {
    "small": "(i % 7)::smallint",
    "whole": "CASE WHEN i % 3 > 0 THEN i END",
    "large": "i * 10000000000",
    "short": "(i / 8.0)::real",
    "double": "CASE WHEN i % 5 > 0 THEN i / 7.0::float8 END",
    "yes": "i % 2 = 0",
    "maybe": "CASE WHEN i % 4 > 0 THEN i % 2 = 0 END",
    "word": "repeat('ä日', i % 9)",
    "gap": "CASE WHEN i % 2 > 0 THEN 'x' || i END",
    "few": "CASE i % 5 WHEN 0 THEN -0.01 WHEN 1 THEN 99999999.99 WHEN 2 THEN 0 WHEN 3 THEN i ELSE 10000 END::numeric(10,2)",
    "wide": "(CASE i % 3 WHEN 0 THEN '-999999999999.999999' WHEN 1 THEN '0.000001' ELSE '999999999999' END)::numeric(18,6)",
    "small_one": "(i % 1000 / 1e16)::numeric(16,16)",
    "exact": "(i::numeric ^ 8)::numeric(38,3)",
    "any": "CASE WHEN i % 2 > 0 THEN i::numeric / 3 END",
    "day": "date '1960-01-01' + i",
    "clock": "time '00:00' + i * interval '1 s'",
    "at": "timestamp '1900-01-01' + i * interval '37 min'",
    "tz": "CASE WHEN i % 2 > 0 THEN timestamptz '2020-01-01' + i * interval '1 s' END",
    "took": "i * interval '2 days 3.5 s'",
    "bytes": "decode(lpad(to_hex(i), 8, '0'), 'hex')",
    "j": "jsonb_build_object('a', i)",
    "ints": "CASE i % 4 WHEN 0 THEN '{}' WHEN 1 THEN ARRAY[i, -i] WHEN 2 THEN ARRAY[i, NULL, i] END::integer[]",
    "matrix": "ARRAY[[i, 2], [3, i]]",
    "texts": "CASE WHEN i % 3 > 0 THEN ARRAY['a', NULL, repeat('ß', i % 5)] END",
    "flags": "ARRAY[i % 2 = 0, NULL]",
    "days": "ARRAY[date '2000-01-01' + i]",
    "fractions": "ARRAY[i / 4.0, NULL]",
    "one": "'c'::\"char\"",
    "key": "md5(i::text)::uuid",
    "net": "('10.0.' || i % 256 || '.0/24')::inet",
    "nothing": "NULL::integer",
}
"""Columns of every form, with NULLs in some; ``i`` counts the rows."""


def test_many_rows_of_every_form(engine: PostgresEngine, postgres: str) -> None:
    """What psycopg reads of the same rows, value by value; more rows than are decoded at a time."""
    items = ", ".join(f"{sql} AS {name}" for name, sql in MANY.items())
    query = f"SELECT {items} FROM generate_series(1, 6000) AS i"
    engine.run("SET TimeZone = 'Asia/Tokyo'")
    stream = engine.run(query)
    batches = list(stream.batches)
    assert len(batches) > 1
    table = pa.Table.from_batches(batches)
    with psycopg.connect(postgres, autocommit=True) as other:
        other.execute("SET TimeZone = 'Asia/Tokyo'")
        wanted = other.execute(query).fetchall()
    for name, values_of in zip(MANY, zip(*wanted, strict=True), strict=True):
        found = [ours(value) for value in table[name].to_pylist()]
        assert found == [float(value) if value and name == "any" else theirs(value) for value in values_of], name


def ours(value: Any) -> Any:
    if isinstance(value, pa.MonthDayNano):
        return dt.timedelta(days=value.months * 30 + value.days, microseconds=value.nanoseconds // 1000)
    return value


def theirs(value: Any) -> Any:
    """A value of psycopg's in the form that Arrow gives: matrices flat, their decimals as doubles."""
    if isinstance(value, list):
        items = [item for part in value for item in part] if value and isinstance(value[0], list) else value
        return [float(item) if isinstance(item, Decimal) else item for item in items]
    if isinstance(value, dict):
        return json.dumps(value)
    if isinstance(value, uuid.UUID | ipaddress.IPv4Interface):
        return str(value)
    return value


@pytest.mark.parametrize("form", ["SELECT", "PREPARE"])
def test_numerics_where_nothing_can_be_cast(engine: PostgresEngine, form: str) -> None:
    """In what changes rows and in prepared statements: read one by one."""
    engine.run("CREATE TABLE t (n numeric, m numeric(30,4), a numeric[])")
    engine.run("INSERT INTO t VALUES (1e20, 12345678901234567890.5, '{1.5,NULL}'), ('-Infinity', NULL, NULL), ('NaN', 0, '{}')")
    query = "WITH gone AS (DELETE FROM t RETURNING *) SELECT * FROM gone"
    if form == "PREPARE":
        engine.run("PREPARE all_of AS SELECT * FROM t")
        query = "EXECUTE all_of"
    found = rows(engine.run(query))
    assert [str(row["n"]) for row in found] == ["1e+20", "-inf", "nan"]
    assert [row["m"] for row in found] == [Decimal("12345678901234567890.5000"), None, Decimal("0.0000")]
    assert [row["a"] for row in found] == [[1.5, None], None, []]


def test_rows_larger_than_a_chunk(engine: PostgresEngine) -> None:
    """Also one that fills a chunk to its last byte, and results of no rows or no bytes."""
    sizes = [1, 1 << 21, 3, (1 << 20) - 25, (1 << 20) - 6, 0]
    for size in sizes:
        [value] = values(engine, f"SELECT repeat('x', {size}) AS v")
        assert len(value) == size
    table = pa.Table.from_batches(engine.run(f"SELECT repeat('y', s) AS v, s FROM unnest(ARRAY{sizes}) AS s").batches)
    assert [len(v) for v in table["v"].to_pylist()] == table["s"].to_pylist() == sizes
    assert list(engine.run("SELECT 1 AS a WHERE false").batches) == []
    assert [batch.num_rows for batch in engine.run("VALUES (NULL::integer), (NULL)").batches] == [2]


@pytest.mark.parametrize(
    ("zone", "arrow"), [("Etc/UTC", "UTC"), ("Europe/Berlin", "Europe/Berlin"), ("-3.5", "-03:30"), ("5", "+05:00")]
)
def test_moments_bear_the_sessions_zone(engine: PostgresEngine, zone: str, arrow: str) -> None:
    engine.run(f"SET TIME ZONE {zone if zone[-1].isdigit() else repr(zone)}")
    stream = engine.run("SELECT timestamptz '2020-01-01 00:00+00' AS v, ARRAY[timestamptz '2020-01-01 00:00+00'] AS w")
    assert stream.schema.field("v").type == pa.timestamp("us", arrow)
    assert rows(stream) == [{"v": dt.datetime(2020, 1, 1, tzinfo=UTC), "w": [dt.datetime(2020, 1, 1, tzinfo=UTC)]}]


def test_rows_that_go_back_keep_all_of_it(engine: PostgresEngine) -> None:
    query = "SELECT 12345678901234567890.5::numeric AS n, ARRAY[[1,2],[3,4]] AS a, ARRAY[1.5] AS b, 'x'::varchar(4) AS v"
    stream = engine.run_exact(query, used={"b"})
    [row] = rows(stream)
    assert row == {"n": "12345678901234567890.5", "a": "{{1,2},{3,4}}", "b": [1.5], "v": "x"}
    assert [c.sql_type for c in stream.columns] == ["numeric", "integer[]", "numeric[]", "character varying(4)"]


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
