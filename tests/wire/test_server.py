"""The server itself: who is let in, limits, odd bytes, clients that go away, and its end."""

from __future__ import annotations

import contextlib
import random
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from sqlml import connect as sqlml_connect
from sqlml.wire.server import WireOptions, WireServer
from tests.shell.test_command import sqlml
from tests.wire.certificates import make_certificate
from tests.wire.places import USER, Place, serving

pytestmark = pytest.mark.slow
TRAIN = "TRAIN MODEL m USING linear_regression TARGET y AS SELECT range AS x, 2 * range AS y FROM range(50)"
ENDLESS = "SELECT count(*) FROM range(1000000) a, range(1000000) b WHERE a.range * b.range % 7 = 3"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with serving(tmp_path_factory.mktemp("served") / "bank.duckdb", "--max-connections", "40") as (place, _):
        yield place


def connect(place: Place, **more: object) -> psycopg.Connection[tuple[object, ...]]:
    return psycopg.connect(place.conninfo, autocommit=True, **more)  # type: ignore[arg-type]


def sqlstate(place: Place, **more: object) -> str:
    """How a login fails."""
    with pytest.raises(psycopg.OperationalError) as caught:
        connect(place, **more)
    return str(caught.value)


def test_scram(tmp_path: Path) -> None:
    users = tmp_path / "users"
    done = subprocess.run(
        ["bash", "-c", f"echo secret | {' '.join(_command())} passwd {users} ann"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "secret" not in users.read_text()
    assert users.stat().st_mode & 0o077 == 0
    with serving(tmp_path / "bank.duckdb", "--users", str(users)) as (place, _):
        with connect(place, user="ann", password="secret") as connection:
            assert connection.execute("SELECT current_user").fetchone() == ("ann",)
            assert connection.pgconn.used_password
        assert 'password authentication failed for user "ann"' in sqlstate(place, user="ann", password="wrong")
        assert 'password authentication failed for user "bob"' in sqlstate(place, user="bob", password="secret")


def _command() -> tuple[str, ...]:
    from tests.shell.test_command import COMMAND

    return COMMAND


def test_tls(tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path)
    with serving(tmp_path / "bank.duckdb", "--tls-cert", str(certificate), "--tls-key", str(key)) as (place, _):
        with connect(place, sslmode="verify-ca", sslrootcert=str(certificate)) as connection:
            assert connection.pgconn.ssl_in_use
            rows = connection.execute("SELECT range FROM range(100000)").fetchall()
            assert len(rows) == 100_000
        with connect(place, sslmode="disable") as connection:
            assert connection.execute("SHOW ssl").fetchone() == ("on",)
        if psycopg.pq.version() >= 170000:  # TLS from the first byte on
            with connect(place, sslmode="require", sslnegotiation="direct") as connection:
                assert connection.pgconn.ssl_in_use
                assert connection.execute("SELECT 1").fetchone() == (1,)


def test_nobody_is_let_in_from_elsewhere_without_a_password(tmp_path: Path) -> None:
    done = sqlml("serve", str(tmp_path / "bank.duckdb"), "--host", "0.0.0.0")
    assert done.returncode == 1
    assert "nobody would be asked for a password" in done.stderr
    assert "--users FILE" in done.stderr


def test_another_database_does_not_exist(served: Place) -> None:
    assert 'database "nowhere" does not exist' in sqlstate(served, dbname="nowhere")


def test_too_many_clients(served: Place) -> None:
    held: list[psycopg.Connection[tuple[object, ...]]] = []
    try:
        with pytest.raises(psycopg.OperationalError, match="too many clients"):
            held.extend(iter(lambda: connect(served), None))
        assert len(held) >= 30
        assert held[0].execute("SELECT 1").fetchone() == (1,)
    finally:
        for one in held:
            one.close()


def test_many_sessions_share_one_database(served: Place) -> None:
    with connect(served) as connection:
        connection.execute("CREATE OR REPLACE TABLE counts (who int)")
    failures: list[BaseException] = []

    def work(who: int) -> None:
        try:
            with connect(served) as connection:
                for _ in range(10):
                    connection.execute("INSERT INTO counts VALUES (%s)", (who,))
                    connection.execute("SELECT count(*) FROM counts WHERE who = %s", (who,)).fetchone()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(who,)) for who in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100)
    assert not failures
    with connect(served) as connection:
        assert connection.execute("SELECT count(*), count(DISTINCT who) FROM counts").fetchone() == (200, 20)


def test_a_long_query_leaves_the_others_responsive(served: Place) -> None:
    with connect(served) as slow, connect(served) as quick:
        failed: list[str | None] = []

        def run() -> None:
            try:
                slow.execute(ENDLESS)
            except psycopg.Error as error:
                failed.append(error.sqlstate)

        thread = threading.Thread(target=run)
        thread.start()
        assert [quick.execute("SELECT %s::int", (i,)).fetchone() for i in range(5)] == [(i,) for i in range(5)]
        slow.cancel_safe()
        thread.join(60)
        assert failed == ["57014"]


def test_a_client_that_does_not_read_holds_up_nobody(served: Place) -> None:
    with socket.create_connection((served.host, served.port)) as lazy:
        lazy.sendall(startup_packet(served.database))
        lazy.sendall(_message(b"Q", b"SELECT range, repeat('x', 100) FROM range(10000000)\0"))
        with connect(served) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_client_that_vanishes_leaves_nothing_running(served: Place) -> None:
    with socket.create_connection((served.host, served.port)) as gone:
        gone.sendall(startup_packet(served.database))
        gone.sendall(_message(b"Q", ENDLESS.encode() + b"\0"))
        gone.recv(1)
    with connect(served) as connection:
        connection.execute("CREATE OR REPLACE TABLE still (a int)")  # and no lock is left
        assert connection.execute("SELECT count(*) FROM still").fetchone() == (0,)


def test_a_training_goes_on_when_its_client_has_gone(served: Place) -> None:
    with socket.create_connection((served.host, served.port)) as gone:
        gone.sendall(startup_packet(served.database))
        gone.sendall(_message(b"Q", TRAIN.encode() + b"\0"))
        while b"reading" not in gone.recv(65536):
            continue
    deadline = time.monotonic() + 60
    with connect(served) as connection:
        while connection.execute("SELECT count(*) FROM sqlml.models WHERE model = 'm'").fetchone() == (0,):
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_idle_sessions_are_ended(served: Place) -> None:
    with connect(served) as connection:
        connection.execute("SET idle_session_timeout = '100ms'")
        assert connection.pgconn.socket >= 0
        time.sleep(1)
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")


def test_odd_bytes_harm_nobody(served: Place) -> None:
    """A tenth of what ``make soak`` sends."""
    rng = random.Random(5)
    with connect(served) as witness:
        for _ in range(60):
            with socket.create_connection((served.host, served.port)) as attacker:
                attacker.settimeout(5)
                attacker.sendall(startup_packet(served.database) if rng.random() < 0.8 else rng.randbytes(40))
                for _ in range(rng.randrange(1, 6)):
                    attacker.sendall(odd_message(rng))
        assert witness.execute("SELECT 42").fetchone() == (42,)


def odd_message(rng: random.Random) -> bytes:
    """A message with something wrong in it."""
    kind = bytes([rng.choice(b"QPBDECSHXdcfp?\0")])
    body = rng.choice(
        [rng.randbytes(rng.randrange(60)), b"\0", b"SELECT 1\0", b"s\0SELECT $1\0\0\1\0\0\0\x17", b"\xff" * 8, b"S\0", b"P\0"]
    )
    length = len(body) + 4 if rng.random() < 0.8 else rng.randrange(2**32)
    return kind + struct.pack(">I", length) + body


def startup_packet(database: str) -> bytes:
    """What a client sends first."""
    body = struct.pack(">I", 3 << 16) + f"user\0{USER}\0database\0{database}\0\0".encode()
    return struct.pack(">I", len(body) + 4) + body


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack(">I", len(body) + 4) + body


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["kill", "ctrl-c"])
def test_a_clean_end(number: signal.Signals, tmp_path: Path) -> None:
    with serving(tmp_path / "bank.duckdb") as (place, child):
        with connect(place) as busy, connect(place) as idle:
            idle.execute("CREATE TABLE kept AS SELECT 1 AS a")
            seen: list[str | None] = []

            def run() -> None:
                try:
                    busy.execute(ENDLESS)
                except psycopg.Error as error:
                    seen.append(error.sqlstate)

            thread = threading.Thread(target=run)
            thread.start()
            time.sleep(0.3)
            child.send_signal(number)
            thread.join(60)
            assert seen[0] in ("57014", "57P01", None)
        output, _ = child.communicate(timeout=60)
        assert child.returncode == 0, output
        assert "Traceback" not in output
    assert sqlml(str(tmp_path / "bank.duckdb"), "-c", "FROM kept", "--format", "csv").stdout == "a\n1\n"


def test_nothing_runs_that_is_only_described(served: Place) -> None:
    with connect(served) as connection:
        connection.execute("CREATE TABLE described (a INTEGER)")
        for number, text in enumerate(
            (
                "INSERT INTO described VALUES (1)",
                "/* a */ EXPLAIN ANALYZE INSERT INTO described VALUES (1)",
                "EXPLAIN (ANALYZE) INSERT INTO described VALUES (1)",
                "explain (analyze, format json) INSERT INTO described VALUES (1)",
                "EXPLAIN ANALYZE " + TRAIN.replace("MODEL m", "MODEL described"),
            )
        ):
            name = b"s%d" % number
            connection.pgconn.prepare(name, text.encode())
            connection.pgconn.describe_prepared(name)
        assert connection.execute("SELECT count(*) FROM described").fetchone() == (0,)
        assert connection.execute("SELECT count(*) FROM sqlml.models WHERE model = 'described'").fetchone() == (0,)


def test_a_dropped_table_takes_its_own_sequence_alone(served: Place) -> None:
    with connect(served) as connection:
        for schema in ("one", "two"):
            connection.execute(f"CREATE SCHEMA {schema}")
            connection.execute(f"CREATE TABLE {schema}.counted (id serial PRIMARY KEY, a int)")
        connection.execute("DROP TABLE one.counted")
        connection.execute("INSERT INTO two.counted (a) VALUES (7)")
        assert connection.execute("SELECT id, a FROM two.counted").fetchone() == (1, 7)
        connection.execute("DROP TABLE two.counted")
        assert connection.execute("SELECT count(*) FROM duckdb_sequences()").fetchone() == (0,)


def test_an_endpoint_rolled_back_is_no_transaction(served: Place) -> None:
    """ROLLBACK ENDPOINT is a statement of its own: it neither ends a transaction nor says that there is none."""
    with connect(served) as connection:
        with pytest.raises(psycopg.Error, match="unknown endpoint nowhere"):
            connection.execute("ROLLBACK ENDPOINT nowhere")
        connection.execute("BEGIN")
        connection.execute("CREATE TABLE kept_by_nobody (x INTEGER)")
        with pytest.raises(psycopg.Error, match="nowhere"):
            connection.execute("ROLLBACK ENDPOINT nowhere")
        assert connection.info.transaction_status == psycopg.pq.TransactionStatus.INERROR
        with pytest.raises(psycopg.errors.InFailedSqlTransaction):
            connection.execute("ROLLBACK ENDPOINT nowhere")
        connection.execute("ROLLBACK")


def test_the_door_says_what_it_takes(served: Place) -> None:
    with connect(served) as connection:
        for text, values in (("SELECT * FROM sqlml(NULL)", ()), ("SELECT * FROM sqlml(%s)", ("SHOW MODELS",))):
            with pytest.raises(psycopg.ProgrammingError, match="takes one statement as a text in quotes") as raised:
                connection.execute(text, values)
            assert raised.value.diag.message_hint == "SELECT * FROM sqlml('SHOW MODELS')"
        assert connection.execute("SELECT * FROM sqlml('SHOW MODELS') WHERE model = 'nothing'").fetchall() == []


def test_the_server_keeps_schedules_that_clients_have_made(tmp_path: Path) -> None:
    with serving(tmp_path / "shop.duckdb") as (place, _):
        with connect(place) as client:
            client.execute("CREATE TABLE t AS SELECT i AS k, i * 2.0 AS x, i * 3.0 AS y FROM range(100) r(i)")
            client.execute("TRAIN MODEL m USING linear_regression TARGET y KEY k AS SELECT k, x, y FROM t")
            client.execute(
                "DEPLOY QUERY q WITH (refresh_every = '1 s') AS SELECT PREDICT(m USING *) AS p FROM "
                "(SELECT t.x FROM (SELECT $k::INTEGER AS k) q LEFT JOIN t ON t.k = q.k)"
            )
        [copy] = [path for path in (tmp_path / "shop.sqlml").rglob("lookups/*") if path.is_file()]
        made, deadline = copy.stat().st_mtime_ns, time.monotonic() + 30
        while copy.stat().st_mtime_ns == made:  # no client is there
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_a_clean_stop_leaves_no_wal(tmp_path: Path) -> None:
    """Also while other sessions are open, in the middle of a transaction, with a cursor, or training."""
    file = tmp_path / "bank.duckdb"
    with serving(file) as (place, child), contextlib.ExitStack() as clients:
        busy, reading, idle = (clients.enter_context(contextlib.closing(psycopg.connect(place.conninfo))) for _ in range(3))
        idle.execute("CREATE TABLE kept AS SELECT range AS a FROM range(1000)")
        idle.commit()
        reading.execute("DECLARE c CURSOR FOR SELECT * FROM kept")
        reading.execute("FETCH 10 FROM c")
        busy.execute("INSERT INTO kept VALUES (5000)")
        guest = clients.enter_context(contextlib.closing(sqlml_connect(file)))
        guest.execute("BEGIN")
        guest.execute("CREATE TABLE never (a INTEGER)")
        assert file.with_name("bank.duckdb.wal").exists()
        child.send_signal(signal.SIGTERM)
        assert child.wait(30) == 0
        assert not file.with_name("bank.duckdb.wal").exists()
    assert sqlml(str(file), "-c", "SELECT count(*) AS n, max(a) AS m FROM kept", "--format", "csv").stdout == "n,m\n1000,999\n"


def test_what_was_written_is_in_the_file_though_a_session_was_never_closed(tmp_path: Path) -> None:
    """As of a refresh that is under way when the server ends."""
    file = tmp_path / "bank.duckdb"
    server = WireServer(WireOptions(str(file)))
    session = server.open_session(None)
    try:
        session.execute("CREATE TABLE kept AS SELECT range AS a FROM range(1000)")
        session.begin()
        session.execute("INSERT INTO kept VALUES (5000)")
        assert file.with_name("bank.duckdb.wal").exists()
        server.close()
        wal = file.with_name("bank.duckdb.wal")
        assert not wal.exists() or wal.stat().st_size == 0
    finally:
        session.close()
    with contextlib.closing(sqlml_connect(file)) as connection:
        assert connection.execute("SELECT count(*), max(a) FROM kept").fetchall() == [(1000, 999)]
