"""kill -9 at a random moment of TRAIN, PREDICT INTO and DEPLOY; after each the database and the catalog must be whole."""

from __future__ import annotations

import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import psutil

import sqlml
from sqlml.bundles.model import Model
from sqlml.data import sample
from sqlml.registry import SERVER, load

ROWS = 8_000
TRAIN = "TRAIN MODEL m TARGET y EXCLUDE (duration) WITH (n_estimators = 40) AS SELECT * FROM bank"
STATEMENTS = {
    "train": (TRAIN, 3.0),
    "predict": ("PREDICT MODEL m INTO scores REPLACE AS FROM bank, range(20)", 2.0),
    "deploy": ("DEPLOY MODEL m", 3.0),
}
CHILD = """
import sys, sqlml
connection = sqlml.connect(sys.argv[1])
print("ready", flush=True)
connection.execute(sys.argv[2])
print("done", flush=True)
connection.close()
"""


def run(rounds: int, seed: int) -> int:
    """The number of rounds after which something was wrong."""
    chance = random.Random(seed)
    failures, outcomes = 0, Counter[str]()
    with tempfile.TemporaryDirectory(prefix="sqlml-soak-") as folder:
        database = Path(folder) / "bank.duckdb"
        server = load(SERVER)(database.with_suffix(".sqlml"))
        try:
            _prepare(database)
            for number in range(rounds):
                name = chance.choice(list(STATEMENTS))
                killed = _kill_during(database, name, chance)
                problems = _check(database)
                outcomes[f"{name} {'killed' if killed else 'finished first'}"] += 1
                failures += bool(problems)
                for problem in problems:
                    print(f"round {number} ({name}): {problem}")
                if number % 7 == 6:
                    server.stop()
            failures += _finish(database)
        finally:
            server.stop()
    print(f"kills: {rounds} rounds, {failures} with faults;", ", ".join(f"{n} {what}" for what, n in sorted(outcomes.items())))
    return failures


def _prepare(database: Path) -> None:
    with sqlml.connect(database) as connection:
        connection.execute(f"CREATE TABLE bank AS SELECT * FROM '{sample('bank_marketing')}' LIMIT {ROWS}")
        connection.execute(TRAIN)
        connection.execute("PREDICT MODEL m INTO scores AS FROM bank")
        connection.execute("CREATE VIEW scored AS SELECT age, PREDICT_PROBA(m, 'yes') AS p FROM bank")


def _kill_during(database: Path, name: str, chance: random.Random) -> bool:
    statement, longest = STATEMENTS[name]
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(database), statement], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    child.stdout.readline()
    try:
        child.wait(chance.uniform(0, longest))
    except subprocess.TimeoutExpired:
        child.send_signal(signal.SIGKILL)
    out, err = child.communicate()
    if child.returncode not in (0, -signal.SIGKILL):
        raise AssertionError(f"{statement}: exit {child.returncode}\n{out}{err}")
    return child.returncode != 0


def _check(database: Path) -> list[str]:
    problems: list[str] = []
    with sqlml.connect(database) as connection:
        problems += _check_catalog(connection, database.with_suffix(".sqlml"))
        problems += _check_tables(connection)
    return problems + _check_processes(database)


def _check_catalog(connection: sqlml.Connection, home: Path) -> list[str]:
    problems = []
    integrity = sqlite3.connect(home / "catalog.db").execute("PRAGMA integrity_check").fetchone()[0]
    if integrity != "ok":
        problems.append(f"catalog: {integrity}")
    running = connection.execute("SELECT job, owner FROM sqlml.jobs WHERE state = 'running'").fetchall()
    if running:
        problems.append(f"jobs still running: {running}")
    versions = connection.execute("SELECT version, bundle, bundle_sha256 FROM sqlml.versions ORDER BY version").fetchall()
    if [v for v, _, _ in versions] != list(range(1, len(versions) + 1)):
        problems.append(f"versions are {[v for v, _, _ in versions]}")
    Model.open(Path(versions[-1][1]), versions[-1][2])
    for version, *_ in versions:
        figures = connection.execute("SELECT count(*) FROM sqlml.metrics WHERE version = ?", [version]).fetchone()
        if not figures or not figures[0]:
            problems.append(f"version {version} has no metrics")
    problems += [f"left behind: {path}" for path in home.glob("jobs/*/*.arrow") if path.name != "heldout.arrow"]
    return problems


def _check_tables(connection: sqlml.Connection) -> list[str]:
    problems = []
    [(rows,)] = connection.execute("SELECT count(*) FROM scores").fetchall()
    if rows not in (ROWS, ROWS * 20):
        problems.append(f"scores has {rows} rows")
    [(scored,)] = connection.execute("SELECT count(*) FROM scored WHERE p BETWEEN 0 AND 1").fetchall()
    if scored != ROWS:
        problems.append(f"the view gives {scored} rows")
    return problems


def _check_processes(database: Path) -> list[str]:
    deadline = time.monotonic() + 5
    while True:
        left = [p.info for p in psutil.process_iter(["pid", "cmdline"]) if _is_worker(p.info["cmdline"], database)]
        if not left:
            return []
        if time.monotonic() > deadline:
            return [f"a worker lives on: {left}"]
        time.sleep(0.05)


def _is_worker(command: list[str] | None, database: Path) -> bool:
    words = command or []
    return "sqlml_runners.worker" in words and str(database.with_suffix(".sqlml")) in words[-1]


def _finish(database: Path) -> int:
    """After all rounds everything must still work."""
    with sqlml.connect(database) as connection:
        connection.execute(TRAIN)
        [(_, _, _, url, state)] = connection.execute("DEPLOY MODEL m").fetchall()
        connection.execute("UNDEPLOY ENDPOINT m")
    if state != "ready":
        print(f"at the end DEPLOY says {state} at {url}")
        return 1
    return 0
