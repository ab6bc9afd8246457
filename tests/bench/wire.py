"""``python -m tests.bench wire``: rows to PostgreSQL's clients, beside a real PostgreSQL with the same rows.

Each road is read to its end, turn by turn from both servers: rows a second by the clock, and the microseconds of processor that
the server spent on a row (the client's are not counted).  ``raw`` reads the socket and looks at nothing, so what it shows is the
server.  PostgreSQL listens on a Unix socket, sqlml on TCP, which costs it a little.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import psutil
import psycopg

from tests.wire.places import USER, Place, both

TABLE = """
CREATE TABLE wide AS SELECT x::int AS i, x::bigint * 7919 AS b, sin(x) * 1000 AS d, 'row ' || x AS w,
    timestamp '2026-01-01' + x * interval '1500 milliseconds' AS t FROM generate_series(1, %d) AS rows(x)
"""
COLUMNS = {"all": "i, b, d, w, t", "int": "i", "bigint": "b", "double": "d", "text": "w", "timestamp": "t"}
Road = Callable[[Place, str], None]


@dataclass(frozen=True)
class Cost:
    """Of one run: seconds by the clock, and of the server's processor."""

    clock: float
    work: float


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench wire")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--roads", nargs="*", default=list(ROADS), choices=list(ROADS))
    parser.add_argument("--columns", nargs="*", default=["all"], choices=list(COLUMNS))
    options = parser.parse_args(arguments)
    print(f"{options.rows:,} rows, median of {options.runs}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    print(
        f"{'road':16} {'columns':10} {'rows/s':>12} {'PostgreSQL':>12} {'ratio':>6}   "
        f"{'us a row':>8} {'PostgreSQL':>10} {'ratio':>6}"
    )
    with both() as places:
        for place in places:
            with psycopg.connect(place.conninfo, autocommit=True) as connection:
                connection.execute((TABLE % options.rows).encode())
        for name in options.roads:
            for columns in options.columns:
                query = f"SELECT {COLUMNS[columns]} FROM wide"
                print(
                    line(f"{name:16} {columns:10}", *compare(places, ROADS[name], query, options.runs), options.rows), flush=True
                )


def line(head: str, ours: Cost, theirs: Cost, rows: int) -> str:
    """One line: a ratio above 1 is in our favour."""
    return (
        f"{head} {rows / ours.clock:12,.0f} {rows / theirs.clock:12,.0f} {theirs.clock / ours.clock:6.2f}   "
        f"{ours.work / rows * 1e6:8.3f} {theirs.work / rows * 1e6:10.3f} {theirs.work / ours.work:6.2f}"
    )


def compare(places: tuple[Place, Place], road: Road, query: str, runs: int) -> tuple[Cost, Cost]:
    """The median cost of each server, after a run that warms it up."""
    found: tuple[list[Cost], list[Cost]] = ([], [])
    for turn in range(runs + 1):
        for place, costs in zip(places, found, strict=True):
            cost = measure(place, road, query)
            if turn:
                costs.append(cost)
    ours, theirs = (Cost(statistics.median(c.clock for c in costs), statistics.median(c.work for c in costs)) for costs in found)
    return ours, theirs


def measure(place: Place, road: Road, query: str) -> Cost:
    """One run.  PostgreSQL has a process for each client, which ends with it: they all are asked while it is there."""
    before, start = server_seconds(place), time.perf_counter()
    road(place, query)
    clock = time.perf_counter() - start
    return Cost(clock, server_seconds(place) - before)


def server_seconds(place: Place) -> float:
    """What the server's processes have worked, those that have ended too."""
    server = server_process(place)
    while True:
        try:
            return _worked(server, with_children=place.host.startswith("/"))
        except psutil.NoSuchProcess:  # one has ended while it was asked: it counts as its parent's now
            continue


def _worked(server: psutil.Process, *, with_children: bool) -> float:
    times = server.cpu_times()
    total = float(times.user + times.system)
    if with_children:
        total += times.children_user + times.children_system
        for child in server.children():
            own = child.cpu_times()
            total += own.user + own.system
    return total


def server_process(place: Place) -> psutil.Process:
    """Who listens: PostgreSQL's pid file tells, or the port."""
    if place.host.startswith("/"):
        with psycopg.connect(place.conninfo) as connection:
            [pid] = connection.execute("SELECT pg_read_file('postmaster.pid', 0, 12)").fetchone() or ("",)
        return psutil.Process(int(str(pid).split()[0]))
    listening = (
        c for c in psutil.net_connections("tcp") if c.laddr and c.laddr[1] == place.port and c.status == psutil.CONN_LISTEN
    )
    return psutil.Process(next(listening).pid)


# --- the roads --------------------------------------------------------------------------------------------------------


def raw(place: Place, query: str) -> None:
    """Bytes from the socket until the server is ready again."""
    with connected(place) as client:
        body = struct.pack(">I", 3 << 16) + f"user\0{USER}\0database\0{place.database}\0\0".encode()
        client.sendall(struct.pack(">I", len(body) + 4) + body)
        drain(client)
        text = query.encode() + b"\0"
        client.sendall(b"Q" + struct.pack(">I", len(text) + 4) + text)
        drain(client)


def connected(place: Place) -> socket.socket:
    """A socket to the server."""
    if not place.host.startswith("/"):
        return socket.create_connection((place.host, place.port))
    client = socket.socket(socket.AF_UNIX)
    client.connect(f"{place.host}/.s.PGSQL.{place.port}")
    return client


def drain(client: socket.socket) -> None:
    buffer, tail = bytearray(1 << 18), b""
    while tail != b"Z\0\0\0\5I":
        count = client.recv_into(buffer)
        assert count, "the server has gone"
        tail = (tail + bytes(buffer[max(0, count - 6) : count]))[-6:]


def raw_copy(place: Place, query: str) -> None:
    raw(place, f"COPY ({query}) TO STDOUT")


def raw_copy_binary(place: Place, query: str) -> None:
    raw(place, f"COPY ({query}) TO STDOUT (FORMAT binary)")


def psycopg_text(place: Place, query: str) -> None:
    """The rows as libpq holds them, and none of them as an object of Python."""
    with psycopg.connect(place.conninfo, autocommit=True) as connection:
        connection.execute(query.encode())


def psycopg_binary(place: Place, query: str) -> None:
    with psycopg.connect(place.conninfo, autocommit=True) as connection:
        connection.cursor(binary=True).execute(query.encode())


def psycopg_rows(place: Place, query: str) -> None:
    """As objects of Python."""
    with psycopg.connect(place.conninfo, autocommit=True) as connection:
        connection.execute(query.encode()).fetchall()


ROADS: dict[str, Road] = {
    "raw": raw, "raw copy": raw_copy, "raw copy binary": raw_copy_binary, "libpq": psycopg_text, "libpq binary": psycopg_binary,
    "psycopg": psycopg_rows,
}  # fmt: skip
