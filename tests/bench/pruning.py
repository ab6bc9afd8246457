"""``python -m tests.bench pruning``: what it brings that branches which no row of a chunk reaches are left out.

A model of the mixed table; a table in which one text has the same value throughout, as after ``WHERE t0 = '…'``, beside one in
which every hundredth row has another, so that nothing can be left out.  Raven (https://arxiv.org/abs/1911.00231) prunes so when
it plans.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq

import sqlml
from tests.bench.measuring import seconds
from tests.bench.tables import CATEGORIES, mixed


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench pruning")
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--trees", type=int, default=500)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="sqlml-bench-") as folder, sqlml.connect(Path(folder) / "p.duckdb") as connection:
        file = Path(folder) / "mixed.parquet"
        pq.write_table(mixed(options.rows), file)
        connection.execute(f"CREATE TABLE mixed AS FROM '{file}'")
        connection.execute(
            f"TRAIN MODEL m USING xgboost_classifier TARGET y EXCLUDE (id) SPLIT NONE WITH (n_estimators = {options.trees}) "
            "AS FROM mixed"
        )
        print(f"{options.trees} trees, {options.rows:,} rows, SELECT sum(PREDICT_PROBA(m, 1)), median of {options.runs}\n")
        print("| the column that has one value | as fast as with another in every hundredth row |\n| --- | ---: |")
        columns = [(f"t{number}", f"a text of {count:,} values") for number, count in enumerate(CATEGORIES)]
        for column, shown in columns:
            tables = {"fixed": "'value 00001'", "nearly": "if(id % 100 = 0, 'value 00002', 'value 00001')"}
            for table, value in tables.items():
                connection.execute(f"CREATE OR REPLACE TABLE {table} AS SELECT * REPLACE ({value} AS {column}) FROM mixed")
            ratios = [_scored(connection, "nearly") / _scored(connection, "fixed") for _ in range(options.runs + 1)][1:]
            print(f"| {shown} | {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) |", flush=True)


def _scored(connection: sqlml.Connection, table: str) -> float:
    return seconds(lambda: connection.execute(f"SELECT sum(PREDICT_PROBA(m, 1)) FROM {table}").fetchall())
