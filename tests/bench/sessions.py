"""``python -m tests.bench sessions``: what a session of ``sqlml serve`` costs, in memory and time; and a statement over HTTP.

So many clients of PostgreSQL's protocol are open at once, on one server; first they ask by turns, then all at the same time.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import psycopg

from tests.wire.places import Place, serving

SETUP = (
    "CREATE TABLE kept AS SELECT range AS x, (range % 3)::VARCHAR AS y FROM range(2000)",
    "TRAIN MODEL m USING xgboost_classifier TARGET y AS FROM kept",
    "SELECT PREDICT(m) FROM kept LIMIT 1",
)
STATEMENTS = ("SELECT 42 AS a", "SELECT count(*) FROM kept", "SELECT PREDICT(m) FROM kept LIMIT 1")
Client = psycopg.Connection[tuple[object, ...]]


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench sessions")
    parser.add_argument("--sessions", type=int, default=200)
    parser.add_argument("--requests", type=int, default=200)
    options = parser.parse_args(arguments)
    print(
        f"{options.sessions} sessions, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; milliseconds: median, 99th of 100"
    )
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "bank.duckdb"
        with serving(file, "--max-connections", str(options.sessions + 1)) as (place, child):
            threading.Thread(target=_read_log, args=(child.stdout,), daemon=True).start()
            with _connect(place) as first:
                for statement in SETUP:
                    first.execute(statement.encode())
            process = psutil.Process(child.pid)
            by_wire(place, process, options.sessions)
            by_http(place, options.requests)


def by_wire(place: Place, process: psutil.Process, sessions: int) -> None:
    """Sessions opened one after the other, and what they ask."""
    tell("a server with nobody", "", process)
    clients: list[Client] = []
    tell("opened", timed(lambda _: clients.append(_connect(place)), range(sessions)), process)
    for statement in STATEMENTS:
        for when in ("first", "again"):
            found = timed(lambda client, text=statement: client.execute(text.encode()).fetchall(), clients)
            tell(f"{when}: {statement}", found, process)
    seconds: list[float] = []
    started = time.perf_counter()
    threads = [threading.Thread(target=_ask_all, args=(client, seconds)) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rate = len(seconds) / (time.perf_counter() - started)
    tell("all of them at once", f"{shown(seconds)}   {rate:,.0f} statements/s", process)
    for client in clients:
        client.close()
    time.sleep(20)
    tell("20 s after they have left", "", process)


def by_http(place: Place, requests: int) -> None:
    """Requests one after the other, each with a session of its own."""
    connection = http.client.HTTPConnection(place.host, place.port)

    def ask(statement: str) -> None:
        body = json.dumps({"statement": statement})
        connection.request("POST", "/sql", body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        assert response.status == 200, response.read()
        response.read()

    for statement in STATEMENTS:
        print(f"{'HTTP: ' + statement:46} {timed(ask, [statement] * requests)}")
    connection.close()


def timed(work: Callable[..., object], items: object) -> str:
    """Do it for each; how long one takes."""
    seconds = []
    for item in items:  # type: ignore[attr-defined]
        started = time.perf_counter()
        work(item)
        seconds.append(time.perf_counter() - started)
    return shown(seconds)


def shown(seconds: list[float]) -> str:
    return f"{statistics.median(seconds) * 1000:8.1f} {sorted(seconds)[int(len(seconds) * 0.99)] * 1000:8.1f}"


def tell(what: str, figures: str, process: psutil.Process) -> None:
    """A line, with what the server holds."""
    held = f"{process.memory_info().rss >> 20} MB, {process.num_threads()} threads, {process.num_fds()} files"
    print(f"{what:46} {figures:17}   {held}", flush=True)


def _ask_all(client: Client, seconds: list[float]) -> None:
    for statement in STATEMENTS:
        started = time.perf_counter()
        client.execute(statement.encode()).fetchall()
        seconds.append(time.perf_counter() - started)


def _connect(place: Place) -> Client:
    return psycopg.connect(place.conninfo, autocommit=True)


def _read_log(log: object) -> None:
    for _ in log:  # type: ignore[attr-defined]
        continue
