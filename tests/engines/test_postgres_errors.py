"""What goes wrong with PostgreSQL: places of errors, rights, connections that are refused or lost, half-written tables."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Iterator
from decimal import Decimal
from urllib.parse import quote, urlsplit

import psycopg
import pyarrow as pa
import pytest

from sqlml.engines.postgres import PostgresEngine
from sqlml.engines.postgres_errors import open_error
from sqlml.engines.postgres_runs import ABORTED
from sqlml.errors import (
    BindError,
    Cancelled,
    DatabaseError,
    DataError,
    EngineError,
    IntegrityError,
    NotSupportedError,
    OperationalError,
)

SERIES = "SELECT i, repeat('x', 100) AS x FROM generate_series(1, 400000) AS i"


@pytest.fixture
def engine(postgres: str) -> Iterator[PostgresEngine]:
    opened = PostgresEngine.open(postgres)
    yield opened
    opened.close()


def number(engine: PostgresEngine, query: str) -> int:
    [batch] = engine.run(query).batches
    return int(batch.column(0)[0].as_py())


def kill(engine: PostgresEngine, url: str, pid: int | None = None) -> None:
    """End the server's side of a connection."""
    pid = number(engine, "SELECT pg_backend_pid()") if pid is None else pid
    with psycopg.connect(url, autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))


@pytest.mark.parametrize(
    ("text", "values", "place"),
    [
        ("SELECT nothing", (), "nothing"),
        ("SELECT 1,\n  nothing\nFROM generate_series(1, 3)", (), "nothing"),
        ("SELECT 'ä日本', nothing", (), "nothing"),
        ("SELECT ?, 'ä', nothing, ?", ("a 'longer' text", 2), "nothing"),
        ("SELECT 1 WHERE current_date = ?", ("no date",), "?"),
        ("SELECT * FROM nowhere", (), "nowhere"),
        ("SELECT 'x'::INTEGER", (), "'x'"),
        ("SELECT * FRO t", (), "FRO"),
        ("INSERT INTO nowhere VALUES (1)", (), "nowhere"),
        ("EXPLAIN SELECT nothing", (), "nothing"),
    ],
)
def test_errors_point_at_their_place(engine: PostgresEngine, text: str, values: tuple[object, ...], place: str) -> None:
    with pytest.raises(DatabaseError) as raised:
        list(engine.run(text, values).batches)
    error = raised.value
    assert error.span is not None
    assert text[slice(*error.span)].startswith(place)
    assert "LINE" not in error.message
    assert "\n" not in error.message


@pytest.mark.parametrize(
    ("text", "cls", "message"),
    [
        ("SELECT 1 / 0", DataError, "division by zero"),
        ("SELECT 'x' || 1 / (i - 5) FROM generate_series(1, 9) AS i", DataError, "division by zero"),
        ("INSERT INTO t VALUES (NULL)", IntegrityError, "not-null constraint"),
        ("CREATE TABLE t ()", EngineError, 'relation "t" already exists'),
        ("SELECT nofunc(1)", EngineError, "function nofunc"),
        ("SELECT 1 FOR UPDATE OF x", EngineError, "FOR UPDATE"),
        ("ROLLBACK TO SAVEPOINT x", OperationalError, "SAVEPOINT"),
        ("SELECT interval '999999999 hours' AS v", DataError, "overflow"),
    ],
)
def test_classes_of_errors(engine: PostgresEngine, text: str, cls: type[DatabaseError], message: str) -> None:
    engine.run("CREATE TABLE t (a integer NOT NULL)")
    with pytest.raises(cls, match=message):
        list(engine.run(text).batches)
    assert number(engine, "SELECT 1") == 1


def test_the_servers_hints_are_kept(engine: PostgresEngine) -> None:
    engine.run("CREATE TABLE t (abcd integer)")
    with pytest.raises(EngineError) as raised:
        engine.run("SELECT abce FROM t")
    assert 'Perhaps you meant to reference the column "t.abcd"' in str(raised.value)


# --- rights and connections -------------------------------------------------------------------------------------------


@pytest.fixture
def guest(postgres: str) -> Iterator[str]:
    """The URL of a role that may do nothing, with a table that is not its own."""
    name = "guest_" + urlsplit(postgres).path[1:]
    with psycopg.connect(postgres, autocommit=True) as owner:
        owner.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'open:se/same'")
        owner.execute("CREATE TABLE secrets (a integer)")
        owner.execute("CREATE SCHEMA hidden")
        owner.execute("CREATE TABLE hidden.t (a integer)")
        owner.execute("CREATE TABLE half (a integer, b integer)")
        owner.execute(f"GRANT SELECT (a) ON half TO {name}")
    yield postgres.replace("postgres:@", f"{name}:{quote('open:se/same', safe='')}@")
    with psycopg.connect(postgres, autocommit=True) as owner:
        owner.execute(f"DROP OWNED BY {name}")
        owner.execute(f"DROP ROLE {name}")


def test_missing_rights(guest: str) -> None:
    engine = PostgresEngine.open(guest)
    for query, grant in (
        ("SELECT * FROM secrets", "GRANT SELECT ON secrets TO guest_"),
        ("SELECT a, b FROM half", "GRANT SELECT ON half TO guest_"),
        ("INSERT INTO secrets VALUES (1)", "GRANT INSERT ON secrets TO guest_"),
        ("SELECT * FROM hidden.t", "GRANT USAGE ON SCHEMA hidden TO guest_"),
        ("CREATE TABLE mine (a integer)", "GRANT CREATE ON SCHEMA public TO guest_"),
    ):
        with pytest.raises(EngineError, match="permission denied for") as raised:
            list(engine.run(query).batches)
        assert grant in str(raised.value)
    with pytest.raises(EngineError, match="permission denied for table secrets"):
        engine.table_rows(["secrets"])
    with pytest.raises(EngineError, match="permission denied for schema public"):
        engine.write(["mine"], pa.schema([("a", pa.int64())]), [pa.record_batch({"a": [1]})], "create")
    assert number(engine, "SELECT count(a) FROM half") == 0
    engine.close()


def test_a_wrong_password(guest: str, postgres: str) -> None:
    """With a server that asks this role for its password."""
    role = urlsplit(guest).username
    with psycopg.connect(postgres, autocommit=True) as owner:
        [rules] = owner.execute("SELECT pg_read_file(current_setting('hba_file'))").fetchone() or [""]
        try:
            write_rules(owner, f"local all {role} scram-sha-256\n{rules}")
            PostgresEngine.open(guest).close()
            wrong = guest.replace("open", "wrongest")
            with pytest.raises(OperationalError, match="password authentication failed") as raised:
                PostgresEngine.open(wrong)
            assert "wrongest" not in f"{raised.value!s} {raised.value!r} {raised.value.__cause__!r}"
            with pytest.raises(OperationalError, match="no password supplied") as raised:
                PostgresEngine.open(postgres.replace("postgres:@", f"{role}@"))
            assert "PGPASSWORD" in str(raised.value)
        finally:
            write_rules(owner, rules)


def write_rules(owner: psycopg.Connection[tuple[object, ...]], rules: str) -> None:
    """Who may connect how: the server's pg_hba.conf."""
    lines = ", ".join(psycopg.sql.quote(line) for line in rules.splitlines() if line.strip() and not line.startswith("#"))
    [path] = owner.execute("SELECT current_setting('hba_file')").fetchone() or [""]
    owner.execute(f"COPY (SELECT unnest(ARRAY[{lines}])) TO {psycopg.sql.quote(path)}")
    owner.execute("SELECT pg_reload_conf()")
    time.sleep(0.5)


def test_connections_that_cannot_be(postgres: str) -> None:
    parts = urlsplit(postgres)
    for url, message, hint in (
        ("postgresql://me:hush@127.0.0.1:1/db", r"at 127\.0\.0\.1:1/db: Connection refused", "no PostgreSQL server answers"),
        ("postgresql://me:hush@nosuch.invalid/db", "at nosuch.invalid:5432/db: could not translate host name", "no such host"),
        (postgres.replace(parts.path + "?", "/nodb?"), 'database "nodb" does not exist', "CREATE DATABASE"),
        (postgres.replace("postgres:@", "nobody:hush@"), 'role "nobody" does not exist', ""),
        ("postgresql://me:hush@localhost:port/db", "cannot connect to PostgreSQL at the given URL: invalid integer value", ""),
        ("postgresql://me:hush@127.0.0.1:1/db?nonsense", "missing key/value separator", ""),
    ):
        with pytest.raises(OperationalError, match=message) as raised:
            PostgresEngine.open(url)
        assert hint in str(raised.value)
        assert "hush" not in f"{raised.value!s} {raised.value!r}"


@pytest.mark.parametrize(
    ("said", "hint"),
    [
        ('FATAL:  no pg_hba.conf entry for host "10.0.0.1", user "me", database "db", no encryption', "sslmode=require"),
        ("server does not support SSL, but SSL was required", "take sslmode=require out"),
        ("FATAL:  sorry, too many clients already", "max_connections"),
    ],
)
def test_what_a_server_may_say(said: str, hint: str) -> None:
    error = open_error(
        "postgresql://me:hush@h/db",
        Exception(f'IO: [libpq] Failed to connect: connection to server at "h" (::1), port 5432 failed: {said}\n'),
    )
    assert error.message == f"cannot connect to PostgreSQL at h:5432/db: {said.removeprefix('FATAL:  ')}"
    assert hint in str(error)


# --- losses -----------------------------------------------------------------------------------------------------------


def test_lost_in_the_middle_of_a_result(engine: PostgresEngine, postgres: str) -> None:
    pid = number(engine, "SELECT pg_backend_pid()")
    batches = engine.run(SERIES).batches
    next(batches)
    kill(engine, postgres, pid)
    with pytest.raises(OperationalError, match="the connection to PostgreSQL was lost") as raised:
        list(batches)
    assert "the next one connects anew" in str(raised.value)
    assert number(engine, "SELECT 1") == 1
    assert engine.generation == 2


def test_lost_while_nothing_ran(engine: PostgresEngine, postgres: str) -> None:
    """Nothing had been sent, so nobody need know: the statement is prepared anew before it runs."""
    engine.run("CREATE TABLE t (a integer)")
    for statement in ("SELECT * FROM t", "INSERT INTO t VALUES (1)", "BEGIN"):
        kill(engine, postgres)
        list(engine.run(statement).batches)
    engine.run("ROLLBACK")
    assert engine.table_rows(["t"]) == 1
    kill(engine, postgres)
    assert engine.describe("TABLE t")
    kill(engine, postgres)
    assert engine.write(["t"], pa.schema([("a", pa.int32())]), [pa.record_batch({"a": pa.array([2], pa.int32())})], "append") == 1
    assert engine.generation == 6


def test_lost_with_temporary_things(engine: PostgresEngine, postgres: str) -> None:
    engine.run("CREATE TEMP TABLE passing AS SELECT 1 AS a")
    pid = number(engine, "SELECT pg_backend_pid()")
    batches = engine.run(SERIES).batches
    kill(engine, postgres, pid)
    with pytest.raises(OperationalError, match="lost") as raised:
        list(batches)
    assert "temporary tables, settings and prepared statements of the connection are gone" in str(raised.value)


def test_lost_in_a_transaction(engine: PostgresEngine, postgres: str) -> None:
    engine.run("CREATE TABLE t (a integer)")
    for end in ("ROLLBACK", "COMMIT"):
        engine.run("BEGIN")
        engine.run("INSERT INTO t VALUES (1)")
        kill(engine, postgres)
        with pytest.raises(OperationalError, match="terminating connection") as raised:
            engine.run("SELECT * FROM t")
        assert "the open transaction is undone: ROLLBACK" in str(raised.value)
        assert engine.transaction() == ABORTED
        for statement in ("INSERT INTO t VALUES (2)", "ROLLBACK TO here"):
            with pytest.raises(OperationalError, match="lost inside the open transaction"):
                engine.run(statement)
        if end == "ROLLBACK":
            engine.run(end)
        else:
            with pytest.raises(OperationalError, match="nothing of it was committed"):
                engine.run(end)
        assert engine.transaction() is None
        assert engine.table_rows(["t"]) == 0


def test_lost_while_a_statement_runs(engine: PostgresEngine, postgres: str) -> None:
    """A read that gave no row yet is run again; of a write nobody knows."""
    engine.run("CREATE TABLE t (a integer)")
    engine.run("CREATE SEQUENCE tries")
    once = (
        "CREATE FUNCTION once() RETURNS integer LANGUAGE plpgsql AS $$ BEGIN IF nextval('tries') % 2 = 1 THEN "
        "PERFORM pg_terminate_backend(pg_backend_pid()), pg_sleep(5); END IF; RETURN 7; END $$"
    )
    engine.run(once)
    assert number(engine, "SELECT once()") == 7
    with pytest.raises(OperationalError, match="terminating connection") as raised:
        engine.run("INSERT INTO t SELECT once()")
    assert "whether the statement took effect is not known" in str(raised.value)
    assert engine.table_rows(["t"]) == 0


# --- writing ----------------------------------------------------------------------------------------------------------


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
