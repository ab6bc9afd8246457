"""What a client asks for does not have to fit into the server's memory."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from sqlml.wire.copy_rows import SIGNATURE, TRAILER
from tests.wire.places import Place, serving

pytestmark = pytest.mark.slow

ROWS = 2_000_000
LARGE = f"SELECT range AS i, repeat('x', 100) || range AS w FROM range({ROWS})"
"""More than 200 MB."""
ROOM = 120 << 20
"""By so much the server may grow: batches on their way, and what allocators keep."""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Place, psutil.Process]]:
    with serving(tmp_path_factory.mktemp("served") / "bank.duckdb") as (place, child):
        with psycopg.connect(place.conninfo) as connection:
            connection.execute("SELECT 1")
        yield place, psutil.Process(child.pid)


def put_aside(process: psutil.Process) -> list[int]:
    """The sizes of the server's files that have no name."""
    found = []
    for each in Path(f"/proc/{process.pid}/fd").iterdir():
        try:
            if str(each.readlink()).endswith("(deleted)"):
                found.append(each.stat().st_size)
        except FileNotFoundError:
            continue
    return found


def test_the_rest_of_a_cursor_is_put_aside(served: tuple[Place, psutil.Process]) -> None:
    place, process = served
    before = process.memory_info().rss
    with psycopg.connect(place.conninfo) as connection:
        with connection.cursor(name="large") as cursor:
            cursor.execute(LARGE)
            assert cursor.fetchone() == (0, "x" * 100 + "0")
            assert put_aside(process) == []  # to fetch is not to run another statement
            assert connection.execute("SELECT 42").fetchone() == (42,)
            [size] = put_aside(process)
            assert size > 200 << 20
            assert process.memory_info().rss - before < ROOM
            assert cursor.fetchone() == (1, "x" * 100 + "1")
            cursor.itersize = 100_000
            assert sum(1 for _ in cursor) == ROWS - 2
            assert process.memory_info().rss - before < ROOM
        assert put_aside(process) == []


def test_a_client_that_leaves_leaves_no_file(served: tuple[Place, psutil.Process]) -> None:
    place, process = served
    with psycopg.connect(place.conninfo) as connection:
        connection.execute(f"DECLARE large CURSOR FOR {LARGE}")
        connection.execute("FETCH 1 FROM large")
        connection.execute("SELECT 1")
        assert len(put_aside(process)) == 1
    with psycopg.connect(place.conninfo, autocommit=True) as connection:
        while put_aside(process):
            connection.execute("SELECT 1")


def test_a_binary_copy_is_taken_in_pieces(served: tuple[Place, psutil.Process]) -> None:
    place, process = served
    word = b"x" * 100
    rows = b"".join(struct.pack(">hiii100s", 2, 4, number, 100, word) for number in range(20_000))
    with psycopg.connect(place.conninfo, autocommit=True) as connection:
        connection.execute("CREATE TABLE copied (i int, w text)")
        before = process.memory_info().rss
        with connection.cursor().copy("COPY copied FROM STDIN (FORMAT binary)") as copy:
            copy.write(SIGNATURE)
            for _ in range(100):
                copy.write(rows)
            copy.write(TRAILER)
        assert process.memory_info().rss - before < ROOM
        assert connection.execute("SELECT count(*), count(DISTINCT i), min(w) FROM copied").fetchone() == (
            ROWS,
            20_000,
            word.decode(),
        )
        connection.execute("DROP TABLE copied")


def test_a_large_result_streams(served: tuple[Place, psutil.Process]) -> None:
    place, process = served
    before = process.memory_info().rss
    with psycopg.connect(place.conninfo, autocommit=True) as connection:
        with connection.cursor().copy(f"COPY ({LARGE}) TO STDOUT") as copy:
            assert sum(len(piece) for piece in copy) > 200 << 20
        assert process.memory_info().rss - before < ROOM
        generator = connection.cursor().stream("SELECT range, range * 2 FROM range(100000)")
        assert sum(row[1] for row in generator) == 100_000 * 99_999
        assert process.memory_info().rss - before < ROOM
