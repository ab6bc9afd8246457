"""TRAIN … ASYNC and CANCEL JOB: real processes that outlive their session, or die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

import sqlml
from tests.sessions import session_of

QUICK = "TRAIN MODEL {model} TARGET bought EXCLUDE (id, spent) WITH (n_estimators = 3) ASYNC AS FROM people"
ENDLESS = "TRAIN MODEL {model} TARGET bought EXCLUDE (id, spent) WITH (n_estimators = 1000000) ASYNC AS FROM people"
PATIENCE = 60.0

pytestmark = pytest.mark.slow


def start(connection: sqlml.Connection, model: str = "m", statement: str = QUICK) -> int:
    cursor = connection.execute(statement.format(model=model))
    assert [d.name for d in cursor.description or ()] == ["job", "model", "state"]
    [(job, name, state)] = cursor.fetchall()
    assert (name, state) == (model, "running")
    return int(job)


def state_of(connection: sqlml.Connection, job: int) -> str:
    [(state,)] = connection.execute(f"SELECT state FROM sqlml.jobs WHERE job = {job}").fetchall()
    return str(state)


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def running_job(connection: sqlml.Connection) -> int:
    """The one that runs, as soon as there is one."""
    running = "SELECT job FROM sqlml.jobs WHERE state = 'running'"
    wait_for(lambda: bool(connection.execute(running).fetchall()), "no job")
    [(job,)] = connection.execute(running).fetchall()
    return int(job)


def wait_for_it(connection: sqlml.Connection, statement: str) -> tuple[threading.Thread, list[Exception]]:
    """A thread that waits for a statement, and what it fails with."""
    failed: list[Exception] = []

    def wait() -> None:
        try:
            connection.execute(statement)
        except sqlml.Error as error:
            failed.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    return waiting, failed


def wait_until_over(connection: sqlml.Connection, job: int) -> str:
    wait_for(lambda: state_of(connection, job) != "running", f"job {job} does not end")
    return state_of(connection, job)


def wait_for_steps(connection: sqlml.Connection, job: int) -> None:
    progress = f"SELECT progress FROM sqlml.jobs WHERE job = {job}"
    wait_for(lambda: "/" in str((connection.execute(progress).fetchone() or ("",))[0]), f"job {job} makes no steps")


def processes(home: Path, module: str, job: int | None = None) -> list[psutil.Process]:
    """The followers or workers of a home."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        arguments = process.info["cmdline"] or []
        its = module in arguments and any(str(home) in argument for argument in arguments)
        if its and (job is None or arguments[-1] == str(job)):
            found.append(process)
    return found


@pytest.fixture
def home(database: Path) -> Iterator[Path]:
    folder = database.with_suffix(".sqlml")
    yield folder
    for module in ("sqlml.follower", "sqlml_runners.worker"):
        for process in processes(folder, module):
            process.kill()


def test_it_returns_at_once_and_a_version_comes(connection: sqlml.Connection, home: Path) -> None:
    started = time.monotonic()
    job = start(connection)
    assert time.monotonic() - started < 3
    assert connection.execute("SHOW JOBS").fetchall()[-1][4] == "running"
    assert connection.execute("SELECT 42").fetchone() == (42,)  # the session goes on
    assert wait_until_over(connection, job) == "done"
    assert connection.execute("SELECT count(PREDICT(m)) FROM people").fetchone() == (600,)
    [(version, statement)] = connection.execute("SELECT version, statement FROM sqlml.versions WHERE model = 'm'").fetchall()
    assert (version, statement) == (1, QUICK.format(model="m"))
    assert connection.execute(f"SHOW LOGS FOR JOB {job}").fetchall()
    assert not list((home / "jobs").glob("*/train.arrow"))
    wait_for(lambda: not processes(home, "sqlml.follower"), "the follower stays")


def test_two_at_once_and_a_second_session(connection: sqlml.Connection, database: Path, home: Path) -> None:
    jobs = [start(connection, model) for model in ("m", "m", "n")]
    with sqlml.connect(database) as other:
        assert {wait_until_over(other, job) for job in jobs} == {"done"}
        versions = other.execute("SELECT model, version FROM sqlml.versions WHERE model IN ('m', 'n') ORDER BY ALL").fetchall()
        assert versions == [("m", 1), ("m", 2), ("n", 1)]
        assert other.execute("SELECT count(PREDICT(m@2)) FROM people").fetchone() == (600,)


def test_a_session_that_ends_right_away(database: Path, home: Path) -> None:
    script = f"import sys, sqlml; c = sqlml.connect(sys.argv[1]); print(c.execute({QUICK.format(model='m')!r}).fetchone()[0])"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    done = subprocess.run(
        [sys.executable, "-c", script, str(database)], capture_output=True, text=True, env=environment, check=True
    )
    assert done.stderr == ""
    with sqlml.connect(database) as connection:
        assert wait_until_over(connection, int(done.stdout)) == "done"
        assert connection.execute("SELECT count(PREDICT(m)) FROM people").fetchone() == (600,)


def test_with_a_catalog_elsewhere(database: Path, home: Path) -> None:
    url = f"sqlite:///{database.parent / 'faraway.db'}"
    with sqlml.connect(database, catalog=url) as connection:
        job = start(connection)
        follower = processes(home, "sqlml.follower", job)[0]
        assert not [argument for argument in follower.cmdline() if "faraway" in argument]  # it may hold a password
        assert wait_until_over(connection, job) == "done"
        assert connection.execute("SELECT count(PREDICT(m)) FROM people").fetchone() == (600,)


def test_cancel(connection: sqlml.Connection, database: Path, home: Path) -> None:
    job = start(connection, "m", ENDLESS)
    wait_for_steps(connection, job)
    with sqlml.connect(database) as other:
        assert other.execute(f"CANCEL JOB {job}").fetchall() == [(job, "m", "cancelled")]
    assert state_of(connection, job) == "cancelled"
    assert not processes(home, "sqlml_runners.worker")
    assert connection.execute("SELECT count(*) FROM sqlml.models").fetchone() == (3,)
    assert not list((home / "jobs").glob("*/train.arrow"))
    with pytest.raises(sqlml.ProgrammingError, match=f"job {job} is over: cancelled"):
        connection.execute(f"CANCEL JOB {job}")


def test_cancel_before_it_has_begun(connection: sqlml.Connection, home: Path) -> None:
    job = start(connection, "m", ENDLESS)
    assert connection.execute(f"CANCEL JOB {job}").fetchall() == [(job, "m", "cancelled")]
    wait_for(lambda: not processes(home, "sqlml.follower") and not processes(home, "sqlml_runners.worker"), "something stays")


def test_what_cannot_be_cancelled(connection: sqlml.Connection, database: Path) -> None:
    for number, message in ((1, "job 1 is over: done"), (99, "there is no job 99")):
        with pytest.raises(sqlml.ProgrammingError, match=message) as raised:
            connection.execute(f"CANCEL JOB {number}")
        assert "SHOW JOBS" in (raised.value.hint or "")
    catalog = session_of(connection)._catalog
    job = catalog.start_job("train", "m", "TRAIN …", "process")
    with pytest.raises(sqlml.NotSupportedError, match=f"job {job.id} is in the hands of a session in this process"):
        connection.execute(f"CANCEL JOB {job.id}")
    catalog.end_job(job, "failed", "for no reason")


def test_cancel_what_another_session_waits_for(connection: sqlml.Connection, database: Path, home: Path) -> None:
    waiting, failed = wait_for_it(connection, ENDLESS.format(model="m").replace(" ASYNC", ""))
    with sqlml.connect(database) as other:
        job = running_job(other)
        wait_for_steps(other, job)
        assert other.execute(f"CANCEL JOB {job}").fetchall() == [(job, "m", "cancelled")]
    waiting.join(PATIENCE)
    assert [type(error).__name__ for error in failed] == ["JobCancelled"]
    assert f"cancelled by CANCEL JOB {job}" in str(failed[0])
    assert not processes(home, "sqlml_runners.worker")
    assert not list((home / "jobs").glob("*/train.arrow"))


def test_cancel_while_the_rows_are_read(connection: sqlml.Connection, database: Path) -> None:
    """Its process is up, and waits: to end that would not end the reading."""
    waiting, failed = wait_for_it(
        connection,
        "TRAIN MODEL m USING naive_bayes TARGET y AS SELECT (a.i + b.i) % 7 AS x, count(*) % 2 > 0 AS y "
        "FROM range(3000000) a(i), range(3000000) b(i) GROUP BY ALL",
    )
    with sqlml.connect(database) as other:
        job = running_job(other)
        wait_for(lambda: bool(_workers()), "no process that waits")
        with pytest.raises(sqlml.NotSupportedError, match="no process of its own that could be stopped") as refused:
            other.execute(f"CANCEL JOB {job}")
        assert "try again" in str(refused.value)
    connection.interrupt()
    waiting.join(PATIENCE)
    assert [type(error).__name__ for error in failed] == ["Cancelled"]
    assert not _workers()


def test_a_query_that_fails_leaves_no_process(connection: sqlml.Connection) -> None:
    with pytest.raises(sqlml.Error, match="Could not convert"):
        connection.execute(
            "TRAIN MODEL m TARGET y AS SELECT i AS x, CAST(CASE WHEN i < 400000 THEN '1' ELSE 'no' END AS INTEGER) AS y "
            "FROM range(500000) t(i)"
        )
    assert not _workers()
    assert connection.execute("SELECT count(*) FROM sqlml.jobs WHERE state = 'running'").fetchone() == (0,)


def _workers() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if "sqlml_runners.worker" in child.cmdline()]


def test_a_killed_follower(connection: sqlml.Connection, database: Path, home: Path) -> None:
    job = start(connection, "m", ENDLESS)
    wait_for_steps(connection, job)
    [follower] = processes(home, "sqlml.follower", job)
    follower.kill()
    wait_for(lambda: not processes(home, "sqlml_runners.worker"), "the worker outlives its follower")
    wait_for(lambda: not processes(home, "sqlml.follower"), "the follower is still there")
    with sqlml.connect(database) as other:
        assert state_of(other, job) == "lost"
        assert not list((home / "jobs").glob("*/train.arrow"))
        with pytest.raises(sqlml.ProgrammingError, match=f"job {job} is over: lost"):
            other.execute(f"CANCEL JOB {job}")


def test_a_live_follower_is_no_lost_job(connection: sqlml.Connection, database: Path, home: Path) -> None:
    job = start(connection, "m", ENDLESS)
    with sqlml.connect(database) as other:
        session_of(other)._catalog.recover()
        assert state_of(other, job) == "running"
    connection.execute(f"CANCEL JOB {job}")


def test_a_polite_signal_cancels(connection: sqlml.Connection, home: Path) -> None:
    job = start(connection, "m", ENDLESS)
    wait_for_steps(connection, job)
    [follower] = processes(home, "sqlml.follower", job)
    os.kill(follower.pid, signal.SIGTERM)
    assert wait_until_over(connection, job) == "cancelled"


def test_a_job_that_fails(connection: sqlml.Connection, home: Path) -> None:
    statement = "TRAIN MODEL {model} USING linear_regression TARGET age LIMIT (MEMORY '40 MiB') ASYNC AS FROM people"
    job = start(connection, "m", statement)
    assert wait_until_over(connection, job) == "failed"
    [(error,)] = connection.execute(f"SELECT error FROM sqlml.jobs WHERE job = {job}").fetchall()
    assert "memory limit of 40 MiB" in error
    assert not list((home / "jobs").glob("*/train.arrow"))


def test_what_is_wrong_is_said_at_once(connection: sqlml.Connection) -> None:
    for statement, message in (
        ("TRAIN MODEL m TARGET nope ASYNC AS FROM people", "the query has no column nope"),
        ("TRAIN MODEL m TARGET bought ASYNC AS SELECT bought, 1 / (id - id) AS x, error('no') AS y FROM people", "no"),
    ):
        with pytest.raises(sqlml.DatabaseError, match=message):
            connection.execute(statement)
    assert connection.execute("SELECT count(*) FROM sqlml.jobs WHERE state = 'running'").fetchone() == (0,)


def test_not_from_memory() -> None:
    with sqlml.connect() as connection:
        connection.execute("CREATE TABLE t AS SELECT i % 2 AS y, i AS x FROM range(100) AS r(i)")
        with pytest.raises(sqlml.NotSupportedError, match="an in-memory database cannot train ASYNC"):
            connection.execute("TRAIN MODEL m TARGET y ASYNC AS FROM t")


def test_not_in_a_transaction(connection: sqlml.Connection) -> None:
    connection.execute("BEGIN")
    with pytest.raises(sqlml.NotSupportedError, match="cannot run inside an open transaction"):
        connection.execute(QUICK.format(model="m"))
    connection.execute("ROLLBACK")


def test_other_statements_have_no_async(shared: sqlml.Connection) -> None:
    with pytest.raises(sqlml.NotSupportedError, match="ASYNC: understood, but this version cannot carry it out yet"):
        shared.execute("PREDICT MODEL buys INTO t ASYNC AS FROM people")


def test_a_relative_catalog_url_is_found_from_everywhere(database: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(database.parent)
    with sqlml.connect(database, catalog="sqlite:///rel.db") as connection:
        job = start(connection)
        assert wait_until_over(connection, job) == "done"
        try:
            assert connection.execute("DEPLOY MODEL m").fetchall()[0][-1] == "ready"
        finally:
            connection.execute("UNDEPLOY ENDPOINT m")
    assert [path.name for path in database.parent.rglob("rel.db")] == ["rel.db"]
    with sqlml.connect(database, catalog=f"sqlite:///{database.parent / 'rel.db'}") as connection:
        assert connection.execute("SELECT count(PREDICT(m)) FROM people").fetchone() == (600,)
