"""Connections that are lost, and what goes with them."""

from __future__ import annotations

import pyarrow as pa
import pytest

from sqlml.engines.postgres.engine import PostgresEngine
from sqlml.engines.postgres.runs import ABORTED
from sqlml.errors import OperationalError
from tests.engines.postgres.asking import SERIES, kill, number


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
    assert "the temporary tables of the connection are gone" in str(raised.value)
    assert number(engine, "SELECT 1") == 1  # the person has been told


@pytest.mark.parametrize(
    ("statement", "missing"),
    [
        ("SET search_path = s", "settings"),
        ("SELECT set_config('search_path', 's', false)", "settings"),
        ("CREATE TEMP TABLE passing AS SELECT 1 AS a", "temporary tables"),
        ("SELECT 1 AS a INTO TEMPORARY passing", "temporary tables"),
        ("PREPARE one AS SELECT 1", "prepared statements"),
        ("DECLARE c CURSOR WITH HOLD FOR SELECT 1", "cursors"),
        ("SELECT pg_advisory_lock(7)", "advisory locks"),
    ],
)
def test_nothing_runs_without_what_the_session_had(engine: PostgresEngine, postgres: str, statement: str, missing: str) -> None:
    """One statement is refused, whoever found out that the connection is lost; the next one runs."""
    for table in ("CREATE SCHEMA s", "CREATE TABLE public.t AS SELECT 1 AS a", "CREATE TABLE s.t AS SELECT 2 AS a"):
        engine.run(table)
    for finds_out in (lambda: None, engine.names, lambda: engine.has_function("f"), lambda: engine.scope("SELECT ", " FROM t")):
        list(engine.run(statement).batches)
        kill(engine, postgres, number(engine, "SELECT pg_backend_pid()"))
        finds_out()
        with pytest.raises(OperationalError, match=f"and with it its {missing}: this statement was not run") as raised:
            engine.run("INSERT INTO t VALUES (3)")
        assert f"make the {missing} again" in str(raised.value)
        assert number(engine, "SELECT count(*) FROM public.t") == number(engine, "SELECT count(*) FROM s.t") == 1
        assert number(engine, "SELECT a FROM t") == 1


@pytest.mark.parametrize(
    "statements",
    [
        ["BEGIN", "SET LOCAL search_path = s", "COMMIT"],
        ["BEGIN ISOLATION LEVEL SERIALIZABLE", "SET TRANSACTION READ ONLY", "COMMIT"],
        ["SET search_path = s", "CREATE TEMP TABLE t (a integer)", "DISCARD ALL"],
        ["SELECT 1 AS temp, 2 AS temporary"],
    ],
)
def test_a_session_without_belongings_is_made_anew(engine: PostgresEngine, postgres: str, statements: list[str]) -> None:
    for statement in statements:
        list(engine.run(statement).batches)
    kill(engine, postgres)
    assert number(engine, "SELECT 1") == 1


def test_several_things_are_missing(engine: PostgresEngine, postgres: str) -> None:
    engine.run("SET search_path = s")
    engine.run("CREATE TEMP TABLE passing AS SELECT 1 AS a")
    engine.run("LISTEN news")
    kill(engine, postgres)
    with pytest.raises(OperationalError, match="its LISTEN, settings and temporary tables: this"):
        engine.write(["t"], pa.schema([("a", pa.int32())]), [pa.record_batch({"a": pa.array([2], pa.int32())})], "create")
    assert engine.table_rows(["t"]) is None


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
