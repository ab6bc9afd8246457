"""COPY FROM STDIN that fails, alone and inside a query of several statements: the same is told and kept as by PostgreSQL."""

from __future__ import annotations

import threading

import psycopg
import pytest
from psycopg.pq import ExecStatus

from tests.wire.places import Place

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("way", ["the client gives up", "a row is wrong"])
def test_a_copy_that_fails_takes_its_query_with_it(places: tuple[Place, Place], way: str) -> None:
    found = []
    for place in places:
        with psycopg.connect(place.conninfo, autocommit=True) as client:
            client.execute("CREATE TABLE half (a INTEGER)")
            begun = client.pgconn.exec_(b"INSERT INTO half VALUES (1); COPY half FROM STDIN")
            assert begun.status == ExecStatus.COPY_IN
            if way == "a row is wrong":
                client.pgconn.put_copy_data(b"x\n")
                client.pgconn.put_copy_end()
            else:
                client.pgconn.put_copy_end(b"no more")
            ended = client.pgconn.get_result()
            assert ended is not None
            while client.pgconn.get_result() is not None:
                continue
            kept = client.execute("SELECT count(*) FROM half").fetchone()
            client.execute("DROP TABLE half")
            found.append((ended.status, ended.error_field(psycopg.pq.DiagnosticField.SQLSTATE), kept))
    assert [(status, kept) for status, _, kept in found] == [(ExecStatus.FATAL_ERROR, (0,))] * 2
    if way == "the client gives up":
        assert {state for _, state, _ in found} == {b"57014"}


@pytest.mark.parametrize("options", ["(FROMAT csv)", "CSV HEADRE", "(FORMAT csv, HEADER yess)"])
def test_options_that_there_are_none_of(places: tuple[Place, Place], options: str) -> None:
    found = []
    for place in places:
        with psycopg.connect(place.conninfo, autocommit=True) as client, client.cursor() as cursor:
            with pytest.raises(psycopg.Error) as raised, cursor.copy(f"COPY (SELECT 1) TO STDOUT {options}".encode()):
                pass
            found.append(raised.value.sqlstate)
    assert found == ["42601"] * 2


COLUMNS = ("id", "name", "score", "born", "ok", "amount", "u", "met")
ODD: dict[str, tuple[int, str, str]] = {
    "an integer that is none": (3, "", "1\tx\t2.5\nz\ty\t3\n"),
    "an integer out of range": (3, "", "99999999999\tx\t1\n"),
    "a float that is none": (3, "", "1\tx\tabc\n"),
    "a date out of range": (4, "", "1\tx\t1.5\t2026-13-45\n"),
    "a date that is none": (4, "", "1\tx\t1\t\n"),
    "a boolean that is none": (5, "", "1\tx\t1.5\t2026-02-03\tmaybe\n"),
    "a number that is none": (6, "", "1\tx\t1\t2026-02-03\tt\t1.234e\n"),
    "a number out of range": (6, "", "1\tx\t1\t2026-02-03\tt\t123456789012345.5\n"),
    "too few values": (3, "", "1\tx\t2.5\n2\ty\n"),
    "too few values, one": (3, "", "1\n"),
    "too many values": (3, "", "1\tx\t2.5\n2\ty\t3\t4\n"),
    "an empty line": (3, "", "1\tx\t2.5\n\n2\ty\t3\n"),
    "NULL": (3, "", "1\tx\t1\n2\t\\N\t2.5\n"),
    "a long line": (3, "", f"1\t{'y' * 120}\t2\t3\n"),
    "no UTF-8": (3, "", "1\t\udcff\udcfe\t1\n"),
    "csv, an integer that is none": (3, "(FORMAT csv)", "1,x,2.5\nz,y,3\n"),
    "csv, behind a header": (3, "(FORMAT csv, HEADER)", "id,name,score\n1,x,2.5\nz,y,3\n"),
    "csv, behind two lines in quotes": (3, "(FORMAT csv)", '1,"a\nb",2\n2,"c",oops\n'),
    "csv, behind a later line in quotes": (3, "(FORMAT csv)", '1,x,1\n2,"a\nb",2\n3,"c",oops\n'),
    "csv, another delimiter": (3, "(FORMAT csv, DELIMITER ';')", "1;x;2,5\n"),
    "csv, too few values": (3, "(FORMAT csv)", "1,x,2.5\n2,y\n"),
    "csv, too many values": (3, "(FORMAT csv)", "1,x,2.5\n2,y,3,4\n"),
    "csv, NULL": (3, "(FORMAT csv)", "1,,2.5\n"),
    "csv, an open quote": (3, "(FORMAT csv)", '1,x,1\n2,"x,2.5\n3,y,3\n'),
    "csv, a uuid that is none": (7, "(FORMAT csv)", "1,x,1,2026-02-03,t,12.5,not-a-uuid\n"),
    "csv, a timestamp out of range": (8, "(FORMAT csv)", "1,x,1,2026-02-03,t,12.5,,2026-02-03 25:00\n"),
    "csv, another header": (3, "(FORMAT csv, HEADER MATCH)", "id,nome,score\n1,x,2.5\n"),
    "csv, a header too short": (3, "(FORMAT csv, HEADER MATCH)", "id,name\n1,x,2.5\n"),
    "csv, a header too long": (3, "(FORMAT csv, HEADER MATCH)", "id,name,score,born\n1,x,2.5\n"),
    "csv, a header without a name": (3, "(FORMAT csv, HEADER MATCH)", "id,,score\n1,x,2.5\n"),
    "csv, a header that is an open quote": (3, "(FORMAT csv, HEADER MATCH)", 'id,"name,score\n1,x,2.5\n'),
    "csv, an empty line behind a header of another width": (3, "(FORMAT csv, HEADER)", "id,name\n1,x,2.5\n\n2,y,3\n"),
    "csv, an open quote behind a header of another width": (3, "(FORMAT csv, HEADER)", 'id,name\n1,x,2.5\n2,"y,3\n'),
    "text, an empty line behind a header of another width": (3, "(HEADER)", "id\tname\n1\tx\t2.5\n\n2\ty\t3\n"),
    "csv, an open quote behind an escaped one": (3, "(FORMAT csv, ESCAPE '!')", '1,x,2\n2,"x!"\n3,y,3\n'),
    "csv, values in quotes before a wrong one": (3, "(FORMAT csv)", '1,"x,""y"", ""z""",2\n"2","",oops\n'),
}


@pytest.mark.parametrize("case", ODD)
def test_what_is_wrong_is_told_as_postgresql_tells_it(places: tuple[Place, Place], case: str) -> None:
    """The SQLSTATE, the message, and the context with the line, the column and the value."""
    count, options, data = ODD[case]
    ours, theirs = (_copied(place, count, options, data.encode(errors="surrogateescape")) for place in places)
    assert isinstance(theirs, tuple)
    assert ours == theirs


@pytest.mark.parametrize("escape", ['"', "!"])
@pytest.mark.parametrize("line", ["2,x,2.5\n", '2,"x",2.5\n', "\n", "y" * 1000])
def test_an_open_quote_before_megabytes(line: str, escape: str, places: tuple[Place, Place]) -> None:
    """It is told at once, however many lines stand behind it, or how long they are."""
    data = '1,x,1\n2,"x!",2.5\n' if escape == "!" else '1,x,1\n2,"x,2.5\n'
    data += line * (4_000_000 // len(line) // 2 * 2)
    ours, theirs = (_copied(place, 3, f"(FORMAT csv, ESCAPE '{escape}')", data.encode()) for place in places)
    assert isinstance(ours, tuple)
    assert isinstance(theirs, tuple)
    assert ours == theirs


def test_what_is_read_to_find_a_fault_can_be_cancelled(places: tuple[Place, Place]) -> None:
    ours, _ = places
    ended = threading.Event()

    def cancel() -> None:
        while not ended.wait(0.2):
            client.cancel_safe()

    def send(client: psycopg.Connection[tuple[object, ...]]) -> None:
        with client.cursor().copy("COPY awaited FROM STDIN (FORMAT csv)") as copy:
            copy.write(b'1,"' + b"\n" * 30_000_000)
            canceller.start()

    with psycopg.connect(ours.conninfo) as client:
        client.execute("CREATE TABLE awaited (a int, b text)")
        canceller = threading.Thread(target=cancel)
        try:
            with pytest.raises(psycopg.errors.QueryCanceled):
                send(client)
        finally:
            ended.set()
            canceller.join()
        client.rollback()


def test_an_escaped_quote_opens_nothing(places: tuple[Place, Place]) -> None:
    data = b'id\n1,"x!"y!!",2.5\n2,!,3\n'
    ours, theirs = (_copied(place, 3, "(FORMAT csv, HEADER, ESCAPE '!')", data) for place in places)
    assert ours == theirs
    assert isinstance(ours, list)
    assert [row[1] for row in ours] == ['x"y!', "!"]


def _copied(place: Place, count: int, options: str, data: bytes) -> object:
    with psycopg.connect(place.conninfo) as client:
        client.execute(
            "CREATE TABLE odd (id int PRIMARY KEY, name text NOT NULL, score float8, born date, ok boolean, "
            "amount numeric(10,2), u uuid, met timestamp)"
        )
        try:
            with client.cursor().copy(f"COPY odd ({', '.join(COLUMNS[:count])}) FROM STDIN {options}".encode()) as copy:
                copy.write(data)
        except psycopg.Error as error:
            client.rollback()
            return error.sqlstate, error.diag.message_primary, error.diag.context
        found = client.execute("SELECT * FROM odd").fetchall()
        client.rollback()
        return found


@pytest.mark.parametrize(("options", "data"), [("", "a\n\nb\n\\N\n"), ("", "\n"), ("(FORMAT csv)", 'a\n\n""\n')])
def test_lines_without_anything_of_one_column(places: tuple[Place, Place], options: str, data: str) -> None:
    found = []
    for place in places:
        with psycopg.connect(place.conninfo) as client:
            client.execute("CREATE TABLE lone (t text)")
            with client.cursor().copy(f"COPY lone FROM STDIN {options}".encode()) as copy:
                copy.write(data)
            found.append(client.execute("SELECT t FROM lone").fetchall())
            client.rollback()
    assert found[0] == found[1]
