"""The public-domain suite ``dbapi20``, whole, on a database in memory and on a PostgreSQL server."""

from __future__ import annotations

import unittest
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import dbapi20
import pytest

import sqlml
from tests.servers import new_postgres

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),  # the suite leaves connections open
]


class Suite(dbapi20.DatabaseAPI20Test):  # type: ignore[misc]
    """What the suite leaves to each driver."""

    driver: ClassVar[Any] = sqlml
    connect_args: ClassVar[tuple[str, ...]] = (":memory:",)

    def test_nextset(self) -> None:
        """Of several statements the last one's result is kept: there is no next."""
        with self._connect() as connection:
            cursor = connection.cursor()
            cursor.execute("SELECT 1; SELECT 2 AS two")
            assert cursor.fetchall() == [(2,)]
            assert cursor.nextset() is None

    def test_setoutputsize(self) -> None:
        """No value is ever cut."""
        with self._connect() as connection:
            cursor = connection.cursor()
            cursor.setoutputsize(10)
            cursor.setoutputsize(10, 0)
            cursor.execute("SELECT repeat('x', 100000)")
            assert len(cursor.fetchone()[0]) == 100_000

    def test_non_idempotent_close(self) -> None:
        """PEP 249 does not say so: closing twice does no harm, as with sqlite3 and psycopg."""
        connection = self._connect()
        connection.close()
        connection.close()
        with pytest.raises(sqlml.InterfaceError):
            connection.commit()


class InMemory(Suite):
    """A database in memory.  Each connection has its own, so nothing is there to begin with."""


class InPostgres(Suite):
    """Several connections to one server."""

    @classmethod
    def setUpClass(cls) -> None:
        cls.connect_args = (cls.enterClassContext(contextmanager(new_postgres)()),)


class ThroughServer(Suite):
    """Several connections through the server of another process."""

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def _file(cls, served: Path) -> None:
        cls.connect_args = (str(served),)


del Suite  # pytest collects what is here


def test_nothing_of_the_suite_is_left_out() -> None:
    names = unittest.TestLoader().getTestCaseNames(InMemory)
    assert len(names) >= 35
    assert all(not getattr(getattr(InMemory, name), "__unittest_skip__", False) for name in names)
