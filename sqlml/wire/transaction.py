"""Transactions as PostgreSQL's clients see them, over DuckDB's.

BEGIN only begins: the database's own transaction starts with the first statement that writes.  Until then each statement reads
what is committed, as PostgreSQL's default, READ COMMITTED, has it; and a driver that begins a transaction before everything can
still TRAIN, which no ROLLBACK undoes (a warning says so).  With REPEATABLE READ or SERIALIZABLE the first statement starts it.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlml_dialect.tokens import words

from sqlml.errors import Error
from sqlml.session import Session
from sqlml.wire.errors import Refused
from sqlml.wire.tags import keys_of, only_reads, parsed

_ENDS = ("ROLLBACK", "COMMIT", "END", "ABORT")
_OUTSIDE = words("CHECKPOINT VACUUM ATTACH DETACH SET RESET USE LOAD INSTALL FORCE PRAGMA ANALYZE") | {""}
_TELLS = ("show", "describe", "evaluate", "explain_model", "compare", "explain_plan")


class Transaction:
    """Where a session stands: ``I`` idle, ``T`` in a transaction, ``E`` in one that has failed."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.status = "I"
        self._began = False  # the database's own
        self._implicit = False  # several statements of one query, until its end
        self._from_start = False
        self.savepoints: list[str] = []

    def check(self, verb: str) -> None:
        """``Refused`` in a failed transaction, but for what ends it."""
        if self.status == "E" and verb not in _ENDS:
            raise Refused("current transaction is aborted, commands ignored until end of transaction block", "25P02")

    def begin(self, text: str) -> bool:
        """False where one is open already."""
        if self.status != "I":
            return False
        keys = keys_of(text, 20)
        self._from_start = "SERIALIZABLE" in keys or "REPEATABLE" in keys
        self.status = "T"
        self._implicit = False
        return True

    def isolate(self, text: str) -> None:
        """SET TRANSACTION ISOLATION LEVEL …"""
        keys = keys_of(text, 20)
        self._from_start = "SERIALIZABLE" in keys or "REPEATABLE" in keys

    def commit(self) -> str:
        """The tag: a failed transaction is rolled back."""
        if self.status == "E":
            return self.rollback()
        self.status = "I"
        self._end(self._session.commit)
        return "COMMIT"

    def rollback(self) -> str:
        self.status = "I"
        self._end(self._session.rollback)
        return "ROLLBACK"

    def rollback_to(self, name: str) -> bool:
        """Back to a savepoint; False where the database would have to undo something.  ``KeyError`` without the savepoint."""
        if name not in self.savepoints:
            raise KeyError(name)
        if self._began:
            return False
        del self.savepoints[self.savepoints.index(name) + 1 :]
        self.status = "T"
        return True

    def _end(self, how: Callable[[], None]) -> None:
        began, self._began, self._implicit = self._began, False, False
        self.savepoints.clear()
        if began:
            how()

    def fail(self) -> None:
        """An error: the transaction, if one is open, waits for its end."""
        if self.status == "T":
            self.status = "E"

    def begin_implicit(self) -> None:
        """Several statements are one transaction, unless one is open."""
        if self.status == "I":
            self._implicit = True

    def end_implicit(self, *, failed: bool) -> None:
        """The query, or the batch of messages, is over."""
        if not self._implicit:
            return
        self._end(self._session.rollback if failed else self._session.commit)

    def enter(self, text: str, verb: str, notice: Callable[[str, str], None]) -> None:
        """A statement is about to run: start the database's transaction where it has to be in it."""
        if (self.status != "T" and not self._implicit) or self._began:
            return
        if only_reads(verb) and not self._from_start:
            return
        try:
            [statement] = parsed(text)
        except (Error, ValueError):
            return
        if statement.node is not None and statement.kind != "predict":
            if self.status == "T" and statement.kind not in _TELLS:
                notice(f"{verb} is not part of the transaction: no ROLLBACK undoes it", "WARNING")
            return
        if verb in _OUTSIDE:
            return
        self._session.begin()
        self._began = True
