"""``python -m tests.bench startup``: how long things take before there is work to do, in milliseconds."""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import duckdb

import sqlml
from tests.bench.measuring import REPOSITORY, seconds
from tests.bench.tables import floats

FEW = ["f0", "f1", "f2", "f3", "f4"]


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
    import pyarrow.parquet as pq

    file = folder / "floats.parquet"
    pq.write_table(floats(50_000), file)
    with sqlml.connect(folder / "start.duckdb") as connection:
        _plain(connection, many)
        connection.execute(f"CREATE TABLE floats AS FROM '{file}'")
        for model, columns in (("m", "* EXCLUDE (id)"), ("m5", f"{', '.join(FEW)}, y")):
            connection.execute(
                f"TRAIN MODEL {model} USING xgboost_classifier TARGET y SPLIT NONE WITH (n_estimators = 100) "
                f"AS SELECT {columns} FROM floats"
            )
        connection.execute("CREATE TABLE one AS FROM floats LIMIT 1")
    with sqlml.connect(folder / "start.duckdb") as connection:
        connection.execute("SELECT 1").fetchall()
        query = "SELECT PREDICT_PROBA(m, 1) FROM one"
        first = seconds(lambda: connection.execute(query).fetchall())
        print(f"| the first PREDICT of a warm connection, one row, 100 trees | {1000 * first:.2f} |")
        few = query.replace("(m,", "(m5,")
        connection.execute(few).fetchall()
        _told("a PREDICT of one row after that, 28 columns", lambda: connection.execute(query).fetchall(), many)
        _told("the same of 5 columns", lambda: connection.execute(few).fetchall(), many)
    with duckdb.connect() as plain:
        plain.execute(f"CREATE TABLE one AS FROM '{file}' LIMIT 1")
        for names in ([f"f{i}" for i in range(28)], FEW):
            total = f"SELECT {' + '.join(names)} FROM one"
            _told(f"DuckDB alone, the sum of {len(names)} columns of one row, as Arrow", partial(_arrow, plain, total), many)


def _told(name: str, action: Callable[[], object], many: int) -> None:
    print(f"| {name} | {1000 * statistics.median(seconds(action) for _ in range(many)):.2f} |")


def _arrow(plain: duckdb.DuckDBPyConnection, query: str) -> None:
    plain.sql(query).to_arrow_reader().read_all()


def _plain(connection: sqlml.Connection, many: int) -> None:
    """A plain query, beside DuckDB's own two roads: rows of Python, and Arrow, which is ours."""
    with duckdb.connect() as plain:
        roads: dict[str, Callable[[], object]] = {
            "its rows": lambda: plain.execute("SELECT 1").fetchall(),
            "its Arrow": partial(_arrow, plain, "SELECT 1"),
            "": lambda: connection.execute("SELECT 1").fetchall(),
        }
        turns = [[seconds(road) for road in roads.values()] for _ in range(5 * many)]  # by turns: a machine drifts
        found = {name: statistics.median(turn[i] for turn in turns) for i, name in enumerate(roads)}
    for name in ("its rows", "its Arrow"):
        print(f"| SELECT 1 through the connection, beyond DuckDB's own ({name}) | {1000 * (found[''] - found[name]):.3f} |")
