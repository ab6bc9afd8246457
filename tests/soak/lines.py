"""kill -9 at every line of Python between TRAIN's job and its version; each time the same bundle."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import sqlml
from sqlml.bundles.model import Model
from sqlml.data import sample

TRAIN = "TRAIN MODEL m TARGET y EXCLUDE (duration) WITH (n_estimators = 2) ON inline AS FROM bank"
FILES = ("sqlml/statements/train.py", "sqlml/catalog/store.py", "sqlml/catalog/files.py")
CHILD = """
import os, signal, sys, sqlml
database, statement, wanted, files = sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4].split()
seen = []
def trace(frame, event, argument):
    name = frame.f_code.co_filename
    if not name.endswith(tuple(files)):
        return None
    if event == "line":
        place = f"{name.rpartition('/')[2]}:{frame.f_lineno}"
        if place == wanted:
            os.kill(os.getpid(), signal.SIGKILL)
        if place not in seen:
            seen.append(place)
    return trace
connection = sqlml.connect(database)
sys.settrace(trace)
connection.execute(statement)
sys.settrace(None)
print(" ".join(seen))
"""


def run() -> int:
    """The number of lines after which something was wrong."""
    with tempfile.TemporaryDirectory(prefix="sqlml-soak-") as folder:
        database = Path(folder) / "bank.duckdb"
        with sqlml.connect(database) as connection:
            connection.execute(f"CREATE TABLE bank AS SELECT * FROM '{sample('bank_marketing')}' LIMIT 1000")
            connection.execute(TRAIN)
        places = _child(database, "none").stdout.split()
        failures = 0
        for place in places:
            done = _child(database, place)
            problems = _check(database)
            if done.returncode != -signal.SIGKILL:
                problems.append(f"exit status {done.returncode}: {done.stderr[-300:]}")
            failures += bool(problems)
            for problem in problems:
                print(f"{place}: {problem}")
    print(f"lines: killed at {len(places)} lines, {failures} with faults")
    return failures if places else 1


def _child(database: Path, place: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", CHILD, str(database), TRAIN, place, " ".join(FILES)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def _check(database: Path) -> list[str]:
    problems: list[str] = []
    home = database.with_suffix(".sqlml")
    with sqlml.connect(database) as connection:
        for version, bundle, sha256 in connection.execute("SELECT version, bundle, bundle_sha256 FROM sqlml.versions").fetchall():
            try:
                Model.open(Path(bundle), sha256)
            except sqlml.Error as error:
                problems.append(f"version {version}: {error.message}")
        [(rows,)] = connection.execute("SELECT count(PREDICT(m)) FROM bank").fetchall()
        problems += [] if rows == 1000 else [f"PREDICT gives {rows} rows"]
        running = connection.execute("SELECT job FROM sqlml.jobs WHERE state = 'running'").fetchall()
        problems += [f"jobs still running: {running}"] if running else []
    problems += [f"left behind: {path}" for path in home.glob("jobs/*/*.arrow") if path.name != "heldout.arrow"]
    return problems
