"""Operations of psycopg 3, each run on sqlml and on a real PostgreSQL, and compared.

An operation leaves the tables as they were.  What it gives back is compared as it is; an error by its SQLSTATE.
"""

from __future__ import annotations

import decimal
import threading
import uuid
from typing import Any

import psycopg
import pytest

from tests.wire.operations import INSERT, SLOW, TYPES, VALUES, Operation, in_order
from tests.wire.places import Place

pytestmark = pytest.mark.slow


def psycopg3_transaction(c: psycopg.Connection[Any]) -> Any:
    c.autocommit = False
    c.execute("DELETE FROM kids")
    before = c.execute("SELECT count(*) FROM kids").fetchone()
    c.rollback()
    return before, c.info.transaction_status


def psycopg3_failed_transaction(c: psycopg.Connection[Any]) -> Any:
    c.autocommit = False
    states = []
    for text in ("SELECT nope FROM parents", "SELECT 1"):
        try:
            c.execute(text)
        except psycopg.Error as error:
            states.append(error.sqlstate)
    c.rollback()
    return states, c.execute("SELECT 1").fetchone()


def psycopg3_copy_in(binary: bool) -> Operation:
    def run(c: psycopg.Connection[Any]) -> Any:
        c.autocommit = False
        form = " (FORMAT binary)" if binary else ""
        with c.cursor() as cursor, cursor.copy(f"COPY parents (id, name, amount, u, seen) FROM STDIN{form}") as copy:
            if binary:
                copy.set_types(["int4", "text", "numeric", "uuid", "timestamptz"])
            for i in range(300, 310):
                copy.write_row((i, f"tab\t, line\n, \\ {i}", decimal.Decimal(i) / 4, uuid.UUID(int=i), VALUES[3]))
            copy.write_row((400, "NULLs", None, None, None))
        found = in_order(c.execute("SELECT id, name, amount::float8, u FROM parents WHERE id >= 300 AND id < 400").fetchall())
        c.rollback()
        return found

    return run


def psycopg3_copy_out(options: str) -> Operation:
    def run(c: psycopg.Connection[Any]) -> Any:
        with c.cursor().copy(f"COPY (SELECT id, name, ok, tags FROM parents ORDER BY id) TO STDOUT {options}") as copy:
            return b"".join(bytes(piece) for piece in copy)

    return run


def psycopg3_pipeline(c: psycopg.Connection[Any]) -> Any:
    with c.pipeline():
        found = [c.execute("SELECT %s::int * 2", (i,)) for i in range(20)]
        return [one.fetchone() for one in found]


def psycopg3_pipeline_error(c: psycopg.Connection[Any]) -> Any:
    try:
        with c.pipeline():
            c.execute("INSERT INTO kids (a, b) VALUES (900, 1)")
            c.execute("INSERT INTO kids (a, b) VALUES (900, 1)")
    except psycopg.Error as error:
        return error.sqlstate, c.execute("SELECT count(*) FROM kids WHERE a = 900").fetchone()
    return "no error"


def psycopg3_server_cursor(c: psycopg.Connection[Any]) -> Any:
    with c.transaction(), c.cursor(name="slowly") as cursor:
        cursor.execute("SELECT x FROM generate_series(1, 5000) AS t(x)")
        return cursor.fetchmany(3), cursor.fetchone(), len(cursor.fetchall())


def psycopg3_cancel(c: psycopg.Connection[Any]) -> Any:
    timer = threading.Timer(0.3, c.cancel_safe)
    timer.start()
    try:
        c.execute(SLOW)
    except psycopg.Error as error:
        return error.sqlstate, c.execute("SELECT 1").fetchone()
    finally:
        timer.join()


def psycopg3_timeout(c: psycopg.Connection[Any]) -> Any:
    c.execute("SET statement_timeout = '200ms'")
    try:
        c.execute(SLOW)
    except psycopg.Error as error:
        return error.sqlstate
    finally:
        c.execute("RESET statement_timeout")


def psycopg3_insert(c: psycopg.Connection[Any]) -> Any:
    c.autocommit = False
    cursor = c.execute(INSERT + f"({', '.join(['%s'] * 10)})", VALUES)
    count = cursor.rowcount
    found = c.execute("SELECT id, name, amount, seen, ok, tags, u, raw, born, score FROM parents WHERE id = 77").fetchall()
    c.rollback()
    return count, found, found[0][:10] == VALUES


def psycopg3_executemany(c: psycopg.Connection[Any]) -> Any:
    c.autocommit = False
    with c.cursor() as cursor:
        cursor.executemany("INSERT INTO kids (a, b, note) VALUES (%s, %s, %s) RETURNING a", [(i, i, "n") for i in range(30)])
        count = cursor.rowcount
    c.rollback()
    return count


def psycopg3_prepared(c: psycopg.Connection[Any]) -> Any:
    return [c.execute("SELECT %s::int + 1", (i,), prepare=True).fetchone() for i in range(7)]


def psycopg3_description(c: psycopg.Connection[Any]) -> Any:
    cursor = c.execute("SELECT id, name, amount, born, seen, ok, tags, u, raw, score FROM parents")
    return [(column.name, column.type_code, column.precision, column.scale) for column in cursor.description or ()]


def psycopg3_savepoint_released(c: psycopg.Connection[Any]) -> Any:
    with c.transaction():
        c.execute("SELECT 1")
        with c.transaction():
            return c.execute("SELECT 2").fetchone()


def psycopg3_savepoint_kept(c: psycopg.Connection[Any]) -> Any:
    """A query that fails behind a savepoint, in a transaction that has only read."""
    c.autocommit = False
    found: list[Any] = []
    found.append(c.execute("SELECT 1").fetchone())
    with pytest.raises(psycopg.errors.UndefinedColumn), c.transaction():
        c.execute("SELECT nope FROM parents")
    found.append(c.execute("SELECT count(*) FROM parents WHERE id = 1").fetchone())
    for text in ("SAVEPOINT one", "SAVEPOINT two", "ROLLBACK TO one", "RELEASE two", "ROLLBACK TO SAVEPOINT one", "SELECT 1"):
        try:
            found.append(c.execute(text.encode()).statusmessage)
        except psycopg.Error as error:
            found.append(error.sqlstate)
    c.rollback()
    return found


def sqlstate_of(text: str) -> Operation:
    def run(c: psycopg.Connection[Any]) -> Any:
        try:
            c.execute(text.encode())
        except psycopg.Error as error:
            return type(error).__name__, error.sqlstate
        return "no error"

    return run


def position_of(text: str) -> Operation:
    def run(c: psycopg.Connection[Any]) -> Any:
        try:
            c.execute(text.encode())
        except psycopg.Error as error:
            return error.diag.statement_position
        return "no error"

    return run


PSYCOPG3: dict[str, Operation] = {
    "rows": lambda c: c.execute("SELECT * FROM parents ORDER BY id").fetchall(),
    "types in text": lambda c: c.execute(TYPES).fetchall(),
    "types in binary": lambda c: c.cursor(binary=True).execute(TYPES).fetchall(),
    "parameters": lambda c: c.execute(
        "SELECT id FROM parents WHERE name = %s AND ok = %s AND amount < %s", ("a", True, 99)
    ).fetchall(),
    "parameters in binary": lambda c: c.execute(
        "SELECT %b::int, %b::text, %b::float8, %b::timestamptz, %b::uuid, %b::date, %b::bytea, %b::bool",
        (1, "x", 1.5, VALUES[3], VALUES[6], VALUES[8], b"ab", False),
    ).fetchall(),
    "NULL parameters": lambda c: c.execute("SELECT %s::int IS NULL, coalesce(%s::text, 'none')", (None, None)).fetchall(),
    "insert and read": psycopg3_insert,
    "rowcounts": lambda c: [c.execute(f"UPDATE parents SET name = name WHERE id <= {i}").rowcount for i in range(3)],
    "status messages": lambda c: [c.execute(t).statusmessage for t in ("SELECT 1", "BEGIN", "COMMIT", "SET role = none")],
    "executemany": psycopg3_executemany,
    "returning": lambda c: c.execute("UPDATE parents SET score = score RETURNING id, name").fetchall(),
    "prepared": psycopg3_prepared,
    "description": psycopg3_description,
    "stream": lambda c: sum(row[0] for row in c.cursor().stream("SELECT x FROM generate_series(1, 2000) AS t(x)")),
    "server cursor": psycopg3_server_cursor,
    "pipeline": psycopg3_pipeline,
    "pipeline with an error": psycopg3_pipeline_error,
    "transaction": psycopg3_transaction,
    "failed transaction": psycopg3_failed_transaction,
    "savepoint released": psycopg3_savepoint_released,
    "back to a savepoint": psycopg3_savepoint_kept,
    "copy in text": psycopg3_copy_in(False),
    "copy in binary": psycopg3_copy_in(True),
    "copy out text": psycopg3_copy_out(""),
    "copy out csv": psycopg3_copy_out("(FORMAT csv, HEADER)"),
    "copy out csv by semicolons": psycopg3_copy_out("WITH CSV DELIMITER ';' NULL 'none'"),
    "copy out binary": psycopg3_copy_out("(FORMAT binary)"),
    "cancel": psycopg3_cancel,
    "statement time-out": psycopg3_timeout,
    "several statements": lambda c: [c.execute("SELECT 1; SELECT 2").fetchall()],
    "empty": lambda c: c.execute("").statusmessage,
    "settings": lambda c: [c.execute(f"SHOW {n}").fetchone() for n in ("server_encoding", "DateStyle", "search_path")],
    "show isolation": lambda c: c.execute("SHOW TRANSACTION ISOLATION LEVEL").fetchone(),
    "current schema and user": lambda c: c.execute("SELECT current_schema(), current_user").fetchone(),
    "column names": lambda c: [
        column.name for column in c.execute("SELECT count(*), sum(id), id::text FROM parents GROUP BY id").description or ()
    ],
    "no table": sqlstate_of("SELECT * FROM nowhere"),
    "no column": sqlstate_of("SELECT nope FROM parents"),
    "no function": sqlstate_of("SELECT nofunction(1)"),
    "no schema": sqlstate_of("CREATE TABLE nowhere.t (a int)"),
    "syntax": sqlstate_of("SELEC 1"),
    "unique": sqlstate_of("INSERT INTO parents (id, name) VALUES (1, 'again')"),
    "not null": sqlstate_of("INSERT INTO parents (id) VALUES (50)"),
    "foreign key": sqlstate_of("INSERT INTO kids (a, pid) VALUES (1, 999)"),
    "check": sqlstate_of("INSERT INTO parents (id, name, score) VALUES (51, 'x', -1)"),
    "exists already": sqlstate_of("CREATE TABLE parents (a int)"),
    "conversion": sqlstate_of("SELECT 'x'::int"),
    "range": sqlstate_of("SELECT 40000::int2"),
    "ambiguous": sqlstate_of("SELECT a FROM kids k, kids l"),
    "group by": sqlstate_of("SELECT name, count(*) FROM parents"),
    "no prepared statement": sqlstate_of("DEALLOCATE nothing_of_this_name"),
    "no cursor": sqlstate_of("FETCH 1 FROM nothing"),
    "savepoint outside": sqlstate_of("SAVEPOINT a"),
    "position": position_of("SELECT id,\n  nope FROM parents"),
    "position of syntax": position_of("SELECT id FROM parents WHERE WHERE"),
}  # fmt: skip


@pytest.mark.parametrize("name", PSYCOPG3)
def test_psycopg3(name: str, places: tuple[Place, Place]) -> None:
    def run(place: Place) -> Any:
        with psycopg.connect(place.conninfo, autocommit=True) as connection:
            connection.execute("SET TIME ZONE 'UTC'")
            return PSYCOPG3[name](connection)

    ours, theirs = map(run, places)
    assert ours == theirs
