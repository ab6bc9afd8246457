"""Processes that die: the session's at any moment of TRAIN, the worker's alone, limits passed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

import sqlml

SCRIPT = """
import sys, os, sqlml
connection = sqlml.connect(sys.argv[1], on_event=lambda event: print(event["event"], event.get("name", ""), flush=True))
print("start", flush=True)
connection.execute("TRAIN MODEL m TARGET bought EXCLUDE (id, spent) WITH (n_estimators = 100000) AS FROM people")
"""
WORKER = "sqlml_runners.worker"

pytestmark = pytest.mark.slow


def start(database: Path) -> subprocess.Popen[str]:
    """A session in a process of its own, training."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    return subprocess.Popen([sys.executable, "-c", SCRIPT, str(database)], stdout=subprocess.PIPE, text=True, env=environment)


def workers_of(home: Path) -> list[psutil.Process]:
    """The workers whose job lies in a home."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        arguments = process.info["cmdline"] or []
        if WORKER in arguments and any(str(home) in argument for argument in arguments):
            found.append(process)
    return found


def wait_until_gone(home: Path) -> None:
    deadline = time.monotonic() + 10
    while workers_of(home):
        assert time.monotonic() < deadline, "the worker outlives its session"
        time.sleep(0.05)


@pytest.mark.parametrize("moment", ["start", "stage reading", "stage training", "step"])
def test_a_killed_session(database: Path, moment: str) -> None:
    home = database.with_suffix(".sqlml")
    process = start(database)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(moment):
            break
    process.kill()
    process.wait(10)
    process.stdout.close()
    wait_until_gone(home)
    with sqlml.connect(database) as connection:
        assert connection.execute("SELECT model FROM sqlml.models ORDER BY 1").fetchall() == [("buys",), ("groups",), ("spends",)]
        states = connection.execute("SELECT state, error FROM sqlml.jobs WHERE model = 'm'").fetchall()
        assert states in ([], [("lost", "the process that followed this job died")])
        assert not list((home / "jobs").glob("*/*.arrow.part")) + list((home / "jobs").glob("*/train.arrow"))
        assert not list((home / "jobs").glob("*/bundle"))
        assert len(list((home / "bundles").iterdir())) == 3
        connection.execute("TRAIN MODEL m TARGET bought EXCLUDE (id, spent) WITH (n_estimators = 2) ON inline AS FROM people")
        assert connection.execute("SELECT version FROM sqlml.versions WHERE model = 'm'").fetchall() == [(1,)]


def train(connection: sqlml.Connection, clauses: str, rounds: int = 100_000) -> None:
    connection.execute(f"TRAIN MODEL m TARGET bought EXCLUDE (id, spent) WITH (n_estimators = {rounds}) {clauses} AS FROM people")


def test_a_killed_worker(connection: sqlml.Connection, database: Path) -> None:
    home = database.with_suffix(".sqlml")
    fired: list[int] = []

    def kill(event: Any) -> None:
        if event["event"] == "step" and not fired:
            [worker] = workers_of(home)
            fired.append(worker.pid)
            worker.kill()

    connection.on_event = kill
    with pytest.raises(sqlml.OperationalError) as raised:
        train(connection, "")
    assert type(raised.value).__name__ == "JobCrashed"
    assert f"signal {signal.SIGKILL.value} (SIGKILL)" in str(raised.value)
    assert "job.log" in str(raised.value)
    connection.on_event = None
    assert connection.execute("SELECT state FROM sqlml.jobs WHERE model = 'm'").fetchall() == [("failed",)]
    assert connection.execute("SELECT count(PREDICT(buys)) FROM people").fetchone() == (600,)


def test_the_time_limit(connection: sqlml.Connection) -> None:
    started = time.monotonic()
    with pytest.raises(sqlml.OperationalError, match="passed its time limit of 3 s and was stopped") as raised:
        train(connection, "LIMIT (TIME '3 s')")
    assert time.monotonic() - started < 8
    assert type(raised.value).__name__ == "JobTimeout"


def test_the_memory_limit(connection: sqlml.Connection) -> None:
    with pytest.raises(sqlml.OperationalError, match="memory limit of 60 MiB") as raised:
        train(connection, "LIMIT (MEMORY '60 MiB')", 10)
    assert type(raised.value).__name__ == "JobOutOfMemory"
    [(state, error)] = connection.execute("SELECT state, error FROM sqlml.runs WHERE model = 'm'").fetchall()
    assert state == "failed"
    assert "60 MiB" in error


def test_a_job_in_its_process(connection: sqlml.Connection, database: Path) -> None:
    events: list[str] = []
    connection.on_event = lambda event: events.append(str(event["event"]))
    train(connection, "LIMIT (TIME '1 min', MEMORY '4 GB')", 5)
    assert {"stage", "step", "notice"} <= set(events)
    job = connection.execute("SELECT max(job) FROM sqlml.jobs").fetchone()
    lines = connection.execute(f"SHOW LOGS FOR JOB {job[0] if job else 0}").fetchall()
    assert any("step 5/5" in text for _, text in lines)
    assert connection.execute("SELECT count(*) FROM sqlml.logs WHERE text LIKE '%step 5/5%'").fetchone() != (0,)
    assert not workers_of(database.with_suffix(".sqlml"))
