"""Opening a database: what a connection needs of a session, and which session it gets, one here or a guest's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from sqlml.errors import OperationalError

if TYPE_CHECKING:
    from sqlml.contracts import OnEvent
    from sqlml.guest.owner import Owner
    from sqlml.statements.own_database import Place
    from sqlml.statements.result import Result


class SqlSession(Protocol):
    """What stands behind a connection: statements in, results out, one after the other.  Of one thread, but for ``interrupt``.

    ``notices`` are what was said beside the last statement, also while its rows are fetched; each statement begins a list of its
    own.  ``on_event`` is told what a statement does while it runs, on the thread that waits for it.  A result's batches are read,
    or closed, before the next call.
    """

    notices: list[str]
    on_event: OnEvent | None
    place: Place
    through: str | None
    """The server that it goes through, in words; None: the database is open in this process."""

    @property
    def dialect(self) -> str:
        """Whose SQL the database speaks."""

    @property
    def is_lost(self) -> bool:
        """Whether the server that it goes through has ended, as far as that can be told while nothing runs."""

    def execute(self, text: str, values: Sequence[Any] | Mapping[str, Any] = ()) -> tuple[str, Result]:
        """Run every statement of a text; the kind and the result of the last.  Values are for a text of one statement."""

    def execute_many(self, text: str, rows: Sequence[Sequence[Any]]) -> None:
        """Run one statement of the database once for each row of values."""

    def begin(self) -> None:
        """Begin a transaction."""

    def commit(self) -> None:
        """Keep what an open transaction did; without one, nothing."""

    def rollback(self) -> None:
        """Undo what an open transaction did; without one, nothing."""

    def interrupt(self) -> None:
        """Cancel what runs, from any thread."""

    def names(self) -> Mapping[str, tuple[str, ...]]:
        """What can be named, by its sort (``tables``, ``columns``, ``models`` …), for completion."""

    def close(self) -> None:
        """Let go of everything; an open transaction is rolled back.  Again is nothing."""


def open_session(database: str, *, catalog: str | None, schema: str | None, on_event: OnEvent | None) -> SqlSession:
    """Open a database for one connection: through the server that has its file open, where there is one, else here."""
    from sqlml.guest.owner import find_owner

    owner = find_owner(database)
    guest = _through_server(owner, database, catalog, schema, on_event)
    if guest is not None:
        return guest
    from sqlml.session import Session

    try:
        return Session(database, catalog=catalog, schema=schema, on_event=on_event)
    except OperationalError:
        later = find_owner(database)  # it may have taken the file in between
        guest = None if later == owner else _through_server(later, database, catalog, schema, on_event)
        if guest is None:
            raise
        return guest


def _through_server(
    owner: Owner | None, database: str, catalog: str | None, schema: str | None, on_event: OnEvent | None
) -> SqlSession | None:
    if owner is None:
        return None
    from sqlml.guest.session import enter

    return enter(owner, database, catalog, schema, on_event)
