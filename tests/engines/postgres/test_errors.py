"""What goes wrong with PostgreSQL: places of errors, rights, connections that are refused."""

from __future__ import annotations

import time
from collections.abc import Iterator
from urllib.parse import quote, urlsplit

import psycopg
import pyarrow as pa
import pytest

from sqlml.engines.postgres.engine import PostgresEngine
from sqlml.engines.postgres.errors import open_error, tells_of_loss
from sqlml.errors import DatabaseError, DataError, EngineError, IntegrityError, OperationalError
from tests.engines.postgres.asking import number


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
        assert raised.value.span is not None
        assert query[slice(*raised.value.span)] in ("secrets", "half", "hidden", "mine")
    with pytest.raises(EngineError, match="permission denied for table secrets"):
        engine.table_rows(["secrets"])
    with pytest.raises(EngineError, match="permission denied for schema public"):
        engine.write(["mine"], pa.schema([("a", pa.int64())]), [pa.record_batch({"a": [1]})], "create")
    assert number(engine, "SELECT count(a) FROM half") == 0
    engine.close()


def test_rights_to_write(guest: str, postgres: str) -> None:
    role, database = urlsplit(guest).username, urlsplit(postgres).path[1:]
    with psycopg.connect(postgres, autocommit=True) as owner:
        owner.execute(f"GRANT SELECT ON secrets TO {role}")
        owner.execute(f'REVOKE TEMPORARY ON DATABASE "{database}" FROM PUBLIC')
    engine = PostgresEngine.open(guest)
    rows = pa.record_batch({"a": pa.array([1], pa.int32())})
    for action, message, hint in (
        (lambda: engine.write(["secrets"], rows.schema, [rows], "append"), "denied for table secrets", "GRANT INSERT ON secrets"),
        (lambda: engine.write(["secrets"], rows.schema, [rows], "replace"), "must be owner of table secrets", "only its owner"),
        (lambda: engine.register("mine", pa.table(rows)), "create temporary tables", f"GRANT TEMPORARY ON DATABASE {database}"),
        (lambda: engine.run("CREATE SCHEMA own"), "denied for database", f"GRANT CREATE ON DATABASE {database} TO"),
    ):  # fmt: skip
        with pytest.raises(EngineError, match=message) as raised:
            action()
        assert hint in str(raised.value)
        assert raised.value.source is None, "what is shown is nothing that somebody has typed"
    engine.close()


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("SELECT * FROM custmers", "did you mean customers?"),
        ("SELECT * FROM public.custmers", "did you mean public.customers?"),
        ("INSERT INTO custmers VALUES (1)", "did you mean customers?"),
        ("SELECT * FROM orders_of_2020", "did you mean shop.orders_of_2020?"),
        ("SELECT * FROM shpo.orders_of_2020", "did you mean shop.orders_of_2020?"),
        ("SELECT * FROM Mixed", 'did you mean "Mixed"?'),
        ("CREATE TABLE shpo.t (a integer)", "did you mean shop?"),
        ("SELECT * FROM zzzzzz", None),
    ],
)
def test_the_nearest_table(engine: PostgresEngine, text: str, hint: str | None) -> None:
    engine.run("CREATE TABLE customers (a integer)")
    engine.run('CREATE TABLE "Mixed" (a integer)')
    engine.run("CREATE SCHEMA shop")
    engine.run("CREATE TABLE shop.orders_of_2020 (a integer)")
    with pytest.raises(EngineError, match="does not exist") as raised:
        list(engine.run(text).batches)
    assert raised.value.hint == hint
    engine.run("BEGIN")
    with pytest.raises(EngineError, match="does not exist") as raised:
        list(engine.run(text).batches)
    assert raised.value.hint is None, "nothing can be asked in a transaction that has failed"
    engine.run("ROLLBACK")


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
        ("postgresql://me:hush@nosuch.invalid/db", "at nosuch.invalid:5432/db: failed to resolve host", "no such host"),
        (postgres.replace(parts.path + "?", "/nodb?"), 'database "nodb" does not exist', "CREATE DATABASE"),
        (postgres.replace("postgres:@", "nobody:hush@"), 'role "nobody" does not exist', ""),
        ("postgresql://me:hush@localhost:port/db", "no number where its port belongs", "postgresql://user@host:5432/database"),
        ("postgresql://me:hu%sh@127.0.0.1:1/db", "invalid percent-encoded token", "% is written as %25"),
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
        Exception(f'connection failed: connection to server at "h" (::1), port 5432 failed: {said}\n'),
    )
    assert error.message == f"cannot connect to PostgreSQL at h:5432/db: {said.removeprefix('FATAL:  ')}"
    assert hint in str(error)


def test_a_socket_that_psycopg_finds_closed_is_a_lost_connection() -> None:
    """It may be psycopg that waits when the server ends a session, and not libpq."""
    assert tells_of_loss(psycopg.OperationalError("connection socket closed"))
    assert not tells_of_loss(psycopg.errors.UndefinedTable('relation "socket" does not exist'))
