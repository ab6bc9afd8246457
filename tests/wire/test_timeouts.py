"""Clients that are too slow, or say nothing: how long they may, and what they are told; where PostgreSQL has it, as there."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from sqlml.wire.server import WireOptions, WireServer
from tests.wire.places import Place
from tests.wire.served import head_of
from tests.wire.test_server import startup_packet

pytestmark = pytest.mark.slow

ENDLESS = "SELECT count(*) FROM generate_series(1, 1000000) a(x), generate_series(1, 1000000) b(y) WHERE x::bigint * y % 7 = 3"
SOME_TIME = "SELECT sum(sqrt(x)) FROM generate_series(1, 1000000) a(x)"
"""Some tens of milliseconds."""
LARGE = b"SELECT range, repeat('x', 1000) FROM range(10000000)\0"
Client = psycopg.Connection[tuple[object, ...]]


def connect(place: Place, **more: object) -> Client:
    return psycopg.connect(place.conninfo, autocommit=True, **more)  # type: ignore[arg-type]


def reason(client: Client) -> str:
    """Why the server has ended a session."""
    time.sleep(0.6)
    with pytest.raises(psycopg.Error) as caught:
        client.execute("SELECT 1")
    return str(caught.value).partition("\n")[0]


def test_idle_sessions(places: tuple[Place, Place]) -> None:
    told = []
    for place in places:
        with connect(place) as client:
            client.execute("SET idle_session_timeout = '100ms'")
            told.append(reason(client))
    assert told == ["terminating connection due to idle-session timeout"] * 2


def test_idle_transactions_let_go_of_what_they_hold(places: tuple[Place, Place]) -> None:
    told = []
    for place in places:
        with connect(place) as other, connect(place, options="-c idle_in_transaction_session_timeout=100ms") as client:
            other.execute("CREATE TABLE held AS SELECT 1 AS a")
            time.sleep(0.5)  # outside a transaction it may be idle
            client.execute("BEGIN")
            client.execute("UPDATE held SET a = 2")
            told.append(reason(client))
            other.execute("SET statement_timeout = '10s'")
            other.execute("UPDATE held SET a = a + 10")
            assert other.execute("SELECT a FROM held").fetchall() == [(11,)]
            other.execute("DROP TABLE held")
    assert told == ["terminating connection due to idle-in-transaction timeout"] * 2


def test_long_statements(places: tuple[Place, Place]) -> None:
    """The session lives on; a time of its own is each statement's, whatever the session was given."""
    for place in places:
        with connect(place, options="-c statement_timeout=200ms") as client:
            for _ in range(2):
                started = time.monotonic()
                with pytest.raises(psycopg.errors.QueryCanceled, match="canceling statement due to statement timeout"):
                    client.execute(ENDLESS)
                assert time.monotonic() - started < 10
            assert client.execute("SELECT 1").fetchone() == (1,)
            client.execute("SET statement_timeout = 0")
            thread = threading.Timer(0.7, client.cancel_safe)
            thread.start()
            with pytest.raises(psycopg.errors.QueryCanceled, match="canceling statement due to user request"):
                client.execute(ENDLESS)
            thread.join()


def test_each_statement_has_a_time_of_its_own(places: tuple[Place, Place]) -> None:
    """Also of several that are sent together."""
    for place in places:
        with connect(place) as client:
            with pytest.raises(psycopg.errors.QueryCanceled):
                client.execute(f"SET statement_timeout = '300ms'; {ENDLESS}".encode())
            client.execute("SET statement_timeout = '1s'")
            with client.pipeline():  # two seconds, and none of them takes one
                found = [client.execute(SOME_TIME) for _ in range(40)]
                assert all(len(one.fetchall()) == 1 for one in found)


def test_a_statement_whose_rows_are_read_slowly(places: tuple[Place, Place]) -> None:
    """The time is that until the client has the last row: it is told, and the next statement is answered."""
    place, _ = places
    with socket.create_connection((place.host, place.port), 30) as client:
        client.sendall(startup_packet(place.database) + message(b"SET statement_timeout = '1s'\0"))
        client.sendall(message(LARGE))
        found, deadline = b"", time.monotonic() + 30
        while b"C57014\0" not in found:
            assert time.monotonic() < deadline
            time.sleep(0.005)
            found = found[-100:] + client.recv(1 << 20)
        client.sendall(message(b"SELECT 'alive'\0"))
        while b"alive" not in found:
            found = found[-100:] + client.recv(1 << 16)


def message(query: bytes) -> bytes:
    return b"Q" + struct.pack(">I", len(query) + 4) + query


@pytest.fixture
def hasty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WireServer]:
    """A server, in this process, that waits for nobody longer than a fifth of a second."""
    from sqlml.wire import connection, front
    from sqlml.wire.http import connection as over_http

    monkeypatch.setattr(front, "LOGIN_SECONDS", 0.2)
    monkeypatch.setattr(connection, "LOGIN_SECONDS", 0.2)
    monkeypatch.setattr(over_http, "REQUEST_SECONDS", 0.2)
    server = WireServer(WireOptions(str(tmp_path / "bank.duckdb"), port=0))
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    asyncio.run_coroutine_threadsafe(server.start(), loop).result(60)
    yield server
    asyncio.run_coroutine_threadsafe(server.stop(), loop).result(60)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(60)
    loop.close()


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (b"", b""),
        (startup_packet("bank")[:10], b"canceling authentication due to timeout"),
        (b"POST /sql HT", b""),
        (head_of(100) + b'{"state', b""),
    ],
    ids=["nothing", "half a start", "half a head", "half a body"],
)
def test_whoever_stops_in_the_middle_is_sent_away(hasty: WireServer, said: bytes, told: bytes) -> None:
    with socket.create_connection(("127.0.0.1", hasty.port), 10) as client:
        client.sendall(said)
        answer = b""
        while piece := client.recv(65536):  # the server hangs up, or this times out
            answer += piece
    assert told in answer if told else answer == b""
    deadline = time.monotonic() + 10
    while hasty._every:
        assert time.monotonic() < deadline
        time.sleep(0.02)
