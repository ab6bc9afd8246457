"""Binary COPY data cut into tuples: blocks that end anywhere, tuples larger than one, and every way to be wrong."""

from __future__ import annotations

import io
import struct

import psycopg
import pyarrow as pa
import pytest

from sqlml.types import Column, Kind
from sqlml.wire import copy_tuples
from sqlml.wire.copy_rows import SIGNATURE, TRAILER
from sqlml.wire.copy_tuples import read_tuples
from sqlml.wire.errors import Refused
from tests.wire.places import Place

COPY = "COPY tuples FROM STDIN (FORMAT binary)"
COLUMNS = (Column("i", "INTEGER", Kind.NUMBER), Column("w", "VARCHAR", Kind.TEXT), Column("l", "INTEGER[]", Kind.NUMBERS))


def cell(value: bytes | None) -> bytes:
    return struct.pack(">i", -1) if value is None else struct.pack(">i", len(value)) + value


def row(*cells: bytes | None) -> bytes:
    return struct.pack(">h", len(cells)) + b"".join(map(cell, cells))


def array(*items: int) -> bytes:
    head = struct.pack(">iiIii", 1, 0, 23, len(items), 1) if items else struct.pack(">iiI", 0, 0, 23)
    return head + b"".join(cell(struct.pack(">i", item)) for item in items)


def good(number: int, word: str | None = "w") -> bytes:
    return row(struct.pack(">i", number), None if word is None else word.encode(), array(number, 7))


def read(data: bytes) -> pa.Table:
    schema, batches = read_tuples(io.BytesIO(data), "t", COLUMNS)
    return pa.Table.from_batches(list(batches), schema)


@pytest.mark.parametrize("block", [1, 7, 64, 1 << 20])
def test_blocks_may_end_anywhere(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copy_tuples, "BLOCK_BYTES", block)
    words = ["w" * (number % 40) if number % 3 else None for number in range(200)]
    found = read(SIGNATURE + b"".join(good(number, word) for number, word in enumerate(words)) + TRAILER)
    assert found["i"].to_pylist() == list(range(200))
    assert found["w"].to_pylist() == words
    assert found["l"].to_pylist() == [[number, 7] for number in range(200)]


def test_a_tuple_that_is_larger_than_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copy_tuples, "BLOCK_BYTES", 100)
    found = read(SIGNATURE + good(1) + good(2, "long" * 10_000) + good(3) + TRAILER)
    assert found["w"].to_pylist() == ["w", "long" * 10_000, "w"]


@pytest.mark.parametrize("data", [SIGNATURE, SIGNATURE + TRAILER], ids=["no trailer", "a trailer"])
def test_no_tuples(data: bytes) -> None:
    assert read(data).num_rows == 0


def test_a_header_may_be_longer() -> None:
    assert read(SIGNATURE[:15] + struct.pack(">i", 5) + b"12345" + good(1) + TRAILER).num_rows == 1


BAD = {
    "columns": (good(1) + row(b"\0\0\0\1"), "row field count is 1, expected 3", "22P04", "line 2"),
    "short cell": (
        good(1) + good(2) + row(b"\0\1", b"w", array()), "insufficient data left in message", "08P01", "line 3, column i",
    ),
    "long cell": (good(1) + row(b"12345", b"w", array()), "incorrect binary data format", "22P03", "line 2, column i"),
    "size": (good(1)[:2] + struct.pack(">i", -2) + b"...", "invalid field size", "22P04", "line 1, column i"),
    "short": (good(1) + good(2)[:-3], "unexpected EOF in COPY data", "22P04", "line 2"),
    "utf-8": (
        good(1) + good(2) + row(b"\0\0\0\1", b"\xff\xfe", array()) + good(3), "incorrect binary data format", "22P03", "line 3",
    ),
    "array": (good(1) + row(b"\0\0\0\1", b"w", b"\0\0\0\1"), "incorrect binary data format", "22P03", "line 2, column l"),
    "length": (
        row(b"\0\0\0\1", b"w", struct.pack(">iiIii", 1, 0, 23, 2**31 - 1, 1)),
        "incorrect binary data format", "22P03", "line 1, column l",
    ),
    "more": (good(1) + TRAILER + b"x", "received copy data after EOF marker", "22P04", "line 2"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("block", [11, 1 << 20])
def test_the_error_says_which_tuple(name: str, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copy_tuples, "BLOCK_BYTES", block)
    data, message, sqlstate, place = BAD[name]
    with pytest.raises(Refused) as raised:
        read(SIGNATURE + data)
    assert (raised.value.message, raised.value.sqlstate, raised.value.context) == (message, sqlstate, f"COPY t, {place}")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "signature not recognized"),
        (b"PGCOPX" + SIGNATURE[6:], "signature not recognized"),
        (SIGNATURE[:13], "missing length"),
        (SIGNATURE[:11] + struct.pack(">Ii", 1 << 20, 0), "critical flags"),
        (SIGNATURE[:11] + struct.pack(">Ii", 0, -1), "wrong length"),
        (SIGNATURE[:11] + struct.pack(">Ii", 0, 9), "wrong length"),
    ],
)
def test_a_wrong_header(data: bytes, message: str) -> None:
    with pytest.raises(Refused, match=message) as raised:
        read(data)
    assert raised.value.sqlstate == "22P04"


@pytest.mark.slow
def test_a_client_is_told_the_tuple_and_nothing_is_left(places: tuple[Place, Place]) -> None:
    found = []
    for place in places:
        with psycopg.connect(place.conninfo, autocommit=True) as connection:
            connection.execute("CREATE TABLE tuples (i int, w text)")
            told = []
            for wrong in (row(b"\0\1", b"w"), row(b"12345", b"w"), row(b"1234"), row(b"1234", b"\xff")):
                data = SIGNATURE + b"".join(row(struct.pack(">i", n), b"w") for n in range(1000)) + wrong + TRAILER
                with pytest.raises(psycopg.Error) as raised, connection.cursor().copy(COPY) as copy:
                    copy.write(data)
                told.append((raised.value.sqlstate, raised.value.diag.context))
            found.append(told)
            assert connection.execute("SELECT count(*) FROM tuples").fetchone() == (0,)
            with connection.cursor().copy("COPY tuples (w, i) FROM STDIN (FORMAT binary)") as copy:
                copy.write(SIGNATURE + b"".join(row(b"w%d" % n, struct.pack(">i", n)) for n in range(100_000)) + TRAILER)
            assert connection.execute("SELECT count(*), sum(i), max(w) FROM tuples").fetchone() == (
                100_000,
                4_999_950_000,
                "w99999",
            )
            connection.execute("DROP TABLE tuples")
    assert found[0][:3] == found[1][:3]
    assert found[1][3] == ("22021", "COPY tuples, line 1001, column w")
    assert found[0][3] == ("22P03", "COPY tuples, line 1001")
