"""``python -m tests.bench extraction``: how long PostgreSQL's rows take to be an Arrow file, and in how much memory.

1.00 is the time of psycopg's raw binary COPY of the same table, whose bytes are counted and thrown away, side by side in one run;
higher is slower.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil
import psycopg
import pyarrow as pa

from sqlml.engines.postgres.engine import PostgresEngine
from tests.servers import new_postgres

COLUMNS = [
    *(f"((i::bigint * {k}7919) % 100003 / 7.0)::float8 AS f{k}" for k in range(12)),
    *(f"(i * {k}) % 1000 AS n{k}" for k in range(1, 7)),
    *(f"'word' || (i * {k}) % 50 AS t{k}" for k in range(1, 5)),
    "CASE WHEN i % 7 > 0 THEN i::bigint END AS some",
    "((i % 10000) / 100.0)::numeric(10,2) AS exact",
    "(i % 777 / 10.0)::real AS short",
    "i % 3 = 0 AS yes",
    "date '1990-01-01' + i % 9000 AS day",
    "timestamp '2000-01-01' + i * interval '1 minute' AS at",
    "timestamptz '2000-01-01' + i * interval '1 s' AS tz",
    "i AS id",
]
"""30 columns of the types that tables have."""


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench extraction")
    parser.add_argument("--rows", type=int, default=500_000)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args(arguments)
    for url in new_postgres():
        measure(url, options.rows, options.runs)


def measure(url: str, rows: int, runs: int) -> None:
    engine = PostgresEngine.open(url)
    engine.run(f"CREATE TABLE t AS SELECT {', '.join(COLUMNS)} FROM generate_series(1, {rows}) AS i")
    engine.run("VACUUM ANALYZE t")
    with psycopg.connect(url, autocommit=True) as raw, tempfile.TemporaryDirectory(prefix="sqlml-bench-") as folder:
        file = Path(folder) / "rows.arrow"
        for factor in (1, 4):
            with peak_growth() as most:
                extract(engine, f"SELECT t.* FROM t, generate_series(1, {factor})", file)
            print(f"  memory grew by at most {most[0] / 2**20:.0f} MiB for {rows * factor:,} rows")
        pairs = [(seconds(lambda: extract(engine, "TABLE t", file)), seconds(lambda: copy_raw(raw))) for _ in range(runs + 1)][1:]
        ratios = [ours[0] / bare[0] for ours, bare in pairs]
        processor = [ours[1] / bare[0] for ours, bare in pairs]
        print(f"{rows:,} rows of {len(COLUMNS)} columns, median of {runs} (smallest to largest); load {os.getloadavg()[0]:.1f}")
        show("time over a raw COPY's", ratios)
        show("of that, our own processor's", processor)
        show("seconds of the raw COPY", [bare[0] for _, bare in pairs])
        back, inside = seconds(lambda: write_back(engine))[0], seconds(lambda: copy_inside(engine))[0]
        print(f"  read and written back: {back:.2f} s; CREATE TABLE AS of the same: {inside:.2f} s")
    engine.close()


def show(name: str, figures: Sequence[float]) -> None:
    print(f"  {name:42} {statistics.median(figures):5.2f}  ({min(figures):.2f} to {max(figures):.2f})")


def seconds(action: Callable[[], object]) -> tuple[float, float]:
    """How long something takes by the clock, and how long of that this process's processor was at work."""
    start, work = time.perf_counter(), time.process_time()
    action()
    return time.perf_counter() - start, time.process_time() - work


def write_back(engine: PostgresEngine) -> None:
    """Read a table and write it, as PREDICT INTO does."""
    stream = engine.run("TABLE t")
    engine.write(["written"], stream.schema, stream.batches, "replace")


def copy_inside(engine: PostgresEngine) -> None:
    """The same without leaving the server."""
    engine.run("CREATE TABLE inside AS TABLE t")


def copy_raw(connection: psycopg.Connection) -> int:
    """The bytes of the table as the server sends them."""
    with connection.cursor().copy("COPY t TO STDOUT (FORMAT binary)") as copy:
        return sum(len(data) for data in copy)


def extract(engine: PostgresEngine, query: str, file: Path) -> None:
    """The rows of a query as an Arrow file, batch by batch."""
    stream = engine.run(query)
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, stream.schema) as writer:
        for batch in stream.batches:
            writer.write_batch(batch)


@contextmanager
def peak_growth() -> Iterator[list[int]]:
    """By how many bytes this process grows at most while the block runs."""
    process = psutil.Process()
    before, most, done = process.memory_info().rss, [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.01):
            most[0] = max(most[0], process.memory_info().rss - before)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield most
    finally:
        done.set()
        thread.join()
