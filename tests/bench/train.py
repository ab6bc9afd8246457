"""``python -m tests.bench train``: what TRAIN costs beside XGBoost alone on a ready float32 array (QuantileDMatrix and train).

The statement is whole: its query, the canonical order of the rows, the fit with the figure of each round, the figures, the
bundle, in a process of its own; 1.00 is the bare time, higher is faster.  The memory is the largest that the process which trains
ever had, over the features as float32; the run that it is measured in warms up.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import xgboost

import sqlml
from tests.bench.measuring import Figure, apart, as_json, compare, markdown, peak_growth, tell
from tests.bench.tables import FEATURES, load_table, make_data

ROADS = ("bare", "pandas", "TRAIN", "TRAIN from Parquet", "TRAIN ON inline")


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench train")
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--trees", type=int, default=100)
    parser.add_argument("--road", action="append", choices=ROADS, help="only these")
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    options = parser.parse_args(arguments)
    figures = measure(options.rows, options.runs, trees=options.trees, roads=options.road)
    print(f"\n{options.rows:,} rows, median of {options.runs}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n")
    print(markdown(figures))
    if options.json:
        options.json.write_text(as_json(figures), encoding="utf-8")


def measure(rows: int, runs: int, *, trees: int = 100, quick: bool = False, roads: Sequence[str] | None = None) -> list[Figure]:
    """Every road."""
    found = []
    with tempfile.TemporaryDirectory(prefix="sqlml-bench-") as folder:
        with sqlml.connect(Path(folder) / "bench.duckdb") as connection:
            load_table(connection, "floats", rows, Path(folder))
        for road in roads or (("pandas", "TRAIN") if quick else ROADS):
            figure = apart("tests.bench.train", [folder, road, str(rows), str(trees), str(runs)])
            found.append(figure)
            print(f"  training: {road}: {figure.median:.2f}", flush=True)
    return found


def one_road(folder: Path, road: str, rows: int, trees: int, runs: int) -> None:
    """In a process of its own."""
    with sqlml.connect(folder / "bench.duckdb") as connection:
        action = _action(connection, folder, road, rows, trees)
        grown = peak_growth(action)
        size = rows * FEATURES * 4
        figure = Figure(f"training, {trees} trees", road, memory=None if grown is None else grown / size)
        if road.startswith("TRAIN") and "inline" not in road:
            row = connection.execute("SELECT max(peak_memory) FROM sqlml.versions").fetchone()
            figure.memory = None if row is None or row[0] is None else int(row[0]) / size
        x, y = make_data(rows)
        fit(x[:1000], y[:1000], 1)
        tell(compare(figure, lambda: fit(x, y, trees), action, runs, warm=True))


def _action(connection: sqlml.Connection, folder: Path, road: str, rows: int, trees: int) -> Callable[[], object]:
    if road == "bare":
        return lambda: fit(*make_data(rows), trees)
    if road == "pandas":
        return lambda: _pandas(connection, trees)
    table = f"'{folder / 'floats.parquet'}'" if "Parquet" in road else "floats"
    runner = "ON inline" if "inline" in road else ""
    return lambda: connection.execute(
        f"TRAIN MODEL m USING xgboost_classifier TARGET y EXCLUDE (id) SPLIT NONE "
        f"WITH (n_estimators = {trees}, max_depth = 6) {runner} AS FROM {table}"
    )


def _pandas(connection: sqlml.Connection, trees: int) -> xgboost.Booster:
    frame = connection.execute("FROM floats").fetch_arrow_table().to_pandas()
    return fit(frame.drop(columns=["id", "y"]), frame["y"], trees)


def fit(x: object, y: object, trees: int) -> xgboost.Booster:
    """The library alone."""
    settings = {"objective": "binary:logistic", "max_depth": 6, "tree_method": "hist"}
    return xgboost.train(settings, xgboost.QuantileDMatrix(x, np.asarray(y)), trees)


if __name__ == "__main__":
    one_road(Path(sys.argv[1]), sys.argv[2], *(int(word) for word in sys.argv[3:6]))
