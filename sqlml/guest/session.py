"""A session whose statements run in the server that has the database file open: the same results, errors and events as here."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from sqlml.errors import ConnectionLost, OperationalError
from sqlml.guest import frames as f
from sqlml.guest.errors import error_of
from sqlml.guest.link import Link, Stale
from sqlml.guest.owner import Owner
from sqlml.guest.paths import check_paths
from sqlml.guest.transactions import Open, open_after, open_during
from sqlml.guest.values import values_json
from sqlml.home import home_of, without_password
from sqlml.statements.own_database import Place
from sqlml.statements.result import Result
from sqlml.types import Column, Kind

if TYPE_CHECKING:
    import pyarrow as pa

    from sqlml.contracts import OnEvent


def enter(owner: Owner, database: str, catalog: str | None, schema: str | None, on_event: OnEvent | None) -> GuestSession | None:
    """A session through the server that has a file open; None where it has ended, whatever the notice says.

    ``OperationalError`` where it keeps the models in another catalog than is asked for, or has no room.
    """
    try:
        link = Link(owner)
    except Stale:
        return None
    try:
        _check_catalog(owner, catalog)
        return GuestSession(link, owner, Place(database, home_of(database, owner.catalog), False), schema, on_event)
    except BaseException:
        link.close()
        raise


def _check_catalog(owner: Owner, catalog: str | None) -> None:
    if catalog is None:
        return
    from sqlml.catalog.database import absolute_url

    wanted = without_password(absolute_url(catalog))
    has = None if owner.catalog is None else without_password(owner.catalog)
    if wanted != has:
        raise OperationalError(
            f"{owner.shown} has {owner.database} open with its models in {has or 'the folder beside it'}, not in {wanted}",
            hint="leave out catalog, or end that server",
        )


class GuestSession:
    """The ``SqlSession`` of a guest."""

    def __init__(self, link: Link, owner: Owner, place: Place, schema: str | None, on_event: OnEvent | None) -> None:
        self.place = place
        self.through: str | None = owner.shown
        self.on_event = on_event
        self.notices: list[str] = []
        self._folder = owner.folder
        self._link = link
        self._waits = False  # for frames of a statement that is not over
        self._number = 0  # of the last statement
        self._ask(f.OPEN, {"schema": schema})

    @property
    def dialect(self) -> str:
        return "duckdb"

    def execute(self, text: str, values: Sequence[Any] | Mapping[str, Any] = ()) -> tuple[str, Result]:
        """As ``Session.execute``."""
        check_paths(text, self._folder)
        with self._opening(text):
            self._begin(f.EXECUTE, {"sql": text, "values": values_json(values)})
            frame = self._receive()
        head = frame.head
        kind = str(head["kind"])
        if frame.kind == f.FINISHED:
            return kind, Result(rowcount=head["rowcount"], footer=head["footer"])
        columns = tuple(Column(name, sql_type, Kind(sort) if sort else None) for name, sql_type, sort in head["columns"])
        return kind, Result(columns, _schema(frame), self._batches(self._number), footer=head["footer"])

    def execute_many(self, text: str, rows: Sequence[Sequence[Any]]) -> None:
        """As ``Session.execute_many``."""
        check_paths(text, self._folder)
        self._ask(f.MANY, {"sql": text, "rows": [values_json(row) for row in rows]})

    def begin(self) -> None:
        self._transact("begin")

    def commit(self) -> None:
        """``ConnectionLost`` where the server has ended with a transaction open."""
        if not self._link.is_lost() or self._link.open is not Open.NOTHING:
            self._transact("commit")

    def rollback(self) -> None:
        if self._link.is_lost():  # what a server that has ended had not committed is gone
            self._link.open = Open.NOTHING
        else:
            self._transact("rollback")

    def _transact(self, what: str) -> None:
        with self._opening(what):
            self._ask(f.TRANSACTION, {"what": what})

    @contextmanager
    def _opening(self, text: str) -> Iterator[None]:
        """Keep in mind whether a statement opens a transaction, or ends it."""
        before = self._link.open
        if not self._link.is_lost():
            self._link.open = open_during(text, before)
        try:
            yield
        except ConnectionLost:
            raise
        except BaseException:
            self._link.open = open_after(text, before, failed=True)
            raise
        self._link.open = open_after(text, before, failed=False)

    @property
    def is_lost(self) -> bool:
        """Whether the server has ended."""
        return self._link.is_lost()

    def interrupt(self) -> None:
        """Cancel what runs, from any thread."""
        if self._waits:
            self._link.interrupt()

    def names(self) -> Mapping[str, tuple[str, ...]]:
        """What can be named, for completion."""
        return {name: tuple(found) for name, found in self._ask(f.NAMES)["names"].items()}

    def close(self) -> None:
        """Leave: the server rolls back what is open."""
        self._link.close()

    # --- frames ---------------------------------------------------------------------------------------------------------

    def _ask(self, kind: bytes, head: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
        """Ask for something that has no rows; what came of it."""
        self._begin(kind, head)
        return self._receive().head

    def _begin(self, kind: bytes, head: Mapping[str, Any] | None) -> None:
        self._number += 1
        if self._waits:
            self._give_up(f.STOP)
        self.notices = []  # whoever has the old ones keeps them
        self._link.forget_interrupts()
        self._waits = True
        try:
            self._link.send(kind, head)
        except ConnectionLost:
            self._waits = False
            raise

    def _receive(self) -> f.Frame:
        """The next frame that is no event; raises what the statement failed with."""
        while True:
            frame = self._link.receive()
            if frame.kind != f.EVENT:
                break
            self._tell(frame.head)
        self._waits = frame.kind not in (f.FINISHED, f.FAILED)
        if frame.kind == f.FAILED:
            raise error_of(frame.head)
        return frame

    def _tell(self, event: Mapping[str, Any]) -> None:
        if event["event"] == "notice":
            self.notices.append(str(event["text"]))
        if self.on_event is not None:
            try:
                self.on_event(event)
            except BaseException:  # whoever listens wants no more of it
                self._give_up(f.INTERRUPT)
                raise

    def _batches(self, number: int) -> Generator[pa.RecordBatch, None, None]:
        try:
            while True:
                frame = self._receive()
                if frame.kind != f.BATCH:
                    return
                yield f.read_batch(frame.tail)
        finally:
            if self._waits and number == self._number:  # closed before its end, and nothing came after it
                with suppress(ConnectionLost):
                    self._give_up(f.STOP)

    def _give_up(self, how: bytes) -> None:
        """Let go of a statement that is not over, and of what is still on its way."""
        self._link.send(how, {"gently": how == f.STOP and self._link.open is not Open.NOTHING})
        while self._link.receive().kind not in (f.FINISHED, f.FAILED):
            continue
        self._waits = False


def _schema(frame: f.Frame) -> pa.Schema:
    import pyarrow as pa

    return pa.ipc.read_schema(pa.py_buffer(frame.tail))
