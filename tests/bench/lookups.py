"""``python -m tests.bench lookups``: a row by its key from LMDB, SQLite, DuckDB; an expression by its formula and by a SELECT."""

from __future__ import annotations

import argparse
import random
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import duckdb
import lmdb
import msgspec
import numpy as np
import pyarrow as pa

from sqlml.composition.copies import Copy, copy_path, key_bytes, write_copy
from sqlml.composition.formulas import evaluate, make_formula
from sqlml.features.database import select_rows
from sqlml.plan import InputColumn
from sqlml.types import Kind

ID = InputColumn("id", "BIGINT", Kind.NUMBER)
COLUMNS = (
    InputColumn("balance", "DOUBLE", Kind.NUMBER),
    InputColumn("job", "VARCHAR", Kind.TEXT),
    InputColumn("owns", "BOOLEAN", Kind.BOOLEAN),
    InputColumn("days", "INTEGER", Kind.NUMBER),
    InputColumn("debt", "DOUBLE", Kind.NUMBER),
    InputColumn("rate", "DOUBLE", Kind.NUMBER),
    InputColumn("branch", "BIGINT", Kind.NUMBER),
    InputColumn("note", "VARCHAR", Kind.TEXT),
)


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench lookups")
    parser.add_argument("--rows", type=int, default=300_000)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="sqlml-bench-") as folder:
        run(Path(folder), options.rows)
    run_formula()


def run(folder: Path, rows: int) -> None:
    began = time.perf_counter()
    batch = make_batch(rows)
    path = copy_path(folder, "bench")
    info = write_copy(path, "bench", [ID], COLUMNS, [batch])
    print(f"{rows:,} rows written in {time.perf_counter() - began:.1f} s, {info.bytes / rows:.0f} bytes a row")
    keys = random.Random(0).sample(range(rows), min(rows, 2000))
    decode = msgspec.msgpack.Decoder().decode
    environment = lmdb.open(str(path), subdir=False, readonly=True, lock=False)
    figure("LMDB", lambda key: decode(raw(environment, key)), keys)
    database = sqlite(folder / "bench.db", environment)
    figure("SQLite, mapped", lambda key: decode(by_key(database, key_bytes([key]))), keys)
    database.close()
    memory = duckdb.connect(config={"threads": 1})
    memory.register("batch", pa.table(batch))
    memory.execute("CREATE TABLE t AS FROM batch")
    memory.execute("CREATE UNIQUE INDEX k ON t (id)")
    figure("DuckDB in memory, indexed", lambda key: memory.execute("FROM t WHERE id = ?", [key]).fetchone(), keys[:300])
    memory.close()
    environment.close()
    find = Copy(path).find
    figure("LMDB, as Arrow arrays (Copy)", lambda key: find([ID], [pa.array([float(key)])], COLUMNS), keys)


def make_batch(rows: int) -> pa.RecordBatch:
    numbers = np.arange(rows)
    columns: list[Any] = [numbers, numbers * 0.5, [f"technician{i % 50}" for i in range(rows)], numbers % 2 == 0, numbers % 100]
    columns += [numbers * 0.25, np.full(rows, 3.25), numbers, ["x" * 20] * rows]
    return pa.record_batch([pa.array(column) for column in columns], names=[ID.name, *(c.name for c in COLUMNS)])


def raw(environment: lmdb.Environment, key: int) -> bytes:
    with environment.begin() as transaction:
        return bytes(transaction.get(key_bytes([key])) or b"")


def sqlite(path: Path, environment: lmdb.Environment) -> sqlite3.Connection:
    """The same keys and rows in a file of SQLite's, opened as fast as it can be read."""
    with sqlite3.connect(path) as made, environment.begin() as transaction:
        made.execute("CREATE TABLE t (k BLOB PRIMARY KEY, v BLOB) WITHOUT ROWID")
        made.executemany("INSERT INTO t VALUES (?, ?)", transaction.cursor())
    made.close()
    opened = sqlite3.connect(f"file:{path}?immutable=1", uri=True)
    opened.execute("PRAGMA mmap_size = 1000000000")
    return opened


def by_key(database: sqlite3.Connection, key: bytes) -> bytes:
    found = database.execute("SELECT v FROM t WHERE k = ?", (key,)).fetchone()
    return bytes(found[0])


def run_formula() -> None:
    sql, types = "0.6 * a + 0.4 * b", {"a": "DOUBLE", "b": "DOUBLE"}
    formula = make_formula(sql, types)
    if formula is None:
        raise SystemExit(f"{sql} has no formula")
    columns = {"a": np.array([0.25]), "b": np.array([0.75])}
    rows = pa.table(columns)
    print(sql)
    figure("formula", lambda _: evaluate(formula, columns, 1), range(2000))
    figure("SELECT", lambda _: select_rows(f"SELECT {sql} FROM __rows", rows), range(300))


def figure(name: str, action: Callable[[int], object], keys: Sequence[int]) -> None:
    seconds = []
    for key in keys:
        began = time.perf_counter()
        action(key)
        seconds.append(time.perf_counter() - began)
    ranked = sorted(seconds)
    print(f"  {name:30} median {statistics.median(seconds) * 1e6:7.1f} µs   p99 {ranked[int(len(ranked) * 0.99)] * 1e6:7.1f} µs")
