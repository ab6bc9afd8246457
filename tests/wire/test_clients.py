"""Operations of Python's other drivers, each run on sqlml and on a real PostgreSQL, and compared.

An operation leaves the tables as they were.  What it gives back is compared as it is; an error by its SQLSTATE.
"""

from __future__ import annotations

import asyncio
import datetime
import io
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import asyncpg
import pandas
import pg8000.dbapi
import psycopg2
import psycopg2.extras
import pytest
import sqlalchemy as sa

from tests.wire.operations import TYPES, UTC, Operation, in_order
from tests.wire.places import USER, Place

pytestmark = pytest.mark.slow


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
