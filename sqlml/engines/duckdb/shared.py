"""What all connections of this process to one DuckDB database share."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import duckdb

from sqlml.engines.duckdb.errors import engine_error

T = TypeVar("T")


class Functions:
    """The Python functions of one database, which all connections of this process to it share.

    DuckDB lets go of a function when the connection that made it closes, and crashes when another then calls it: so the
    functions are held here until the last connection to the database is closed.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._opening = threading.Lock()
        self._users: Counter[str] = Counter()
        self._held: dict[str, list[Callable[..., Any]]] = {}
        self._known: dict[str, dict[str, bool]] = {}
        self._made: dict[str, dict[str, Any]] = {}
        self._making: dict[tuple[str, str], threading.Lock] = {}

    def changed(self, database: str) -> None:
        """A statement ran that is no query: there may be other functions and macros now."""
        self._known.pop(database, None)

    def known(self, database: str) -> dict[str, bool]:
        """By its name, whether there is a function, as far as somebody has asked since a statement ran that is no query."""
        return self._known.setdefault(database, {})

    def opening(self) -> threading.Lock:
        """The lock for finding out whether a database is open, and opening it."""
        return self._opening

    def has_open(self, database: str) -> bool:
        """Whether a connection of this process has a database open."""
        with self._lock:
            return database in self._users

    def open(self, database: str) -> None:
        with self._lock:
            self._users[database] += 1

    def close(self, database: str) -> None:
        with self._lock:
            self._users[database] -= 1
            if not self._users[database]:
                del self._users[database]
                self._held.pop(database, None)
                self._known.pop(database, None)
                self._made.pop(database, None)

    def once(self, database: str, key: str, make: Callable[[], T]) -> T:
        """Something that the connections share, made by the first that asks; others wait for it.  Raises what making it does."""
        made = self._made.setdefault(database, {})
        if key not in made:
            with self._lock:
                alone = self._making.setdefault((database, key), threading.Lock())
            with alone:
                if key not in made:
                    made[key] = make()
            self._making.pop((database, key), None)
        found: T = made[key]
        return found

    def create(self, database: str, body: Callable[..., Any], create: Callable[[], object]) -> None:
        """Create a function, one at a time, and hold it.  That another connection has made it already is no error."""
        with self._lock:
            self._held.setdefault(database, []).append(body)
            try:
                create()
            except duckdb.Error as error:
                self._held[database].pop()
                if "already" not in str(error):
                    raise engine_error(error, "") from None

    def one_at_a_time(self) -> threading.Lock:
        """The lock for everything that connections to one database share: two that make the same thing at once get in each
        other's way."""
        return self._lock


functions = Functions()
attached: set[str] = set()
"""The names that ``attach_schema`` was given, in lower case: connections to one file share its attached databases."""


def is_database(path: Path) -> bool:
    """Whether a file that is there is DuckDB's own (DuckDB would open a CSV file as a database, too).

    Never for one that this process has open: to close a file gives up the lock that the process has on it, whoever took it
    (fcntl), and another process could then open and write it, too.

    A DuckDB file has ``DUCK`` at byte 8 (https://duckdb.org/docs/stable/internals/storage).
    """
    if not path.is_file():
        return True
    try:
        with path.open("rb") as file:
            head = file.read(12)
    except OSError:
        return True  # DuckDB says why
    return not head or head[8:12] == b"DUCK"
