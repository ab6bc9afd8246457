"""A second process on a file that a server has open: the same, through the server; and what happens when either of them goes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import sqlalchemy as sa

import sqlml
from sqlml.errors import Cancelled, ConnectionLost
from sqlml.guest import frames
from sqlml.guest.owner import OWNER_FILE
from sqlml.guest.session import GuestSession
from sqlml.home import home_of
from tests.shell.test_command import sqlml as command
from tests.shell.test_repl import Terminal
from tests.wire.places import serving
from tests.wire.served import ENDLESS, LARGE, MOST, Served, asking

pytestmark = pytest.mark.slow
TRAIN = "TRAIN MODEL {} USING linear_regression TARGET y {} AS SELECT range AS x, 2 * range AS y FROM range(500)"


WRONG = ("SELECT nope FROM range(3)", "TRAIN MODEL m USNG x", "SHOW MODEL", "SELECT 'x'::INTEGER", "FROM nowhere")


@pytest.fixture
def guest(served: Served) -> Iterator[sqlml.Connection]:
    """A connection through the server."""
    connection = sqlml.connect(served.file)
    assert connection.through == f"the server of process {served.process}, port {served.place.port}"
    yield connection
    connection.close()


def test_the_same_results(guest: sqlml.Connection) -> None:
    query = """
        SELECT range AS n, ['x', 'y'][1 + range % 2]::ENUM ('x', 'y') AS e, uuid() AS u, {'a': [range]} AS s,
        range::DECIMAL(20, 3) AS d, now() AS t, INTERVAL 1 DAY AS i, '{}'::JSON AS j FROM range(200000)
    """
    found = guest.execute(query)
    with sqlml.connect() as here:
        expected = here.execute(query)
        assert found.description == expected.description
        theirs, ours = found.fetch_arrow_table(), expected.fetch_arrow_table()
    assert theirs.schema.equals(ours.schema, check_metadata=True)
    assert theirs.drop_columns(["u", "t"]).equals(ours.drop_columns(["u", "t"]))


def test_the_same_errors(guest: sqlml.Connection) -> None:
    with sqlml.connect() as here:
        for statement in (
            "SELECT nope FROM range(3)",
            "TRAIN MODEL m USNG x",
            "SHOW MODEL",
            "SELECT 'x'::INTEGER",
            "FROM nowhere",
        ):
            with pytest.raises(sqlml.Error) as theirs:
                guest.execute(statement).fetchall()
            with pytest.raises(sqlml.Error) as ours:
                here.execute(statement).fetchall()
            assert (type(theirs.value), str(theirs.value)) == (type(ours.value), str(ours.value))
            assert (theirs.value.source, theirs.value.span) == (ours.value.source, ours.value.span)


def test_training_tells_what_it_does(guest: sqlml.Connection) -> None:
    events: list[Any] = []
    guest.on_event = events.append
    cursor = guest.execute(TRAIN.format("told", ""))
    assert cursor.fetchall()[0][:3] == ("told", 1, "linear_regression")
    assert {event["event"] for event in events} >= {"stage", "step", "notice", "done"}
    assert cursor.kind == "train"
    assert "x looks like a row identifier" in cursor.notices[0]
    assert (cursor.footer or "").startswith("held-out: 100 rows")
    [(answer,)] = guest.execute("SELECT PREDICT(told) FROM (SELECT 3 AS x)").fetchall()
    assert answer == pytest.approx(6, abs=0.1)
    assert "told" in guest.names().models
    assert not [name for name in guest.names().tables if name.startswith("pg_")]


def test_whoever_listens_may_stop_it(guest: sqlml.Connection) -> None:
    def listen(event: Any) -> None:
        raise KeyError(event["event"])

    guest.on_event = listen
    with pytest.raises(KeyError):
        guest.execute(TRAIN.format("unheard", "ON inline"))
    guest.on_event = None
    assert guest.execute("SELECT 1").fetchall() == [(1,)]


def test_interrupt(guest: sqlml.Connection) -> None:
    """Once is enough, also where the server has not begun."""
    session = guest.session
    assert isinstance(session, GuestSession)
    for _ in range(5):
        failed: list[sqlml.Error] = []
        thread = threading.Thread(target=catch, args=(guest, ENDLESS, failed))
        thread.start()
        while not session._waits:
            time.sleep(0)
        guest.interrupt()
        thread.join(60)
        assert [type(error) for error in failed] == [Cancelled]
    assert guest.execute("SELECT 1").fetchall() == [(1,)]


def catch(connection: sqlml.Connection, statement: str, failed: list[sqlml.Error]) -> None:
    """Run a statement, and keep what it fails with."""
    try:
        connection.execute(statement).fetchall()
    except sqlml.Error as error:
        failed.append(error)


def test_rows_that_nobody_wants(guest: sqlml.Connection) -> None:
    many = "SELECT range, repeat('x', 100) FROM range(1000000000)"
    cursor = guest.execute(many)
    assert cursor.fetchone() is not None
    cursor.close()
    assert guest.execute("SELECT 1").fetchall() == [(1,)]
    streaming = guest.execute("SELECT range FROM range(300000)")
    assert guest.execute("SELECT 2").fetchall() == [(2,)]  # what streamed was read into memory first
    assert len(streaming.fetchall()) == 300_000
    forgotten = guest.execute(many)
    guest._streaming = None  # so that nobody reads it into memory
    later = guest.execute("SELECT range FROM range(300000)")
    del forgotten  # takes nothing from what came after it
    assert len(later.fetchall()) == 300_000
    guest.execute(many)  # and left where it is


def test_rows_that_nobody_wants_cost_no_transaction(guest: sqlml.Connection) -> None:
    guest.execute("CREATE TABLE kept (a INTEGER)")
    guest.execute("BEGIN")
    guest.execute("INSERT INTO kept VALUES (1)")
    cursor = guest.execute("SELECT range, repeat('x', 100) FROM range(1000000000)")
    assert cursor.fetchone() is not None
    cursor.close()
    guest.execute("COMMIT")
    assert guest.execute("FROM kept").fetchall() == [(1,)]
    guest.execute("DROP TABLE kept")


@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="needs a signal")
def test_a_signal_while_something_large_is_sent(guest: sqlml.Connection) -> None:
    """Ctrl-C while values are on their way: the statement is cancelled once they are there, or was too quick."""
    interrupted: list[int] = []

    def handle(number: int, frame: object) -> None:
        interrupted.append(number)
        guest.interrupt()

    before = signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, 0.002, 0.002)
    try:
        for _ in range(5):
            with contextlib.suppress(Cancelled):
                guest.execute("SELECT length(?)", ["x" * 2_000_000]).fetchall()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert interrupted
    assert guest.execute("SELECT 1").fetchall() == [(1,)]


def test_what_comes_too_late_stops_nothing(guest: sqlml.Connection) -> None:
    session = guest.session
    assert isinstance(session, GuestSession)
    for late in (frames.STOP, frames.INTERRUPT):
        session._link.send(late)
        assert len(guest.execute("SELECT range FROM range(300000)").fetchall()) == 300_000


def test_transactions_are_of_each_connection(served: Served, guest: sqlml.Connection) -> None:
    with sqlml.connect(served.file) as other:
        guest.execute("CREATE OR REPLACE TABLE moved (a INT)")
        guest.begin()
        guest.execute("INSERT INTO moved VALUES (?)", [1])
        assert other.execute("SELECT count(*) FROM moved").fetchone() == (0,)
        guest.commit()
        assert other.execute("SELECT count(*) FROM moved").fetchone() == (1,)
        other.begin()
        other.execute("DELETE FROM moved")
        other.execute("CREATE TEMP TABLE mine (a INT)")
    with pytest.raises(sqlml.ProgrammingError):
        guest.execute("FROM mine")
    gone = sqlml.connect(served.file)
    gone.execute("BEGIN; DELETE FROM moved")
    gone.close()
    assert guest.execute("SELECT count(*) FROM moved").fetchone() == (0,)  # ``with`` commits, ``close`` rolls back


def test_names_of_files(served: Served, guest: sqlml.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(sqlml.NotSupportedError, match="would be looked for in the folder of the server") as caught:
        guest.execute("COPY (SELECT 1 AS a) TO 'out.csv'")
    assert f"write the whole path: '{tmp_path / 'out.csv'}'" in str(caught.value)
    guest.execute(f"COPY (SELECT 1 AS a) TO '{tmp_path / 'out.csv'}'")
    assert (tmp_path / "out.csv").read_text() == "a\n1\n"


def test_another_schema_and_another_catalog(served: Served, tmp_path: Path) -> None:
    with sqlml.connect(served.file, schema="ml") as connection:
        assert connection.execute("SELECT count(*) FROM ml.models").fetchone() is not None
        asked = "SELECT current_setting('default_null_order')"
        with sqlml.connect(served.file) as other:
            before = other.execute(asked).fetchall()
            connection.execute("SET default_null_order = 'nulls_first'")
            assert connection.execute(asked).fetchall() != before
            assert other.execute(asked).fetchall() == before
    with pytest.raises(sqlml.OperationalError, match=r"has .* open with its models in the folder beside it, not in sqlite:"):
        sqlml.connect(served.file, catalog=f"sqlite:///{tmp_path / 'other.db'}")


def test_no_room(served: Served) -> None:
    held = [sqlml.connect(served.file) for _ in range(MOST)]
    try:
        with pytest.raises(sqlml.OperationalError, match="lets nobody in now: sorry, too many clients already"):
            sqlml.connect(served.file)
    finally:
        for connection in held:
            connection.close()


def test_the_command(served: Served, tmp_path: Path) -> None:
    script = tmp_path / "two.sql"
    script.write_text("CREATE OR REPLACE TABLE typed AS SELECT 7 AS a;\nFROM typed;\nFROM nowhere;")
    done = command(str(served.file), "--format", "csv", "-c", "SELECT 1 AS one", "-f", str(script))
    assert (done.returncode, done.stdout) == (1, "one\n1\n\na\n7\n")
    assert done.stderr.startswith(f"{script}:3:6: statement 3: error: Catalog Error: Table with name nowhere does not exist!")


def test_the_shell(served: Served, tmp_path: Path) -> None:
    terminal = Terminal(tmp_path, str(served.file))
    terminal.see(f"through the server of process {served.process}, port {served.place.port}")
    terminal.see("bank> ")
    terminal.enter("CREATE OR REPLACE TABLE seen (a INT);")
    terminal.see("bank> ")
    terminal.enter("\\d")
    assert "seen" in terminal.see(r"rows? .*ms|rows? .* s")
    terminal.see("bank> ")
    terminal.enter(f"{ENDLESS};")
    terminal.see(r"\[\?2004l")  # the line has been read
    time.sleep(0.5)
    terminal.type("\x03")
    terminal.see("cancelled")
    terminal.see("bank> ")
    assert terminal.leave() == 0


def test_the_notebook(served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    from sqlml.notebook import SqlMagics

    magics = SqlMagics({"least": 2})
    magics.connect(str(served.file))
    assert f"through the server of process {served.process}" in capsys.readouterr().out
    found = magics.run("", "SELECT range AS n FROM range(4) WHERE range > $least")
    magics.close()
    assert found is not None
    assert found.arrow().equals(pa.table({"n": pa.array([3], pa.int64())}))


def test_sqlalchemy(served: Served) -> None:
    engine = sa.create_engine(f"sqlml:///{served.file}")
    table = sa.Table("people", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True), sa.Column("name", sa.String))
    table.metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(table.insert(), [{"name": "ann"}, {"name": "bob"}])
    with pytest.raises(sa.exc.IntegrityError), engine.begin() as connection:
        connection.execute(table.insert(), {"id": 1, "name": "again"})
    with engine.connect() as connection:
        assert connection.execute(sa.select(table.c.name).order_by(table.c.id)).scalars().all() == ["ann", "bob"]
    with engine.connect() as connection:
        connection.execute(sa.text(TRAIN.format("by_alchemy", "ON inline")))
    table.metadata.drop_all(engine)
    engine.dispose()


VANISHING = """
import os, sqlml, sys
connection = sqlml.connect(sys.argv[1])
connection.on_event = lambda event: os._exit(0)
connection.execute(sys.argv[2])
"""


def test_a_guest_that_vanishes_leaves_its_training(served: Served, guest: sqlml.Connection) -> None:
    subprocess.run([sys.executable, "-c", VANISHING, str(served.file), TRAIN.format("left", "")], check=True)
    deadline = time.monotonic() + 60
    while guest.execute("SELECT count(*) FROM sqlml.models WHERE model = 'left'").fetchone() == (0,):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_the_server_is_killed(tmp_path: Path) -> None:
    file = tmp_path / "bank.duckdb"
    with serving(file) as (_, child):
        engine = sa.create_engine(f"sqlml:///{file}")
        with engine.connect() as pooled:
            pooled.execute(sa.text("CREATE TABLE kept AS SELECT 7 AS a"))
            pooled.commit()
        connection = sqlml.connect(file)
        connection.begin()
        connection.execute("INSERT INTO kept VALUES (8)")
        child.kill()
        child.wait()
        assert connection.is_lost
        lost = rf"the server of process {child.pid}, port .*, has ended, and with it the open transaction: nothing .* is kept"
        with pytest.raises(ConnectionLost, match=lost) as caught:
            connection.execute("FROM kept")
        assert isinstance(caught.value, sqlml.OperationalError)
        assert "connect again" in str(caught.value)
        with pytest.raises(ConnectionLost, match=lost):
            connection.commit()
        connection.rollback()
        connection.commit()  # nothing is open, and nothing was lost
        connection.interrupt()
        connection.close()
    assert (home_of(file) / OWNER_FILE).exists()  # which nobody believes
    with sqlml.connect(file) as own:
        assert own.through is None
        assert own.execute("FROM kept").fetchall() == [(7,)]
        held = command("serve", str(file), "--port", "0", "--http-port", "0")
        assert held.returncode == 1
        assert f"bank.duckdb is open elsewhere by process {os.getpid()}" in held.stderr
    with engine.connect() as pooled, pytest.raises(sa.exc.OperationalError):
        pooled.execute(sa.text("FROM kept"))
    with engine.connect() as pooled:  # the pool has let go of the connections that were lost
        assert pooled.execute(sa.text("FROM kept")).fetchall() == [(7,)]
    engine.dispose()


def test_nobody_knows_of_a_commit_that_was_not_answered(tmp_path: Path) -> None:
    with serving(tmp_path / "bank.duckdb") as (_, child), sqlml.connect(tmp_path / "bank.duckdb") as connection:
        os.kill(child.pid, signal.SIGSTOP)  # it takes what is sent, and answers nothing
        killing = threading.Timer(0.5, child.kill)
        killing.start()
        with pytest.raises(ConnectionLost, match="has ended before it answered COMMIT: look whether the transaction was kept"):
            connection.execute("BEGIN; CREATE TABLE kept (a INT); COMMIT")
        killing.join()
        connection.rollback()


def test_the_shell_goes_on_when_the_server_has_ended(tmp_path: Path) -> None:
    """By itself, or through the server that has come; of a transaction that is lost it tells before anything else runs."""
    file = tmp_path / "bank.duckdb"
    with serving(file) as (_, first):
        terminal = Terminal(tmp_path, str(file))
        terminal.see(f"through the server of process {first.pid}")
        terminal.see("bank> ")
        terminal.enter("CREATE TABLE kept AS SELECT 7 AS a;")
        terminal.see(r"1 row  [\d.]+ m?s")
        terminal.see("bank> ")
        terminal.enter("BEGIN;")
        terminal.see("ok .*ms")
        terminal.enter("INSERT INTO kept VALUES (8);")
        terminal.see(r"1 row  [\d.]+ m?s")
    with serving(file) as (_, second):
        terminal.see("bank> ")
        terminal.type("SELECT * FROM ke\t")  # to complete a name is no statement
        time.sleep(0.5)
        terminal.type("\x03")
        terminal.enter("INSERT INTO kept VALUES (9);")
        terminal.see(f"process {first.pid}, port .*has ended, and with it the open transaction")
        terminal.see("the next statement connects again")
        terminal.enter("SELECT 100 + sum(a) AS s FROM kept;")
        terminal.see(f"process {first.pid}, port .*has ended; now through the server of process {second.pid}")
        assert "107" in terminal.see(r"1 row  [\d.]+ m?s")
        terminal.see("bank> ")
        terminal.enter(f"{ENDLESS};")
        terminal.see(r"\[\?2004l")  # the line has been read
        time.sleep(0.5)
        second.kill()
        second.wait()
        terminal.see(f"error: the server of process {second.pid}, port .*has ended")
        terminal.enter("SELECT 200 + sum(a) AS s FROM kept;")
        terminal.see("now .*bank.duckdb is open here")
        assert "207" in terminal.see(r"1 row  [\d.]+ m?s")
        assert terminal.leave() == 0
    again = sqlml.connect(file)
    assert again.execute("FROM kept").fetchall() == [(7,)]
    again.close()


def test_the_server_ends_while_a_guest_works(tmp_path: Path) -> None:
    file = tmp_path / "bank.duckdb"
    with serving(file) as (place, child), asking(place, LARGE):  # who does not read
        again = command("serve", str(file), "--port", "0", "--http-port", "0")
        assert (again.returncode, "Traceback" in again.stderr) == (1, False)
        busy, idle, unread = (sqlml.connect(file) for _ in range(3))
        unread.execute(LARGE)
        seen: list[sqlml.Error] = []
        thread = threading.Thread(target=catch, args=(busy, ENDLESS, seen))
        thread.start()
        child.send_signal(signal.SIGTERM)
        thread.join(60)
        output, _ = child.communicate(timeout=60)
        assert child.returncode == 0, output
        assert "Traceback" not in output
        [error] = seen
        assert isinstance(error, sqlml.OperationalError)
        assert "the server ends" in str(error) or "has ended" in str(error)
        with pytest.raises(ConnectionLost):
            idle.execute("SELECT 1")
        busy.close()
        idle.close()
        unread.close()
    assert not (home_of(file) / OWNER_FILE).exists()


def test_a_guest_may_be_silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time that a request may take to arrive is not the guest's."""
    from sqlml.guest.link import Link
    from sqlml.statements.own_database import place_of
    from sqlml.wire.http import connection
    from sqlml.wire.server import WireOptions, WireServer

    monkeypatch.setattr(connection, "REQUEST_SECONDS", 0.1)
    server = WireServer(WireOptions(str(tmp_path / "bank.duckdb"), port=0))
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(server.start(), loop).result(60)
        assert server.owner is not None
        session = GuestSession(Link(server.owner), server.owner, place_of(server.owner.database, None, None), None, None)
        time.sleep(0.5)
        assert session.execute("SELECT 1")[0] == "sql"
        session.close()
    finally:
        asyncio.run_coroutine_threadsafe(server.stop(), loop).result(60)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(60)
        loop.close()


def test_a_notice_whose_port_somebody_else_has(served: Served, tmp_path: Path) -> None:
    """The server of another file answers, and knows another token: as good as nobody."""
    from dataclasses import replace

    from sqlml.guest.owner import find_owner, write_owner

    file = tmp_path / "bank.duckdb"
    sqlml.connect(file).close()
    owner = find_owner(str(served.file))
    assert owner is not None
    write_owner(replace(owner, database=str(file.resolve()), token="another"))
    with sqlml.connect(file) as connection:
        assert connection.through is None
