"""Transactions as PostgreSQL's clients see them, over DuckDB's.

BEGIN only begins: the database's own transaction starts with the first statement that writes.  Until then each statement reads
what is committed, as PostgreSQL's default, READ COMMITTED, has it; and a driver that begins a transaction before everything can
still TRAIN, which no ROLLBACK undoes (a warning says so).  With REPEATABLE READ or SERIALIZABLE the first statement starts it.

DuckDB has no savepoints.  Before the first write there is a way back all the same: the database's transaction is begun anew.  So
SAVEPOINT is accepted until then, and refused afterwards, where nothing could be undone without all that came before it.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlml_dialect.tokens import words

from sqlml.errors import Error
from sqlml.session import Session
from sqlml.statements.door import find_door, wants_no_rows
from sqlml.wire.errors import Refused
from sqlml.wire.tags import keys_of, only_reads, parsed, verb_of

_AROUND_A_STATEMENT = ("_EXEC_SVP_", "_PER_QUERY_SVP_", "PGJDBC_AUTOSAVE", "PG_PSQL_TEMPORARY_SAVEPOINT")
"""Savepoints that psqlodbc, pgjdbc and psql set by themselves before each statement, by the beginnings of their names: they are
for the case that it fails, and without them a transaction could write no more than once."""
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
        self._wrote = False
        self.savepoints: list[tuple[str, bool]] = []
        """Their names, and whether something had been written before."""

    @property
    def wrote(self) -> bool:
        """Whether something was written that others do not see yet."""
        return self._wrote

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

    def set_savepoint(self, name: str) -> bool:
        """False where there would be no way back to it."""
        if (self._wrote or self._from_start) and not name.upper().startswith(_AROUND_A_STATEMENT):
            return False
        self.savepoints.append((name, self._wrote))
        return True

    def release(self, name: str) -> None:
        """Forget a savepoint, and those set after it.  ``KeyError`` without it."""
        del self.savepoints[self._place(name) :]

    def rollback_to(self, name: str) -> bool:
        """Back to a savepoint; False where there is no way.  ``KeyError`` without the savepoint."""
        place = self._place(name)
        after_a_write = self.savepoints[place][1]
        if self._began:
            if self._from_start or after_a_write:
                return False
            self._session.rollback()
            self._began = self._wrote = False
        del self.savepoints[place + 1 :]
        self.status = "T"
        return True

    def _place(self, name: str) -> int:
        """Of the newest savepoint of a name."""
        for place in reversed(range(len(self.savepoints))):
            if self.savepoints[place][0] == name:
                return place
        raise KeyError(name)

    def _end(self, how: Callable[[], None]) -> None:
        began, self._began, self._wrote, self._implicit = self._began, False, False, False
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
        """A statement is about to run: start the database's transaction where it has to be in it.

        What runs in ``sqlml('…')`` counts as if it had been sent by itself, and before the query around it.
        """
        if (self.status != "T" and not self._implicit) or self._wrote:
            return
        span = (0, len(text))
        door = find_door(text, span)
        if door is not None and not wants_no_rows(text, span, door.place):
            self.enter(door.statement, verb_of(door.statement), notice)
            if self._wrote:
                return
        if only_reads(verb) and (self._began or not self._from_start):
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
        if statement.node is not None and getattr(statement.node, "into", None) is None and not self._from_start:
            return  # PREDICT MODEL as a query
        if not self._began:
            self._session.begin()
        self._began, self._wrote = True, not only_reads(verb)
