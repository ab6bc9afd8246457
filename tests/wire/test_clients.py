"""Operations of Python's drivers, each run on sqlml and on a real PostgreSQL, and compared.

An operation leaves the tables as they were.  What it gives back is compared as it is; an error by its SQLSTATE.
"""

from __future__ import annotations

import asyncio
import datetime
import decimal
import io
import threading
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import asyncpg
import pandas
import pg8000.dbapi
import psycopg
import psycopg2
import psycopg2.extras
import pytest
import sqlalchemy as sa

from tests.wire.places import USER, Place

pytestmark = pytest.mark.slow

Operation = Callable[[Any], Any]
UTC = datetime.UTC
VALUES = (
    77, "it's", decimal.Decimal("12.50"), datetime.datetime(2026, 3, 1, 10, 20, 30, 123456, tzinfo=UTC), True, ["p", "q r", ""],
    uuid.UUID(int=9), b"\x00\xfe", datetime.date(2026, 2, 3), 2.5,
)  # fmt: skip
INSERT = "INSERT INTO parents (id, name, amount, seen, ok, tags, u, raw, born, score) VALUES "
SLOW = "SELECT count(*) FROM generate_series(1, 1000000) a(x), generate_series(1, 1000000) b(y) WHERE a.x * b.y % 7 = 3"
TYPES = (
    "SELECT 1::int2 a, 2::int4 b, 3::int8 c, 1.5::float4 d, 2.5::float8 e, 12.34::numeric(10,2) f, true g, 'x'::text h, "
    "date '2026-03-01' i, timestamp '2026-03-01 10:20:30.5' j, time '01:02:03' k, '\\x00ff'::bytea l, NULL::int m, "
    "'00000000-0000-0000-0000-000000000007'::uuid n, ARRAY[1, 2] o, ARRAY['a', NULL, 'b c'] p, interval '1 day 2 hours' q, "
    "timestamptz '2026-03-01 10:20:30+00' r, -0.001::numeric(8,4) s, 1e-7::float8 t, 123456789012::int8 u"
)


def in_order(rows: Any) -> list[tuple[Any, ...]]:
    return sorted(tuple(row) for row in rows)


# --- psycopg 3 ----------------------------------------------------------------------------------------------------------


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


# --- asyncpg ------------------------------------------------------------------------------------------------------------


async def asyncpg_cursor(c: Any) -> Any:
    async with c.transaction():
        return [row["x"] async for row in c.cursor("SELECT x FROM generate_series(1, 120) AS t(x) ORDER BY x", prefetch=7)]


async def asyncpg_rollback(c: Any) -> Any:
    transaction = c.transaction()
    await transaction.start()
    await c.execute("DELETE FROM kids")
    await transaction.rollback()
    return c.is_in_transaction()


async def asyncpg_copy(c: Any) -> Any:
    transaction = c.transaction()
    await transaction.start()
    status = await c.copy_records_to_table("kids", records=[(i, i, None, f"n{i}") for i in range(500, 600)])
    count = await c.fetchval("SELECT count(*) FROM kids WHERE a >= 500 AND a < 600")
    out = io.BytesIO()
    await c.copy_from_query("SELECT a, note FROM kids WHERE a BETWEEN 500 AND 502 ORDER BY a", output=out, format="csv")
    await transaction.rollback()
    return status, count, out.getvalue()


async def asyncpg_prepared(c: Any) -> Any:
    statement = await c.prepare("SELECT id, name, amount FROM parents WHERE id > $1 AND name <> $2 LIMIT $3")
    types = [t.name for t in statement.get_parameters()]
    columns = [(a.name, a.type.name) for a in statement.get_attributes()]
    return types, columns, in_order(await statement.fetch(0, "zz", 5))


ASYNCPG: dict[str, Callable[[Any], Awaitable[Any]]] = {
    "rows": lambda c: c.fetch("SELECT id, name, amount, born, seen, ok, tags, u, raw FROM parents ORDER BY id"),
    "types": lambda c: c.fetch(TYPES),
    "parameters": lambda c: c.fetch(
        "SELECT id FROM parents WHERE name = $1 AND amount < $2 AND seen > $3", "a", 99, datetime.datetime(2020, 1, 1, tzinfo=UTC)
    ),
    "any": lambda c: c.fetch("SELECT id FROM parents WHERE id = any($1) ORDER BY id", [1, 2, 3]),
    "between": lambda c: c.fetch("SELECT id + $1 AS n FROM parents WHERE id BETWEEN $2 AND $3 ORDER BY 1", 10, 1, 2),
    "casts": lambda c: c.fetchrow(
        "SELECT $1::int[] a, $2::text b, $3::float8 c, $4::jsonb IS NOT NULL d", [1, 2], "x", 1.5, '{"a": 1}'
    ),
    "prepared": asyncpg_prepared,
    "cursor": asyncpg_cursor,
    "rollback": asyncpg_rollback,
    "copy": asyncpg_copy,
    "status": lambda c: c.execute("UPDATE parents SET name = name"),
}  # fmt: skip


# --- psycopg 2, pg8000, SQLAlchemy, pandas ----------------------------------------------------------------------------------


def psycopg2_run(text: str, *values: Any) -> Operation:
    def run(c: Any) -> Any:
        with c.cursor() as cursor:
            cursor.execute(text, values or None)
            return cursor.fetchall(), cursor.rowcount, cursor.statusmessage

    return run


def psycopg2_named(c: Any) -> Any:
    with c.cursor("named") as cursor:
        cursor.itersize = 50
        cursor.execute("SELECT x FROM generate_series(1, 333) AS t(x)")
        return sum(row[0] for row in cursor)


def psycopg2_values(c: Any) -> Any:
    with c.cursor() as cursor:
        psycopg2.extras.execute_values(cursor, "INSERT INTO kids (a, b) VALUES %s", [(i, 1) for i in range(700, 720)])
        return cursor.rowcount


def psycopg2_copy(c: Any) -> Any:
    out = io.StringIO()
    with c.cursor() as cursor:
        cursor.copy_from(io.StringIO("701\t2\thello\n702\t2\t\\N\n"), "kids", columns=("a", "b", "note"))
        cursor.copy_expert("COPY (SELECT a, note FROM kids WHERE a IN (701, 702) ORDER BY a) TO STDOUT", out)
    return out.getvalue()


PSYCOPG2: dict[str, Operation] = {
    "rows": psycopg2_run("SELECT id, name, amount, born, seen, ok, tags FROM parents ORDER BY id"),
    "parameters": psycopg2_run("SELECT id FROM parents WHERE name = %s AND born = %s", "a", datetime.date(2026, 3, 1)),
    "types": psycopg2_run(TYPES.replace("%", "%%")),
    "named cursor": psycopg2_named,
    "values": psycopg2_values,
    "copy": psycopg2_copy,
}


def pg8000_run(text: str, *values: Any) -> Operation:
    def run(c: Any) -> Any:
        cursor = c.cursor()
        cursor.execute(text, values)
        return cursor.fetchall(), cursor.rowcount

    return run


def pg8000_many(c: Any) -> Any:
    cursor = c.cursor()
    cursor.executemany("INSERT INTO kids (a, b, note) VALUES (%s, %s, %s)", [(i, 1, "p") for i in range(730, 735)])
    cursor.execute("SELECT count(*) FROM kids WHERE note = %s", ("p",))
    return cursor.fetchall()


PG8000: dict[str, Operation] = {
    "rows": pg8000_run("SELECT id, name, amount, born, met, seen, ok, tags, u FROM parents ORDER BY id"),
    "parameters": pg8000_run("SELECT name FROM parents WHERE id = %s AND name = %s", 1, "a"),
    "types": pg8000_run(TYPES.replace("%", "%%")),
    "many": pg8000_many,
}


def sqlalchemy_orm(engine: sa.Engine) -> Any:
    from sqlalchemy.orm import DeclarativeBase, Session, mapped_column

    class Base(DeclarativeBase):
        pass

    class Pet(Base):
        __tablename__ = "pets"
        id = mapped_column(sa.Integer, primary_key=True)
        name = mapped_column(sa.String(20))

    Base.metadata.create_all(engine)
    try:
        with Session(engine) as session:
            session.add_all([Pet(name="cat"), Pet(name="dog")])
            session.commit()
            dog = session.scalars(sa.select(Pet).where(Pet.name == "dog")).one()
            dog.name = "wolf"
            session.commit()
            return session.execute(sa.select(Pet.id, Pet.name).order_by(Pet.id)).all()
    finally:
        Base.metadata.drop_all(engine)


def sqlalchemy_reflect(engine: sa.Engine) -> Any:
    metadata = sa.MetaData()
    metadata.reflect(engine, only=["parents", "kids"])
    return [(c.name, str(c.type), c.nullable, c.primary_key) for t in metadata.sorted_tables for c in t.columns]


def pandas_round(engine: sa.Engine) -> Any:
    pandas.DataFrame({"n": [1, 2], "t": ["x", None]}).to_sql("frames", engine, if_exists="replace", index=False)
    found = pandas.read_sql("SELECT * FROM frames ORDER BY n", engine)
    with engine.begin() as connection:
        connection.execute(sa.text("DROP TABLE frames"))
    return found.astype(object).where(found.notna(), None).values.tolist()


SQLALCHEMY: dict[str, Operation] = {
    "tables": lambda e: sorted(sa.inspect(e).get_table_names()),
    "views": lambda e: sorted(sa.inspect(e).get_view_names()),
    "columns": lambda e: [(c["name"], str(c["type"]), c["nullable"], c["default"]) for c in sa.inspect(e).get_columns("parents")],
    "primary key": lambda e: sa.inspect(e).get_pk_constraint("kids"),
    "foreign keys": lambda e: sa.inspect(e).get_foreign_keys("kids"),
    "indexes": lambda e: sa.inspect(e).get_indexes("kids"),
    "unique": lambda e: sa.inspect(e).get_unique_constraints("parents"),
    "comment": lambda e: sa.inspect(e).get_table_comment("parents"),
    "has table": lambda e: [sa.inspect(e).has_table(name) for name in ("kids", "grown", "nothing")],
    "other schema": lambda e: sa.inspect(e).get_table_names(schema="other"),
    "public": lambda e: sorted(sa.inspect(e).get_table_names(schema="public")),
    "reflection": sqlalchemy_reflect,
    "ORM": sqlalchemy_orm,
    "pandas": pandas_round,
}


@contextmanager
def rolled_back(connection: Any) -> Iterator[Any]:
    try:
        yield connection
        connection.rollback()
    finally:
        connection.close()


@pytest.mark.parametrize("name", PSYCOPG3)
def test_psycopg3(name: str, places: tuple[Place, Place]) -> None:
    def run(place: Place) -> Any:
        with psycopg.connect(place.conninfo, autocommit=True) as connection:
            connection.execute("SET TIME ZONE 'UTC'")
            return PSYCOPG3[name](connection)

    ours, theirs = map(run, places)
    assert ours == theirs


@pytest.mark.parametrize("name", ASYNCPG)
def test_asyncpg(name: str, places: tuple[Place, Place]) -> None:
    async def run(place: Place) -> Any:
        connection = await asyncpg.connect(host=place.host, port=place.port, database=place.database, user=USER)
        try:
            return await ASYNCPG[name](connection)
        finally:
            await connection.close()

    ours, theirs = (asyncio.run(run(place)) for place in places)
    assert ours == theirs


@pytest.mark.parametrize("name", PSYCOPG2)
def test_psycopg2(name: str, places: tuple[Place, Place]) -> None:
    def run(place: Place) -> Any:
        with rolled_back(psycopg2.connect(place.conninfo)) as connection:
            return PSYCOPG2[name](connection)

    ours, theirs = map(run, places)
    assert ours == theirs


@pytest.mark.parametrize("name", PG8000)
def test_pg8000(name: str, places: tuple[Place, Place]) -> None:
    def run(place: Place) -> Any:
        where = (
            {"unix_sock": f"{place.host}/.s.PGSQL.{place.port}"}
            if "/" in place.host
            else {"host": place.host, "port": place.port}
        )
        with rolled_back(pg8000.dbapi.connect(user=USER, database=place.database, **where)) as connection:
            return PG8000[name](connection)

    ours, theirs = map(run, places)
    assert ours == theirs


@pytest.mark.parametrize("name", SQLALCHEMY)
def test_sqlalchemy(name: str, places: tuple[Place, Place]) -> None:
    def run(place: Place) -> Any:
        engine = sa.create_engine(place.url("psycopg"))
        try:
            return SQLALCHEMY[name](engine)
        finally:
            engine.dispose()

    ours, theirs = map(run, places)
    assert ours == theirs
