"""PostgreSQL as an engine, on a real server: the contract, results in turns, interrupts, transactions."""

from __future__ import annotations

import datetime as dt
import gc
import os
import signal
import threading
from typing import Any

import psutil
import psycopg
import pyarrow as pa
import pytest

from sqlml.engines.postgres.engine import PostgresEngine
from sqlml.engines.postgres.runs import ABORTED
from sqlml.errors import Cancelled, DatabaseError, DataError, EngineError, IntegrityError, NotSupportedError, OperationalError
from tests.engines.postgres.asking import SERIES, rows, values
from tests.kits import check_engine


def test_the_contract(engine: PostgresEngine) -> None:
    check_engine(engine)


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


# --- notices ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def heard(engine: PostgresEngine) -> list[str]:
    told: list[str] = []
    engine.listen(told.append)
    return told


def test_notices_of_statements(engine: PostgresEngine, heard: list[str]) -> None:
    engine.run(
        "DO $$ BEGIN RAISE NOTICE 'hello'; RAISE WARNING 'mind' USING DETAIL = 'why', HINT = 'how'; RAISE LOG 'no'; END $$"
    )
    assert heard == ["hello", "warning: mind\nwhy\nhow"]
    heard.clear()
    engine.run(f"SELECT 1 AS {'long' * 20}")  # said when it is prepared, and again when it runs
    assert [text.split('"')[0] for text in heard] == ["identifier "]
    heard.clear()
    with pytest.raises(DataError):
        engine.run("DO $$ BEGIN RAISE NOTICE 'before'; PERFORM 1 / 0; END $$")
    assert heard == ["before"]
    heard.clear()
    engine.register("ours", pa.table({"a": [1]}))
    engine.unregister("ours")
    engine.unregister("ours")  # DROP TABLE IF EXISTS: not the person's statement
    list(engine.run("SELECT 1").batches)
    assert heard == []


def test_notices_of_rows(engine: PostgresEngine, heard: list[str]) -> None:
    engine.run("CREATE FUNCTION say(i int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN RAISE NOTICE 'row %', i; RETURN i; END $$")
    engine.run("SELECT say(i) FROM generate_series(1, 3) AS i")
    assert heard == ["row 1", "row 2", "row 3"]
    heard.clear()
    engine.run("SELECT say(i) FROM generate_series(1, 1200) AS i")
    assert heard[-2:] == ["row 200", "1,000 more notices of the database are not shown"]
    heard.clear()
    batches = engine.run(
        "SELECT repeat('x', 1000), CASE WHEN i = 9000 THEN say(i) END FROM generate_series(1, 9000) AS i"
    ).batches
    assert len(list(batches)) > 2
    assert heard == ["row 9000"]
    heard.clear()
    engine.describe("SELECT say(1)")
    engine.run("EXPLAIN ANALYZE SELECT say(4)")
    assert heard == ["row 4"]


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
