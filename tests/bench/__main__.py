"""``python -m tests.bench``: what SQL costs beside the library alone, measured side by side in one run.

1.00 is the library's own predict (or train) on a float32 array that is already in memory, all cores, in this process; higher is
faster.  The median of several runs, with the smallest and the largest; one warm-up run first.

``python -m tests.bench mlp …`` and the other ``SECTIONS`` are measurements of their own.
"""

from __future__ import annotations

import argparse
import importlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import xgboost as xgb

import sqlml

FEATURES = 28
SECTIONS = ("extraction", "gpu", "mlp", "postgres_functions")
"""Modules beside this one, each with a ``main(arguments)``."""


def main() -> None:
    if sys.argv[1:2] and sys.argv[1] in SECTIONS:
        importlib.import_module(f"tests.bench.{sys.argv[1]}").main(sys.argv[2:])
        return
    parser = argparse.ArgumentParser(prog="python -m tests.bench")
    parser.add_argument("--rows", type=int, default=500_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--trees", type=int, default=100)
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sqlml-bench-") as folder:
        figures = run(Path(folder), options.rows, options.trees, options.runs)
    print(f"{options.rows:,} rows of {FEATURES} floats, {options.trees} trees of depth 6")
    print(f"median of {options.runs} (smallest to largest)")
    for name, ratios in figures.items():
        print(f"  {name:42} {statistics.median(ratios):5.2f}  ({min(ratios):.2f} to {max(ratios):.2f})")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1), encoding="utf-8")


def run(folder: Path, rows: int, trees: int, runs: int) -> dict[str, list[float]]:
    """Ratio by ratio, pair by pair, so that a drifting machine speed cancels out."""
    x, y = make_data(rows)
    with sqlml.connect(folder / "bench.duckdb") as connection:
        load_table(connection, x, y)
        options = f"WITH (n_estimators = {trees}, max_depth = 6)"
        train = f"TRAIN MODEL m USING xgboost_classifier TARGET y SPLIT NONE {options} AS FROM t"
        connection.execute(train)
        booster = bare_train(x, y, trees)
        bare_predict = lambda: booster.inplace_predict(x)  # noqa: E731
        roads: dict[str, Callable[[], object]] = {
            "SELECT sum(PREDICT_PROBA(m, 1))": lambda: fetch(connection, "SELECT sum(PREDICT_PROBA(m, 1)) FROM t"),
            "SELECT PREDICT_PROBA(m, 1), as Arrow": lambda: connection.execute(
                "SELECT PREDICT_PROBA(m, 1) FROM t"
            ).fetch_arrow_table(),
            "CREATE TABLE AS SELECT PREDICT_PROBA": lambda: connection.execute(
                "CREATE OR REPLACE TABLE s AS SELECT f0, PREDICT_PROBA(m, 1) AS p FROM t"
            ),
            "PREDICT MODEL m INTO s REPLACE": lambda: connection.execute("PREDICT MODEL m INTO s REPLACE AS FROM t"),
        }
        figures = {name: compare(bare_predict, road, runs) for name, road in roads.items()}
        figures["TRAIN (whole statement)"] = compare(
            lambda: bare_train(x, y, trees), lambda: connection.execute(train), max(2, runs // 2)
        )
    return figures


def compare(bare: Callable[[], object], road: Callable[[], object], runs: int) -> list[float]:
    """The bare library's time over the road's, for each pair of runs."""
    seconds(bare), seconds(road)
    return [seconds(bare) / seconds(road) for _ in range(runs)]


def seconds(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def make_data(rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Different rows throughout: repeated ones would let the processor learn the trees' branches."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((rows, FEATURES), dtype=np.float32)
    y = (x[:, 0] * x[:, 1] + np.sin(x[:, 2] * 2) + x[:, 3] + rng.standard_normal(rows) > 0).astype(np.int64)
    return x, y


def load_table(connection: sqlml.Connection, x: np.ndarray, y: np.ndarray) -> None:
    """The rows as a table of the database, by way of a Parquet file."""
    import pyarrow.parquet as pq

    table = pa.table({f"f{i}": x[:, i] for i in range(FEATURES)} | {"y": y})
    with tempfile.NamedTemporaryFile(suffix=".parquet") as file:
        pq.write_table(table, file.name)
        connection.execute(f"CREATE TABLE t AS FROM '{file.name}'")


def bare_train(x: np.ndarray, y: np.ndarray, trees: int) -> xgb.Booster:
    return xgb.train({"objective": "binary:logistic", "max_depth": 6, "tree_method": "hist"}, xgb.QuantileDMatrix(x, y), trees)


def fetch(connection: sqlml.Connection, query: str) -> object:
    return connection.execute(query).fetchall()


if __name__ == "__main__":
    main()
