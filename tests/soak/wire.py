"""Wrong bytes at the socket of ``sqlml serve``, from several attackers at once, and two hundred sessions at once, in rounds: it
neither falls nor grows, and a client that behaves is served all the while.
"""

from __future__ import annotations

import random
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import psutil
import psycopg

from sqlml.wire.server import TIDY_SECONDS
from tests.wire.places import Place, serving
from tests.wire.test_server import odd_message, startup_packet

ATTACKERS = 4
SESSIONS = 200
ROUNDS = 5
RESTING = 40
"""Threads of a server that does nothing: its own, DuckDB's, and those of one client or two."""
GROWTH = 24 << 20
"""So much more memory may be held after any round than after the first, which fills pools and caches."""


def run(messages: int, seed: int) -> int:
    """Send so many messages, and as often open many sessions; how many things went wrong."""
    with (
        tempfile.TemporaryDirectory() as folder,
        serving(Path(folder) / "bank.duckdb", "--max-connections", str(SESSIONS + 1)) as (place, child),
    ):
        threading.Thread(target=_read_log, args=(child,), daemon=True).start()
        process = psutil.Process(child.pid)
        held: list[int] = []
        with psycopg.connect(place.conninfo, autocommit=True) as witness:
            witness.execute("CREATE TABLE kept AS SELECT range AS x FROM range(1000)")
            witness.execute("TRAIN MODEL m USING xgboost_regressor TARGET y AS SELECT x, sin(x / 100) AS y FROM kept")
            for number in range(ROUNDS):
                _attack(place, messages // ROUNDS, seed + number, witness)
                _at_rest(process)
                _sessions(place)
                held.append(_at_rest(process))
            failures = int(witness.execute("SELECT sum(x) FROM kept").fetchone() != (499_500,))
        print(f"wire: {messages:,} messages and {SESSIONS} sessions, in {ROUNDS} rounds")
        print(f"wire: memory after each: {' '.join(str(size >> 20) for size in held)} MB; {process.num_fds()} files open")
        return failures + int(max(held[1:]) - held[0] > GROWTH) + int(child.poll() is not None)


def _read_log(child: subprocess.Popen[str]) -> None:
    """A log that nobody reads would fill its pipe, and hold the server up."""
    for _ in child.stdout or ():
        continue


def _at_rest(process: psutil.Process) -> int:
    """The server's memory once the clients' threads have ended and what they had was given back."""
    deadline = time.monotonic() + 60
    while process.num_threads() > RESTING and time.monotonic() < deadline:
        time.sleep(0.5)
    time.sleep(TIDY_SECONDS + 1)
    return int(process.memory_info().rss)


def _attack(place: Place, messages: int, seed: int, witness: psycopg.Connection[tuple[object, ...]] | None = None) -> None:
    threads = [
        threading.Thread(target=_send, args=(place, messages // ATTACKERS, random.Random(seed + number)))
        for number in range(ATTACKERS)
    ]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        if witness is not None:
            witness.execute("SELECT count(*) FROM kept WHERE x > %s", (5,)).fetchone()
        threads[0].join(0.1)
    for thread in threads:
        thread.join()


def _send(place: Place, messages: int, rng: random.Random) -> None:
    left = messages
    while left > 0:
        burst = min(left, rng.randrange(1, 60))
        left -= burst
        try:
            with socket.create_connection((place.host, place.port), timeout=30) as attacker:
                attacker.sendall(startup_packet(place.database) if rng.random() < 0.9 else rng.randbytes(40))
                for _ in range(burst):
                    attacker.sendall(odd_message(rng))
        except OSError:  # the server has ended it, as it may
            continue


def _sessions(place: Place) -> None:
    """As many as there is room for, which all ask at once; the next is refused."""
    held = [psycopg.connect(place.conninfo, autocommit=True) for _ in range(SESSIONS)]
    answered: list[bool] = []
    threads = [threading.Thread(target=lambda one=one: answered.append(_asks(one))) for one in held]
    for thread in threads:
        thread.start()
    assert _is_refused(place)
    for thread in threads:
        thread.join()
    assert answered == [True] * SESSIONS
    for one in held:
        one.close()


def _asks(client: psycopg.Connection[tuple[object, ...]]) -> bool:
    [(predicted,)] = client.execute("SELECT count(PREDICT(m)) FROM kept").fetchall()
    return (predicted,) == client.execute("SELECT count(*) FROM kept").fetchone() == (1000,)


def _is_refused(place: Place) -> bool:
    try:
        psycopg.connect(place.conninfo).close()
    except psycopg.OperationalError as error:
        return "too many clients" in str(error)
    return False
