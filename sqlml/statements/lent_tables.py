"""Tables that the database has for one statement: what ML functions give, other places' tables, our relations."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from sqlml.contracts import HomeEngine

if TYPE_CHECKING:
    import pyarrow as pa


class LentTables:
    """The tables of one connection's statements, until they can be let go of."""

    def __init__(self, engine: HomeEngine) -> None:
        self._engine = engine
        self._registered: dict[str, int | None] = {}  # the tables, and the transaction that they were made in
        self._unused: list[str] = []  # those of them whose statement is over

    def register(self, name: str, table: pa.Table | pa.RecordBatchReader) -> None:
        """Let the connection's statements read a table."""
        self._engine.register(name, table)
        self._registered[name] = self._engine.transaction()

    def put_aside(self, names: Iterable[str]) -> None:
        """Their statement is over, and the connection may be busy: they go with the next that are let go of."""
        self._unused.extend(names)

    def free(self, names: Iterable[str] = ()) -> None:
        """Let go of tables whose statements are over.

        What was made outside the open transaction waits for its end: a rollback would bring it back.  So does what cannot be
        let go of while the connection is busy.
        """
        self._unused.extend(names)
        now = self._engine.transaction() if self._unused else None
        for name in [self._unused.pop() for _ in range(len(self._unused))]:
            made_in = self._registered.get(name, now)
            if now in (None, made_in) and (name not in self._registered or self._engine.unregister(name)):
                self._registered.pop(name, None)
            else:
                self._unused.append(name)
