"""Statements on one connection: whose turn it is, which transaction is open, and what to do when the server is gone."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from sqlml_dialect.tokens import Kind, scan

from sqlml.engines.postgres.belongings import Belongings
from sqlml.engines.postgres.catalog import near_relation, near_schema
from sqlml.engines.postgres.errors import engine_error, lost_error, missing_name, tells_of_loss
from sqlml.engines.postgres.link import Link
from sqlml.engines.postgres.parameters import Bound, bind_values
from sqlml.engines.postgres.reading import Reading
from sqlml.errors import Cancelled, DatabaseError, Error, OperationalError

if TYPE_CHECKING:
    import pyarrow as pa

T = TypeVar("T")

ABORTED = -1
LOST = "unknown"
_INSIDE = ("intrans", "inerror")


class Runs:
    """What a connection remembers between statements.

    After a loss the next statement connects anew, outside a transaction.  Where the session had something that the new one has
    not, such as settings, one statement of the user's is refused, so that none runs without them unawares.
    """

    def __init__(self, link: Link) -> None:
        self.link = link
        self.reading: Reading | None = None
        self.role = ""
        self._belongings = Belongings()
        self._missing = ""  # what a lost session had, until the user has been told
        self._depth = 0  # statements of the user's that are being run
        self._is_open = False  # a transaction of the user's
        self._number = 0
        self._steps = 0  # how many ``atomic`` are open: between their statements nothing runs that could be cancelled
        self._stopped = False
        self._lost_inside = False  # the connection was lost within a transaction that nobody has rolled back yet
        self._connect()

    def _connect(self) -> None:
        self.link.open()
        self._missing = self._belongings.lose() or self._missing
        self._is_open = False
        self.reading = None
        with suppress(Exception):  # only for advice
            self.role = str(self.link.ask("SELECT current_user::text")[0][0])

    # --- transactions -----------------------------------------------------------------------------------------------

    def transaction(self) -> int | None:
        """The number of the user's open transaction, or None; ABORTED where nothing but its end is possible."""
        if self._lost_inside:
            return ABORTED
        self._look()
        if not self._is_open:
            return None
        return ABORTED if self.link.status() == "inerror" else self._number

    def ends_lost(self, text: str) -> bool:
        """Whether a statement ends a transaction whose connection was lost; any other one is refused until that is done."""
        if not self._lost_inside:
            return False
        keys = first_keys(text, 6)
        if keys[:1] in (["ROLLBACK"], ["ABORT"]) and "TO" not in keys:
            self._lost_inside = False
            return True
        if keys[:1] in (["COMMIT"], ["END"]):
            self._lost_inside = False
            raise OperationalError("the connection was lost inside this transaction: nothing of it was committed")
        raise OperationalError(
            "the connection was lost inside the open transaction, which is undone", hint="ROLLBACK, then begin it again"
        )

    @contextmanager
    def statement(self, *, heard: bool = True) -> Iterator[None]:
        """A statement of the user's is run, or asked about, within: not in a session that lacks what an earlier one had.

        ``heard``: what the server says beside its answer is passed on.
        """
        self._check()
        self._depth += 1
        self.link.notices.forget()
        try:
            yield
        finally:
            self._depth -= 1
            if heard:
                self.link.notices.pass_on()

    def _check(self) -> None:
        """``OperationalError``, once, where what the session had is gone."""
        missing, self._missing = self._missing, ""
        if missing:
            raise OperationalError(
                f"the connection to PostgreSQL was lost, and with it its {missing}: this statement was not run",
                hint=f"it is connected anew: make the {missing} again, then run the statement again",
            )

    def ran(self, text: str) -> None:
        """Remember what a statement that was run leaves behind."""
        self._belongings.see(text)
        keys = first_keys(text, 6)
        if "CHAIN" in keys and keys[0] in ("COMMIT", "ROLLBACK", "END", "ABORT"):
            self._number += 1

    def _look(self) -> None:
        status = self.link.status()
        if status == "active":  # rows are still on their way: a query neither begins nor ends a transaction
            return
        if status in _INSIDE and not self._is_open:
            self._number += 1
        self._is_open = status in _INSIDE

    # --- one after the other ----------------------------------------------------------------------------------------

    def free(self) -> None:
        """Let what is still being read go on from memory, so that another statement can run."""
        if self.reading is not None:
            self.reading.keep()
            self.reading = None

    def stop(self) -> None:
        """Cancel what runs, from any thread."""
        self._stopped = True
        self.link.cancel()

    def is_reading(self) -> bool:
        """Whether rows of a query are still on their way."""
        return self.reading is not None and not self.reading.is_over

    def guard(self, bound: Bound, action: Callable[[], T], *, retry: bool = False) -> T:
        """Do something on the connection, with errors as ours.

        ``retry``: nothing is changed by doing it twice, so it is, where the connection turns out to be lost and no transaction
        was open.
        """
        if self._steps and self._stopped:
            raise Cancelled("cancelled")
        self.free()
        if self.link.status() == LOST:
            self._reconnect()
        self._look()
        try:
            return action()
        except Error:
            raise
        except Exception as error:
            if not (retry and self._is_lost(error) and not self._is_open):
                raise self.failure(error, bound, is_write=not retry) from None
        self._reconnect()
        try:
            return action()
        except Error:
            raise
        except Exception as error:
            raise self.failure(error, bound) from None
        finally:
            self._look()

    def _reconnect(self) -> None:
        self._connect()
        if self._depth:
            self._check()

    def failure(self, error: BaseException, bound: Bound, *, is_write: bool = False) -> DatabaseError:
        """A driver's error as ours; takes note of a connection that was lost."""
        if not self._is_lost(error):
            self._look()
            told = engine_error(error, bound.source, None if bound.ours else bound.place, self.role)
            told.hint = told.hint or self._near(told.message)
            return told
        told = lost_error(error, in_transaction=self._is_open, gone=self._belongings.lose(), is_write=is_write)
        self._lost_inside = self._lost_inside or self._is_open
        self._is_open = False
        return told

    def _near(self, message: str) -> str | None:
        """What a misspelt table or schema may have meant; not asked within a transaction, where nothing can be asked now."""
        missing = missing_name(message)
        if missing is None or self.link.status() != "idle":
            return None
        kind, name = missing
        with suppress(Exception):  # only advice: the error itself is told whatever becomes of it
            return near_relation(self._ask_once, name) if kind == "relation" else near_schema(self._ask_once, name)
        return None

    def _is_lost(self, error: BaseException) -> bool:
        self.link.is_lost = self.link.status() == LOST or tells_of_loss(error)
        return self.link.is_lost

    # --- for ourselves ----------------------------------------------------------------------------------------------

    def execute(self, text: str, *, retry: bool = False) -> int:
        """Run a statement of our own."""
        return self.guard(Bound(text, text, ours=True), lambda: self.link.execute(text), retry=retry)

    def ask(self, text: str, parameters: Any = ()) -> list[tuple[Any, ...]]:
        """The rows of a question of our own to the server's catalog."""
        bound = replace(bind_values(text, parameters), ours=True)
        return self.guard(bound, lambda: self.link.ask(bound.text), retry=True)

    def _ask_once(self, text: str) -> list[tuple[Any, ...]]:
        """The same in the middle of telling an error, where another one must not be told."""
        return self.link.ask(text)

    @contextmanager
    def unharmed(self) -> Iterator[None]:
        """An error within leaves the user's transaction as it was."""
        if self.transaction() in (None, ABORTED):
            yield
            return
        with self._savepoint():
            yield

    @contextmanager
    def atomic(self) -> Iterator[None]:
        """All or nothing: a transaction of our own, or a part of the user's."""
        self._stopped = False
        self._steps += 1
        try:
            with self._savepoint() if self.transaction() is not None else self._own_transaction():
                yield
        finally:
            self._steps -= 1

    @contextmanager
    def _own_transaction(self) -> Iterator[None]:
        self.execute("BEGIN", retry=True)
        try:
            yield
            self.execute("COMMIT")
        except BaseException:
            self._undo("ROLLBACK")
            if self._lost_inside:  # it was ours, and is over
                self._lost_inside = False
            raise

    @contextmanager
    def _savepoint(self) -> Iterator[None]:
        name = f"sqlml_{uuid.uuid4().hex[:8]}"
        self.execute(f"SAVEPOINT {name}")
        try:
            yield
        except BaseException:
            self._undo(f"ROLLBACK TO SAVEPOINT {name}", f"RELEASE SAVEPOINT {name}")
            raise
        self.execute(f"RELEASE SAVEPOINT {name}")

    def _undo(self, *texts: str) -> None:
        with suppress(Exception):  # a connection that is lost has undone it already
            self.free()
            for text in texts:
                self.link.execute(text)


def _rows(table: pa.Table) -> list[tuple[Any, ...]]:
    return list(zip(*(column.to_pylist() for column in table.columns), strict=True))


def first_keys(text: str, count: int) -> list[str]:
    """The first words of a statement, in capitals."""
    return [token.key for token, _ in zip(scan(text), range(count), strict=False) if token.kind is Kind.WORD]
