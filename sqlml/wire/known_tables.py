"""The tables of the database with their numbers and columns, known once for all of a server's sessions."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

from sqlml.errors import Error
from sqlml.session import Session
from sqlml.statements.changes import CHANGES

Tables = Mapping[tuple[str, str], tuple[int, tuple[str, ...]]]
"""By schema and name in small letters: the number, and the columns in their order."""

_TABLES = """
SELECT lower(schema_name), lower(table_name), table_oid, list(lower(column_name) ORDER BY column_index)
FROM duckdb_columns() WHERE NOT internal AND database_name = current_database() GROUP BY ALL
"""


class KnownTables:
    """Asked of a session of its own, which sees what was committed; again when a statement may have changed something."""

    def __init__(self, open_session: Callable[[], Session]) -> None:
        self._open = open_session
        self._session: Session | None = None
        self._lock = threading.Lock()
        self._tables: Tables = {}
        self._known_at = -1

    def look(self) -> Tables | None:
        """What there is; None where somebody else is just asking, or nothing can be asked."""
        if self._known_at == CHANGES.count:
            return self._tables
        if not self._lock.acquire(blocking=False):
            return None
        try:
            count = CHANGES.count
            self._session = self._session or self._open()
            _, result = self._session.execute(_TABLES)
            rows = [tuple(row.values()) for batch in result.batches or () for row in batch.to_pylist()]
            self._tables = {(schema, name): (oid, tuple(columns)) for schema, name, oid, columns in rows}
            self._known_at = count
        except Error:
            return None
        finally:
            self._lock.release()
        return self._tables

    def close(self) -> None:
        """Let the session go."""
        with self._lock:
            if self._session is not None:
                self._session.close()
                self._session = None
