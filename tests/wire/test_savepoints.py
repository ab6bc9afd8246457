"""Savepoints, which DuckDB has none of: kept where there is a way back, refused where there is none, and nothing half kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from tests.wire.places import Place

pytestmark = pytest.mark.slow
PLACES = tuple[Place, Place]


@pytest.fixture(autouse=True)
def table(places: PLACES) -> Iterator[None]:
    for place in places:
        with psycopg.connect(place.conninfo, autocommit=True) as client:
            client.execute("CREATE TABLE steps (a int PRIMARY KEY)")
    yield
    for place in places:
        with psycopg.connect(place.conninfo, autocommit=True) as client:
            client.execute("DROP TABLE steps")


def kept(place: Place) -> list[int]:
    with psycopg.connect(place.conninfo) as client:
        return [a for (a,) in client.execute("SELECT a FROM steps ORDER BY a").fetchall()]


def insert(client: psycopg.Connection[Any], number: int) -> None:
    client.execute("INSERT INTO steps VALUES (%s)", (number,))


def block(client: psycopg.Connection[Any], *numbers: int) -> None:
    """Insert numbers within a block of their own; 0 is no number that it likes."""
    with client.transaction():
        for number in numbers:
            insert(client, number // bool(number))


def inner_undone(client: psycopg.Connection[Any]) -> None:
    """Nothing was written before the inner block: it is undone, the outer goes on."""
    with client.transaction():
        client.execute("SELECT count(*) FROM steps")
        with pytest.raises(ZeroDivisionError):
            block(client, 1, 0)
        insert(client, 2)


def inner_failed(client: psycopg.Connection[Any]) -> None:
    """The same by an error of the database."""
    with client.transaction():
        with pytest.raises(psycopg.errors.UniqueViolation):
            block(client, 1, 1)
        assert client.execute("SELECT count(*) FROM steps").fetchone() == (0,)
        insert(client, 2)


def inner_kept(client: psycopg.Connection[Any]) -> None:
    with client.transaction(), client.transaction():
        insert(client, 2)


def by_name(client: psycopg.Connection[Any]) -> None:
    client.execute("BEGIN")
    client.execute("SAVEPOINT one")
    client.execute("SAVEPOINT two")
    insert(client, 1)
    client.execute("ROLLBACK TO one")
    with pytest.raises(psycopg.errors.InvalidSavepointSpecification):
        client.execute("RELEASE two")
    client.execute("ROLLBACK TO SAVEPOINT one")
    insert(client, 2)
    client.execute("RELEASE one")
    client.execute("COMMIT")


@pytest.mark.parametrize("operation", [inner_undone, inner_failed, inner_kept, by_name])
def test_before_the_first_write_as_postgresql(operation: Callable[[psycopg.Connection[Any]], None], places: PLACES) -> None:
    for place in places:
        with psycopg.connect(place.conninfo, autocommit=True) as client:
            operation(client)
        assert kept(place) == [2]


def test_after_a_write_it_is_refused_at_once(places: PLACES) -> None:
    """The inner block is never entered, and the outer is undone as a whole."""
    ours, _ = places
    entered = False

    def nested() -> None:
        nonlocal entered
        with client.transaction():
            insert(client, 1)
            with client.transaction():
                entered = True

    with psycopg.connect(ours.conninfo, autocommit=True) as client:
        with pytest.raises(psycopg.errors.FeatureNotSupported, match="once a transaction has written") as raised:
            nested()
        assert "ROLLBACK undoes the whole transaction" in (raised.value.diag.message_hint or "")
        assert not entered
        assert client.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
        with client.transaction():
            insert(client, 3)
    assert kept(ours) == [3]


def test_what_runs_in_a_select_is_part_of_the_transaction(places: PLACES) -> None:
    """``SELECT * FROM sqlml('INSERT …')``: undone by ROLLBACK, kept by COMMIT, and no SAVEPOINT behind it."""
    ours, _ = places
    text = "SELECT * FROM sqlml('INSERT INTO steps VALUES ({})')"
    with psycopg.connect(ours.conninfo, autocommit=True) as client:
        client.execute("BEGIN")
        client.execute(f"{text.format(1)} LIMIT 0".encode())  # which inserts nothing
        client.execute("SAVEPOINT before")
        client.execute(text.format(1).encode())
        assert client.execute("SELECT a FROM steps").fetchall() == [(1,)]
        client.execute("ROLLBACK")
        assert kept(ours) == []
        client.execute("BEGIN")
        client.execute(text.format(2).encode())
        with pytest.raises(psycopg.errors.FeatureNotSupported, match="once a transaction has written"):
            client.execute("SAVEPOINT behind")
        client.execute("ROLLBACK")
        client.execute("BEGIN")
        client.execute(text.format(3).encode())
        client.execute("COMMIT")
        with pytest.raises(psycopg.Error):  # several statements of one query are one transaction
            client.execute(f"{text.format(4)}; SELECT 1 / 'x'::int".encode())
    assert kept(ours) == [3]


def test_what_no_rollback_undoes_says_so_in_a_select_too(places: PLACES) -> None:
    ours, _ = places
    train = (
        "TRAIN MODEL undone USING linear_regression TARGET y SPLIT NONE ON inline AS SELECT i AS x, 2 * i AS y FROM range(9) t(i)"
    )
    for text in (train, f"SELECT * FROM sqlml('{train}')"):
        told: list[str] = []
        with psycopg.connect(ours.conninfo, autocommit=True) as client:
            client.add_notice_handler(lambda notice, told=told: told.append(notice.message_primary or ""))  # type: ignore[misc]
            client.execute("BEGIN")
            client.execute(text.encode())
            client.execute("ROLLBACK")
            assert "TRAIN is not part of the transaction: no ROLLBACK undoes it" in told
            client.execute("BEGIN")
            insert(client, 1)
            with pytest.raises(psycopg.errors.FeatureNotSupported, match="cannot run inside an open transaction"):
                client.execute(text.encode())
            client.execute("ROLLBACK")
            client.execute("DROP MODEL undone")


def test_whoever_catches_the_refusal_keeps_nothing_by_half(places: PLACES) -> None:
    ours, _ = places
    with psycopg.connect(ours.conninfo, autocommit=True) as client:
        with client.transaction():
            insert(client, 1)
            with pytest.raises(psycopg.errors.FeatureNotSupported), client.transaction():
                pass
            with pytest.raises(psycopg.errors.InFailedSqlTransaction):
                insert(client, 2)
        assert kept(ours) == []
    with psycopg.connect(ours.conninfo) as client:
        client.execute("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")
        with pytest.raises(psycopg.errors.FeatureNotSupported):
            client.execute("SAVEPOINT one")


def test_sqlalchemy(places: PLACES) -> None:
    for place, second in zip(places, (False, True), strict=True):
        engine = sa.create_engine(place.url("psycopg"))
        with engine.begin() as connection:
            with pytest.raises(sa.exc.IntegrityError), connection.begin_nested():
                connection.execute(sa.text("INSERT INTO steps VALUES (1), (1)"))
            connection.execute(sa.text("INSERT INTO steps VALUES (2)"))
        with engine.connect() as connection, connection.begin() as outer:
            connection.execute(sa.text("INSERT INTO steps VALUES (3)"))
            if second:
                connection.begin_nested().commit()
                outer.commit()
            else:
                with pytest.raises(sa.exc.NotSupportedError, match="SAVEPOINT is not supported"):
                    connection.begin_nested()
                outer.rollback()
        engine.dispose()
        assert kept(place) == ([2, 3] if second else [2])


@pytest.mark.parametrize("name", ["_EXEC_SVP_0x55d0", "_per_query_svp_", "PGJDBC_AUTOSAVE", "pg_psql_temporary_savepoint"])
def test_those_that_drivers_set_around_each_statement(name: str, places: PLACES) -> None:
    """With them a transaction writes as often as it likes; after an error there is no way back, and it says so."""
    ours, _ = places
    with psycopg.connect(ours.conninfo, autocommit=True) as client:
        client.execute("BEGIN")
        for number in (1, 2):
            client.execute(f'SAVEPOINT "{name}"'.encode())
            insert(client, number)
            client.execute(f'RELEASE SAVEPOINT "{name}"'.encode())
        client.execute("COMMIT")
        client.execute("BEGIN")
        insert(client, 3)
        client.execute(f'SAVEPOINT "{name}"'.encode())
        with pytest.raises(psycopg.errors.UniqueViolation):
            insert(client, 1)
        with pytest.raises(psycopg.errors.FeatureNotSupported, match="before the savepoint"):
            client.execute(f'ROLLBACK TO SAVEPOINT "{name}"'.encode())
        client.execute("COMMIT")
    assert kept(ours) == [1, 2]
