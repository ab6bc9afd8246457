"""``python -m tests.bench startup``: how long things take before there is work to do, in milliseconds."""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import duckdb

import sqlml
from tests.bench.measuring import REPOSITORY, seconds
from tests.bench.tables import floats


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench startup")
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args(arguments)
    print(f"| what | milliseconds, median of {options.runs} |\n| --- | ---: |")
    places = [str(REPOSITORY / part) for part in ("", "dialect", "runners", "udfs")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(places)}

    def started(*words: str) -> Callable[[], object]:
        return lambda: subprocess.run([sys.executable, *words], check=True, capture_output=True, env=environment)

    empty = _show("python -c pass", started("-c", "pass"), options.runs)
    _show("import sqlml, beyond that", started("-c", "import sqlml"), options.runs, empty)
    _show('sqlml :memory: -c "SELECT 1"', started("-m", "sqlml.shell.main", ":memory:", "-c", "SELECT 1"), options.runs)
    with tempfile.TemporaryDirectory(prefix="sqlml-bench-") as folder:
        _connection(Path(folder), options.runs)


def _show(name: str, action: Callable[[], object], runs: int, less: float = 0.0) -> float:
    found = statistics.median(seconds(action) for _ in range(runs))
    print(f"| {name} | {1000 * (found - less):.2f} |", flush=True)
    return found


def _connection(folder: Path, runs: int) -> None:
    many = max(200, runs)
    with duckdb.connect(":memory:") as plain:
        bare = statistics.median(seconds(lambda: plain.execute("SELECT 1").fetchall()) for _ in range(many))
    with sqlml.connect(folder / "start.duckdb") as connection:
        _plain(connection, bare, many)
        table = floats(50_000)
        import pyarrow.parquet as pq

        pq.write_table(table, folder / "floats.parquet")
        connection.execute(f"CREATE TABLE floats AS FROM '{folder / 'floats.parquet'}'")
        connection.execute(
            "TRAIN MODEL m USING xgboost_classifier TARGET y EXCLUDE (id) SPLIT NONE WITH (n_estimators = 100) AS FROM floats"
        )
        connection.execute("CREATE TABLE one AS FROM floats LIMIT 1")
    with sqlml.connect(folder / "start.duckdb") as connection:
        connection.execute("SELECT 1").fetchall()
        query = "SELECT PREDICT_PROBA(m, 1) FROM one"
        started = time.perf_counter()
        connection.execute(query).fetchall()
        first = time.perf_counter() - started
        again = statistics.median(seconds(lambda: connection.execute(query).fetchall()) for _ in range(many))
        print(f"| the first PREDICT of a warm connection, one row, 100 trees | {1000 * first:.2f} |")
        print(f"| a PREDICT of one row after that | {1000 * again:.2f} |")


def _plain(connection: sqlml.Connection, bare: float, many: int) -> None:
    connection.execute("SELECT 1").fetchall()
    ours = statistics.median(seconds(lambda: connection.execute("SELECT 1").fetchall()) for _ in range(many))
    print(f"| SELECT 1 through the connection, beyond DuckDB's own | {1000 * (ours - bare):.3f} |")
