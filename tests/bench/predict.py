"""``python -m tests.bench predict``: what scoring a table costs beside the library's own predict on a ready float32 array.

1.00 is that array's prediction with all cores, in the same process, run by turns with the road; higher is faster.  Each road has
a process of its own, which also tells how much memory its first run took.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import sqlml
from tests.bench.measuring import Figure, apart, as_json, markdown
from tests.bench.predict_road import PEERS, ROADS
from tests.bench.tables import load_table

CASES = {
    "floats 100 trees": ("floats", "USING xgboost_classifier", "n_estimators = 100, max_depth = 6"),
    "floats 500 trees": ("floats", "USING xgboost_classifier", "n_estimators = 500, max_depth = 6"),
    "floats linear": ("floats", "USING logistic_regression", ""),
    "floats mlp": ("floats", "USING mlp_classifier", "hidden = [64, 64], max_epochs = 1"),
    "mixed 100 trees": ("mixed", "USING xgboost_classifier", "n_estimators = 100, max_depth = 6"),
    "mixed 500 trees": ("mixed", "USING xgboost_classifier", "n_estimators = 500, max_depth = 6"),
}
"""The table, the algorithm, its options."""
QUICK = ("floats 100 trees", "mixed 100 trees")
TRAIN_ROWS = 100_000
"""So many rows are enough to grow the trees of."""


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench predict")
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--case", action="append", choices=CASES, help="only these")
    parser.add_argument("--road", action="append", choices=[*ROADS, *PEERS], help="only these")
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    options = parser.parse_args(arguments)
    figures = measure(options.rows, options.runs, options.case or list(CASES), options.road)
    print(f"\n{options.rows:,} rows, median of {options.runs}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n")
    print(markdown(figures))
    if options.json:
        options.json.write_text(as_json(figures), encoding="utf-8")


def measure(rows: int, runs: int, cases: Sequence[str], roads: Sequence[str] | None = None) -> list[Figure]:
    """Every road of every case."""
    found = []
    with tempfile.TemporaryDirectory(prefix="sqlml-bench-") as folder:
        prepare(Path(folder), rows, cases)
        for case in cases:
            for road in roads or [*ROADS, *PEERS]:
                table = CASES[case][0]
                figure = apart("tests.bench.predict_road", [folder, case, table, road, str(runs)])
                found.append(figure)
                print(f"  {case}: {road}: {figure.skipped or f'{figure.median:.2f}'}", flush=True)
    return found


def prepare(folder: Path, rows: int, cases: Sequence[str]) -> None:
    """The tables, and a model of each case."""
    with sqlml.connect(folder / "bench.duckdb") as connection:
        for table in dict.fromkeys(CASES[case][0] for case in cases):
            load_table(connection, table, rows, folder)
        for case in cases:
            table, using, options = CASES[case]
            given = f"WITH ({options})" if options else ""
            connection.execute(
                f"TRAIN MODEL {model_of(case)} {using} TARGET y EXCLUDE (id) SPLIT NONE {given} "
                f"AS FROM {table} WHERE id < {TRAIN_ROWS}"
            )


def model_of(case: str) -> str:
    """The name of a case's model."""
    return case.replace(" ", "_")
