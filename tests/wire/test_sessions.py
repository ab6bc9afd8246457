"""Many sessions at once: each is served, none costs much, the one too many is told so, and what they had is given back."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator

import psutil
import psycopg
import pytest

from tests.wire.places import Place, serving
from tests.wire.served import post
from tests.wire.test_server import startup_packet

pytestmark = pytest.mark.slow

SESSIONS = 80
EACH = 1_000_000
"""So many bytes a session may take that has a temporary table and has called a model."""
Client = psycopg.Connection[tuple[object, ...]]


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Place, psutil.Process]]:
    """A server with a model, and room for so many and one."""
    file = tmp_path_factory.mktemp("crowded") / "bank.duckdb"
    with serving(file, "--max-connections", str(SESSIONS + 1)) as (place, child):
        with connect(place) as client:
            client.execute("CREATE TABLE kept AS SELECT range AS x, (range % 3)::VARCHAR AS y FROM range(2000)")
            client.execute("TRAIN MODEL m USING xgboost_classifier TARGET y WITH (n_estimators = 100) AS FROM kept")
            client.execute("SELECT PREDICT(m) FROM kept LIMIT 1")
        yield place, psutil.Process(child.pid)


def connect(place: Place) -> Client:
    return psycopg.connect(place.conninfo, autocommit=True)


def refusal(place: Place) -> dict[str, str]:
    """The fields of the error that the next client gets."""
    with socket.create_connection((place.host, place.port), 30) as client:
        client.sendall(startup_packet(place.database))
        data = b""
        while piece := client.recv(65536):
            data += piece
    assert data[:1] == b"E"
    [length] = struct.unpack(">I", data[1:5])
    return {field[:1].decode(): field[1:].decode() for field in data[5 : length + 1].split(b"\0") if field}


def wait_until(holds: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_many_at_once(crowded: tuple[Place, psutil.Process]) -> None:
    place, process = crowded
    wait_until(lambda: process.num_threads() < 40)
    memory, files = process.memory_info().rss, process.num_fds()
    with contextlib.ExitStack() as stack:
        witness = stack.enter_context(connect(place))
        clients = [stack.enter_context(connect(place)) for _ in range(SESSIONS)]
        found: list[object] = []
        threads = [threading.Thread(target=lambda c=client: found.append(work(c))) for client in clients]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(100)
        assert found == [(2000, 20)] * SESSIONS
        assert (process.memory_info().rss - memory) / SESSIONS < EACH
        assert process.num_fds() - files <= SESSIONS + 10  # a socket each

        told = refusal(place)
        assert (told["S"], told["C"], told["M"]) == ("FATAL", "53300", "sorry, too many clients already")
        status, answer = post(f"http://{place.host}:{place.port}/sql", {"statement": "SELECT 1"})
        assert (status, answer["error"]["sqlstate"]) == (503, "53300")
        assert witness.execute("SELECT 42").fetchone() == (42,)  # nobody inside notices
        clients[0].close()
        wait_until(lambda: post(f"http://{place.host}:{place.port}/sql", {"statement": "SELECT 1"})[0] == 200)
    wait_until(lambda: process.num_fds() <= files + 10 and process.num_threads() < 40)


def work(client: Client) -> object:
    """A query, some predictions and a write of a session's own."""
    client.execute("CREATE TEMP TABLE own AS FROM kept")
    [(rows,)] = client.execute("SELECT count(*) FROM own").fetchall()
    return rows, len(client.execute("SELECT PREDICT(m) FROM kept LIMIT 20").fetchall())


def test_what_was_opened_in_haste_is_let_in_by_turns(crowded: tuple[Place, psutil.Process]) -> None:
    place, _ = crowded
    clients: list[Client] = []
    threads = [threading.Thread(target=lambda: clients.append(connect(place))) for _ in range(SESSIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100)
    assert [client.execute("SELECT 1").fetchone() for client in clients] == [(1,)] * SESSIONS
    for client in clients:
        client.close()
