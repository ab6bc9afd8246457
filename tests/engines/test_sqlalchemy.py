"""Databases behind SQLAlchemy, read from: a SQLite file and a PostgreSQL server."""

from __future__ import annotations

import datetime as dt
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from sqlml.contracts import WritableEngine
from sqlml.engines.sqlalchemy.engine import BATCH_ROWS, FIRST_ROWS, SqlalchemyEngine
from sqlml.engines.sqlalchemy.errors import missing_column
from sqlml.engines.sqlalchemy.text import write_statement
from sqlml.errors import (
    BindError,
    Cancelled,
    DatabaseError,
    DataError,
    EngineError,
    MissingExtra,
    NotSupportedError,
    OperationalError,
)
from sqlml.types import Kind

pytestmark = pytest.mark.filterwarnings("ignore:XDG_RUNTIME_DIR")

SCRIPT = """
CREATE TABLE people (id INTEGER PRIMARY KEY, name TEXT, born DATE, seen TIMESTAMP, rises TIME, member BOOLEAN,
    balance DECIMAL(9, 2), photo BLOB, anything);
INSERT INTO people VALUES
    (1, 'Ada 東京', '1815-12-10', '2024-02-29 13:30:00.5', '06:30:00', 1, 12.5, x'00ff', 7),
    (2, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
    (3, '%s ? $1 :x', '2000-01-01', '2024-02-29T13:30', '23:59:59', 0, 3, x'', 7);
CREATE VIEW members AS SELECT name, member FROM people;
CREATE TABLE empty (a INTEGER, d DATE, x);
"""
MOMENT = dt.datetime(2024, 2, 29, 13, 30)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A SQLite file that no program of ours has made."""
    path = tmp_path / "shop & more.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(SCRIPT)
    return path


@pytest.fixture
def sqlite(file: Path) -> Iterator[SqlalchemyEngine]:
    opened = SqlalchemyEngine.open(f"sqlite:///{file}")
    yield opened
    opened.close()


@pytest.fixture
def server(postgres: str) -> Iterator[SqlalchemyEngine]:
    opened = SqlalchemyEngine.open(postgres.replace("postgresql://", "postgresql+psycopg://"))
    yield opened
    opened.close()


@pytest.fixture(params=["sqlite", "server"])
def engine(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


def rows(engine: SqlalchemyEngine, text: str, parameters: Any = ()) -> list[dict[str, Any]]:
    return [row for batch in engine.run(text, parameters).batches for row in batch.to_pylist()]


def types(engine: SqlalchemyEngine, text: str, parameters: Any = ()) -> dict[str, tuple[str, Kind | None]]:
    """What ``describe`` says; ``run`` says the same."""
    described = engine.describe(text, parameters)
    stream = engine.run(text, parameters)
    stream.batches.close()
    assert stream.columns == described
    assert stream.schema.names == [column.name for column in described]
    return {column.name: (column.sql_type, column.kind) for column in described}


def counted(count: int) -> str:
    """The table ``r`` of the numbers from 1 on."""
    return f"WITH RECURSIVE r(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM r WHERE i < {count})"


def fill(file: Path, values: list[Any]) -> None:
    """The table ``t``: one column without a declared type."""
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("CREATE TABLE t (v)")
        connection.executemany("INSERT INTO t VALUES (?)", [(value,) for value in values])


# --- on any database --------------------------------------------------------------------------------------------------


def test_the_contract_of_reading(engine: SqlalchemyEngine) -> None:
    found = types(engine, "SELECT 1 AS a, 'x' AS \"b c\", 1.5 AS d, NULL AS n")
    assert {name: kind for name, (_, kind) in found.items() if name != "n"} == {
        "a": Kind.NUMBER, "b c": Kind.TEXT, "d": Kind.NUMBER,
    }  # fmt: skip
    stream = engine.run("SELECT CAST(? AS INTEGER) + 1 AS a;", [41])
    assert stream.schema.names == [column.name for column in stream.columns] == ["a"]
    assert [row for batch in stream.batches for row in batch.to_pylist()] == [{"a": 42}]
    assert rows(engine, "SELECT 1 AS a WHERE 1 = 0") == []
    engine.bind("SELECT 1")
    with pytest.raises(EngineError) as missing:
        engine.bind("SELECT nowhere FROM (SELECT 1 AS a, 2 AS b) AS t")
    assert missing_column(missing.value.message) == "nowhere"
    assert engine.table_rows(["nowhere"]) is None
    assert engine.estimate_rows("SELECT 1") is None
    for wrong, error in (("SELECT nothing", EngineError), ("SELEC 1", BindError), ("DROP TABLE nowhere", BindError)):
        with pytest.raises(error):
            engine.describe(wrong)
    assert "slower" in engine.notice
    assert engine.dialect in engine.notice


@pytest.mark.parametrize(
    ("text", "parameters"),
    [
        ("SELECT CAST(? AS INTEGER) AS a, CAST(? AS VARCHAR(9)) AS b", [1, "x%s"]),
        ("SELECT CAST($2 AS INTEGER) AS a, CAST($1 AS VARCHAR(9)) AS b", ["x%s", 1]),
        ("SELECT CAST($n AS INTEGER) AS a, CAST($t AS VARCHAR(9)) AS b", {"n": 1, "t": "x%s"}),
        ("-- 100 % ? of it\nSELECT CAST(? AS INTEGER) AS a, 'x%s' AS b WHERE '%(p1)s ?' LIKE '%' -- ?", [1]),
    ],
)
def test_parameters(engine: SqlalchemyEngine, text: str, parameters: Any) -> None:
    assert rows(engine, text, parameters) == [{"a": 1, "b": "x%s"}]
    assert types(engine, text, parameters)["b"] == ("VARCHAR", Kind.TEXT)


def test_text_without_parameters_is_left_alone(engine: SqlalchemyEngine) -> None:
    assert rows(engine, "SELECT '100 % ? :x %(y)s' AS a, ';' AS b") == [{"a": "100 % ? :x %(y)s", "b": ";"}]


@pytest.mark.parametrize(
    ("style", "sql"), [("numeric", ":1 + :2"), ("named", ":p1 + :p2"), ("format", "%s + %s"), ("numeric_dollar", "$1 + $2")]
)
def test_other_styles_of_parameters(style: str, sql: str) -> None:
    written = write_statement("SELECT ? + ?;", [1, 2], style)
    assert written.sql == f"SELECT {sql}"
    assert written.values == ({"p1": 1, "p2": 2} if style == "named" else (1, 2))


def test_a_value_that_is_not_there(engine: SqlalchemyEngine) -> None:
    with pytest.raises(BindError, match=r"no value for the parameter \$2"):
        engine.run("SELECT $2", [1])


@pytest.mark.parametrize(
    "text", ["DELETE FROM people", "CREATE TABLE x (a INTEGER)", "SELECT 1; DROP TABLE people", "EXPLAIN SELECT 1", ""]
)
def test_only_single_queries_are_sent(engine: SqlalchemyEngine, text: str) -> None:
    with pytest.raises(NotSupportedError, match=r"can only be read from|several statements"):
        engine.run(text)
    with pytest.raises(BindError):
        engine.describe(text)


def test_it_can_not_be_written_to(engine: SqlalchemyEngine) -> None:
    assert not isinstance(engine, WritableEngine)


def test_many_rows_come_in_batches(engine: SqlalchemyEngine) -> None:
    count = FIRST_ROWS + 2 * BATCH_ROWS + 5
    text = f"{counted(count)} SELECT i, NULLIF(i % 3, 0) AS m FROM r"
    sizes, total = [], 0
    for batch in engine.run(text).batches:
        if batch.num_rows:
            sizes.append(batch.num_rows)
            total += sum(batch.column(0).to_pylist())
    assert sizes == [FIRST_ROWS, BATCH_ROWS, BATCH_ROWS, 5]
    assert total == count * (count + 1) // 2


def test_streams_that_are_given_up_give_their_connections_back(engine: SqlalchemyEngine) -> None:
    text = f"{counted(30000)} SELECT i FROM r"
    for begun in (False, True) * 10:
        batches = engine.run(text).batches
        if begun:
            assert next(batches).num_rows == FIRST_ROWS
        batches.close()
    several = [engine.run(text).batches for _ in range(3)]
    assert [sum(batch.num_rows for batch in batches) for batches in several] == [30000] * 3


def test_closing_while_rows_stream(file: Path, postgres: str) -> None:
    for url in (f"sqlite:///{file}", postgres.replace("postgresql://", "postgresql+psycopg://")):
        opened = SqlalchemyEngine.open(url)
        batches = opened.run(f"{counted(30000)} SELECT i FROM r").batches
        next(batches)
        opened.close()
        with pytest.raises(OperationalError):
            list(batches)


def test_interrupt(engine: SqlalchemyEngine) -> None:
    endless = "WITH RECURSIVE r(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM r) SELECT count(*) AS n FROM r"
    timer = threading.Timer(0.3, engine.interrupt)
    timer.start()
    with pytest.raises(Cancelled, match="cancelled"):
        list(engine.run(endless).batches)
    timer.join()
    batches = engine.run(f"{counted(100_000)} SELECT i FROM r").batches
    next(batches)
    engine.interrupt()
    with pytest.raises(Cancelled):
        list(batches)
    assert rows(engine, "SELECT 1 AS a") == [{"a": 1}]


def test_nothing_but_null(engine: SqlalchemyEngine) -> None:
    text = f"{counted(FIRST_ROWS + 3)} SELECT CASE WHEN i > {FIRST_ROWS + 1} THEN i / 2.0 END AS late FROM r"
    assert types(engine, text)["late"] == ("DOUBLE", Kind.NUMBER)
    assert sum(row["late"] is not None for row in rows(engine, text)) == 2


# --- SQLite -----------------------------------------------------------------------------------------------------------


def test_declared_types_of_sqlite(sqlite: SqlalchemyEngine) -> None:
    assert types(sqlite, "SELECT * FROM people") == {
        "id": ("BIGINT", Kind.NUMBER), "name": ("VARCHAR", Kind.TEXT), "born": ("DATE", Kind.DATE),
        "seen": ("TIMESTAMP", Kind.TIMESTAMP), "rises": ("TIME", Kind.TIME), "member": ("BOOLEAN", Kind.BOOLEAN),
        "balance": ("DOUBLE", Kind.NUMBER), "photo": ("BLOB", None), "anything": ("BIGINT", Kind.NUMBER),
    }  # fmt: skip
    assert rows(sqlite, "SELECT * FROM people WHERE id = ?", [1]) == [
        {
            "id": 1, "name": "Ada 東京", "born": dt.date(1815, 12, 10), "seen": MOMENT.replace(microsecond=500000),
            "rises": dt.time(6, 30), "member": True, "balance": 12.5, "photo": b"\x00\xff", "anything": 7,
        }
    ]  # fmt: skip
    assert [row["name"] for row in rows(sqlite, "SELECT name FROM people ORDER BY id")] == ["Ada 東京", None, "%s ? $1 :x"]
    assert types(sqlite, "SELECT * FROM empty") == {
        "a": ("BIGINT", Kind.NUMBER), "d": ("DATE", Kind.DATE), "x": ("NULL", Kind.NUMBER),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("values", "sql_type", "found"),
    [
        ([1, 2.5, None], "DOUBLE", [1.0, 2.5, None]),
        ([None, "a"], "VARCHAR", [None, "a"]),
        ([2**62], "BIGINT", [2**62]),
        ([b"x"], "BLOB", [b"x"]),
        ([None], "NULL", [None]),
    ],
)
def test_types_by_the_first_rows(file: Path, values: list[Any], sql_type: str, found: list[Any]) -> None:
    fill(file, values)
    with closing(SqlalchemyEngine.open(f"sqlite:///{file}")) as engine:
        assert types(engine, "SELECT v FROM t")["v"][0] == sql_type
        assert [row["v"] for row in rows(engine, "SELECT v FROM t")] == found


@pytest.mark.parametrize(
    ("declared", "values", "sql_type"),
    [
        ("TIMESTAMP", [1700000000], "BIGINT"),
        ("DATE", ["soon"], "VARCHAR"),
        ("BOOLEAN", [7], "BIGINT"),
        ("INTEGER", ["x"], "VARCHAR"),
    ],
)
def test_declared_types_that_are_not_true(file: Path, declared: str, values: list[Any], sql_type: str) -> None:
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute(f"CREATE TABLE odd (v {declared})")
        connection.executemany("INSERT INTO odd VALUES (?)", [(value,) for value in values])
    with closing(SqlalchemyEngine.open(f"sqlite:///{file}")) as engine:
        assert types(engine, "SELECT v FROM odd")["v"][0] == sql_type
        assert [row["v"] for row in rows(engine, "SELECT v FROM odd")] == values


def test_values_of_several_types(file: Path) -> None:
    fill(file, [1, "x"])
    with closing(SqlalchemyEngine.open(f"sqlite:///{file}")) as engine:
        with pytest.raises(DataError, match="the column v has values of several types: BIGINT and VARCHAR") as early:
            engine.describe("SELECT v FROM t")
        assert "CAST(v AS" in (early.value.hint or "")
        assert types(engine, "SELECT CAST(v AS TEXT) AS v FROM t")["v"][0] == "VARCHAR"


@pytest.mark.parametrize(("late", "words"), [("x", "is VARCHAR"), (2.5, "is DOUBLE"), (b"x", "is BLOB")])
def test_values_of_another_type_further_on(file: Path, late: Any, words: str) -> None:
    fill(file, [*range(FIRST_ROWS + 10), late])
    with closing(SqlalchemyEngine.open(f"sqlite:///{file}")) as engine:
        stream = engine.run("SELECT v FROM t")
        expected = f"column v has values of several types: BIGINT in the first rows, and row 1,011 {words}"
        with pytest.raises(DataError, match=expected):
            list(stream.batches)
        assert rows(engine, "SELECT 1 AS a") == [{"a": 1}]


def test_sqlite_is_opened_to_be_read(file: Path, sqlite: SqlalchemyEngine, tmp_path: Path) -> None:
    before = file.read_bytes()
    with pytest.raises(DatabaseError):
        sqlite.run("WITH x AS (SELECT 1) DELETE FROM people")
    sqlite.describe("SELECT * FROM people")
    assert file.read_bytes() == before
    with pytest.raises(OperationalError, match="cannot connect to sqlite:") as raised:
        SqlalchemyEngine.open(f"sqlite:///{tmp_path}/nothing.db")
    assert "nothing.db" in raised.value.message
    assert not (tmp_path / "nothing.db").exists()


def test_a_file_that_is_being_written_to(file: Path, sqlite: SqlalchemyEngine) -> None:
    with closing(sqlite3.connect(file)) as writer:
        writer.execute("PRAGMA journal_mode = WAL")
        stream = sqlite.run("SELECT id FROM people")
        writer.execute("INSERT INTO people (id) VALUES (9)")
        writer.commit()
        assert sum(batch.num_rows for batch in stream.batches) == 3
        assert sqlite.table_rows(["people"]) == 4


def test_counts_of_sqlite(sqlite: SqlalchemyEngine) -> None:
    assert sqlite.table_rows(["people"]) == sqlite.table_rows(["members"]) == 3
    assert sqlite.table_rows(["main", "people"]) == 3
    assert sqlite.table_rows(["empty"]) == 0
    assert sqlite.quote('a "b"') == '"a ""b"""'
    with pytest.raises(NotSupportedError, match="sqlite cannot draw a sample"):
        sqlite.sample_clause(0, 10)


@pytest.mark.parametrize(
    ("text", "place", "cls"),
    [
        ("SELECT nowhere FROM people", "nowhere", EngineError),
        ("SELECT p.nowhere\nFROM people p", "nowhere", EngineError),
        ("SELECT * FROM nobody", "nobody", EngineError),
        ("SELECT nofunction(1)", "nofunction", EngineError),
        ("SELECT 1 FRO people", "people", EngineError),
    ],
)
def test_errors_point_at_their_place(sqlite: SqlalchemyEngine, text: str, place: str, cls: type[DatabaseError]) -> None:
    for ask in (sqlite.describe, sqlite.run, sqlite.bind):
        with pytest.raises(cls) as raised:
            ask(text)
        error = raised.value
        assert error.span is not None
        assert text[slice(*error.span)] == place
        assert "SELECT" not in error.message


# --- PostgreSQL -------------------------------------------------------------------------------------------------------

EVERYTHING = """
SELECT 1::smallint AS small, 12.50::numeric(9,2) AS exact, 0.1::numeric AS free, 1.5::real AS r, true AS b, 'x'::char(3) AS c,
    DATE '2024-02-29' AS d, TIME '13:30' AS t, TIMESTAMP '2024-02-29 13:30' AS ts,
    TIMESTAMPTZ '2024-02-29 13:30+02' AS tz, '\\x00ff'::bytea AS raw, INTERVAL '90 min' AS i,
    '00000000-0000-0000-0000-00000000000a'::uuid AS u, '{"a": [1, "ü"]}'::jsonb AS j, '[1, 2]'::json AS jl,
    ARRAY[1, NULL, 3] AS ns, ARRAY['a', NULL] AS ws, '10.0.0.1'::inet AS ip, NULL::date AS nd
"""


def test_types_of_postgres(server: SqlalchemyEngine) -> None:
    found = types(server, EVERYTHING)
    assert {name: sql_type for name, (sql_type, _) in found.items()} == {
        "small": "BIGINT", "exact": "DECIMAL(9,2)", "free": "DOUBLE", "r": "DOUBLE", "b": "BOOLEAN", "c": "VARCHAR", "d": "DATE",
        "t": "TIME", "ts": "TIMESTAMP", "tz": "TIMESTAMP WITH TIME ZONE", "raw": "BLOB", "i": "INTERVAL", "u": "VARCHAR",
        "j": "VARCHAR", "jl": "VARCHAR", "ns": "DOUBLE[]", "ws": "VARCHAR[]", "ip": "VARCHAR", "nd": "DATE",
    }  # fmt: skip
    assert {name for name, (_, kind) in found.items() if kind is None} == {"raw", "i"}
    assert rows(server, EVERYTHING) == [
        {
            "small": 1, "exact": Decimal("12.50"), "free": 0.1, "r": 1.5, "b": True, "c": "x  ", "d": dt.date(2024, 2, 29),
            "t": dt.time(13, 30), "ts": MOMENT, "tz": dt.datetime(2024, 2, 29, 11, 30, tzinfo=dt.UTC), "raw": b"\x00\xff",
            "i": dt.timedelta(minutes=90), "u": "00000000-0000-0000-0000-00000000000a", "j": '{"a": [1, "ü"]}', "jl": "[1, 2]",
            "ns": [1.0, None, 3.0], "ws": ["a", None], "ip": "10.0.0.1", "nd": None,
        }
    ]  # fmt: skip


def test_postgres_is_read_only(server: SqlalchemyEngine, postgres: str) -> None:
    import psycopg

    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA shop; CREATE TABLE shop.t AS SELECT i FROM generate_series(1, 500) AS r(i)")
        connection.execute("CREATE SEQUENCE shop.s")
    assert server.table_rows(["shop", "t"]) == 500
    for text in ("WITH gone AS (DELETE FROM shop.t RETURNING i) SELECT * FROM gone", "SELECT nextval('shop.s')"):
        with pytest.raises(DatabaseError):
            list(server.run(text).batches)
    assert server.table_rows(["shop", "t"]) == 500


def test_a_sample_of_postgres(server: SqlalchemyEngine) -> None:
    def sample(order: str, seed: int) -> list[int]:
        query = f"SELECT i FROM generate_series(1, 1000) AS r(i) ORDER BY i {order}"
        return sorted(row["i"] for row in rows(server, f"SELECT i FROM ({query}){server.sample_clause(seed, 50)}"))

    assert len(sample("ASC", 0)) == 50
    assert sample("ASC", 0) == sample("DESC", 0) != sample("ASC", 1)


# --- opening ----------------------------------------------------------------------------------------------------------


def test_no_password_in_messages(postgres: str) -> None:
    from urllib.parse import urlsplit

    parts = urlsplit(postgres)
    url = f"postgresql+psycopg://nobody:s3cret-word@/{parts.path.strip('/')}?{parts.query}&sslpassword=other-word"
    with pytest.raises(OperationalError, match="cannot connect to postgresql\\+psycopg://nobody:") as raised:
        SqlalchemyEngine.open(url)
    shown = str(raised.value) + repr(raised.value.__cause__) + repr(raised.value)
    assert "s3cret-word" not in shown
    assert "other-word" not in shown


@pytest.mark.parametrize(
    ("url", "error", "message", "hint"),
    [
        ("mysql://me@host/db", MissingExtra, "the driver MySQLdb for mysql:// is not installed", "pip install mysqlclient"),
        ("oracle+oracledb://me@host", MissingExtra, "the driver oracledb", "pip install oracledb"),
        ("snowflake://me@account", MissingExtra, "dialect for snowflake://", 'pip install "snowflake-sqlalchemy"'),
        ("nosuch://me:pw@host", OperationalError, "SQLAlchemy knows no database nosuch", "mysql+pymysql"),
        ("not a url pw", OperationalError, "this is no SQLAlchemy URL", "mysql+pymysql"),
        ("sqlite+aiosqlite:///x.db", MissingExtra, "the driver aiosqlite", "pip install aiosqlite"),
    ],
)
def test_urls_that_cannot_be_used(url: str, error: type[DatabaseError], message: str, hint: str) -> None:
    with pytest.raises(error) as raised:
        SqlalchemyEngine.open(url)
    assert message in raised.value.message
    assert hint in (raised.value.hint or "")
    assert "pw" not in str(raised.value)
