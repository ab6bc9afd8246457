"""``python -m tests.bench large``: PREDICT … INTO over 1, 5 and 50 million rows: its speed, and whether memory stays flat.

28 numbers a row, 100 trees of depth 6; the database may take ``--memory``, each size has a process of its own.  The ratio is the
time of XGBoost's own predict on a ready array of a million rows, as often as it takes, over that of the whole statement: read,
predict, write all columns.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xgboost

import sqlml
from sqlml.bundles.model import Model
from tests.bench.measuring import Figure, apart, peak_growth, seconds, tell
from tests.bench.predict_road import CORES
from tests.bench.tables import FEATURES

ROWS = (1_000_000, 5_000_000, 50_000_000)
SAMPLE = 1_000_000
"""So many rows are the ready array."""


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench large")
    parser.add_argument("--rows", type=int, action="append", help="of one table; may be given several times")
    parser.add_argument("--memory", default="2GB", help="that DuckDB may take")
    parser.add_argument(
        "--folder", type=Path, help="where the tables lie meanwhile: 50 million rows take 12 GB, and as much again"
    )
    options = parser.parse_args(arguments)
    print("| rows | rows a second | ratio | memory grew by at most, MiB |\n| ---: | ---: | ---: | ---: |")
    for rows in options.rows or ROWS:
        with tempfile.TemporaryDirectory(prefix="sqlml-bench-", dir=options.folder) as folder:
            one = apart("tests.bench.large", ["-", folder, str(rows), options.memory])
        print(f"| {rows:,} | {rows / one.seconds:,.0f} | {one.median:.2f} | {(one.memory or 0) / 2**20:,.0f} |", flush=True)


def measure(folder: Path, rows: int, memory: str) -> None:
    """One size, in this process."""
    with sqlml.connect(folder / "large.duckdb") as connection:
        connection.execute(f"SET memory_limit = '{memory}'")
        connection.execute("SELECT setseed(0.5)").fetchall()
        drawn = ", ".join(f"(random() + random() + random() - 1.5)::FLOAT AS f{i}" for i in range(FEATURES))
        connection.execute(f"CREATE TABLE t AS SELECT i AS id, {drawn} FROM range({rows}) AS r(i)")
        connection.execute(
            "TRAIN MODEL m USING xgboost_classifier TARGET y EXCLUDE (id) SPLIT NONE WITH (n_estimators = 100, max_depth = 6) "
            "AS SELECT *, (f0 * f1 + sin(f2 * 2) + f3 > 0)::INTEGER AS y FROM t LIMIT 100000"
        )
        taken: list[float] = []
        grown = peak_growth(lambda: taken.append(seconds(lambda: connection.execute("PREDICT MODEL m INTO s AS FROM t"))))
        written = connection.execute("SELECT count(*), count(predicted_y) FROM s").fetchone()
        assert written == (rows, rows), written
        row = connection.execute("SELECT bundle FROM sqlml.versions WHERE model = 'm'").fetchone()
        assert row is not None
        booster = _booster(Path(row[0]))
    x = np.random.default_rng(0).random((SAMPLE, FEATURES), np.float32)
    booster.inplace_predict(x)
    bare = seconds(lambda: booster.inplace_predict(x)) * rows / SAMPLE
    figure = Figure("large", "PREDICT INTO", [bare / taken[0]], seconds=taken[0], memory=grown)
    tell(figure)


def _booster(bundle: Path) -> xgboost.Booster:
    predictor = Model.open(bundle).predictor
    booster: xgboost.Booster = predictor.booster  # type: ignore[attr-defined]
    booster.set_param({"nthread": CORES})
    return booster


if __name__ == "__main__":
    _, place, count, limit = sys.argv[1:]
    measure(Path(place), int(count), limit)
