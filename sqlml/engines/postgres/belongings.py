"""What statements leave in a session of the server that goes when the session does: settings, temporary tables …"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from sqlml_dialect.tokens import Kind, scan

SETTINGS, TABLES, PREPARED = "settings", "temporary tables", "prepared statements"
CURSORS, CHANNELS, LOCKS, LIBRARIES = "cursors", "LISTEN", "advisory locks", "loaded libraries"

_FIRST = {"PREPARE": PREPARED, "LISTEN": CHANNELS, "LOAD": LIBRARIES}
_LOCKS = ("PG_ADVISORY_LOCK", "PG_ADVISORY_LOCK_SHARED", "PG_TRY_ADVISORY_LOCK", "PG_TRY_ADVISORY_LOCK_SHARED")
_PASSING = ("LOCAL", "TRANSACTION", "CONSTRAINTS")  # SET of these ends with the transaction
_UNDONE = {
    ("DISCARD", "ALL"): (SETTINGS, TABLES, PREPARED, CURSORS, CHANNELS, LOCKS),
    ("DISCARD", "TEMP"): (TABLES,),
    ("DISCARD", "TEMPORARY"): (TABLES,),
    ("DEALLOCATE", "ALL"): (PREPARED,),
    ("RESET", "ALL"): (SETTINGS,),
    ("CLOSE", "ALL"): (CURSORS,),
}


class Belongings:
    """What a session has, as far as the statements that were run tell."""

    def __init__(self) -> None:
        self._kinds: set[str] = set()

    def see(self, text: str) -> None:
        """Remember what a statement that was run leaves behind."""
        keys = [token.key for token in scan(text) if token.kind is Kind.WORD]
        self._kinds |= set(_left_by(keys))
        self._kinds -= set(_UNDONE.get((keys[0], keys[1]), ())) if len(keys) > 1 else set()

    def lose(self) -> str:
        """All of it is gone: what it was, as words; empty for nothing."""
        gone, self._kinds = sorted(self._kinds), set()
        return f"{', '.join(gone[:-1])} and {gone[-1]}" if len(gone) > 1 else "".join(gone)


def _left_by(keys: Sequence[str]) -> list[str]:
    if not keys:
        return []
    second = keys[1] if len(keys) > 1 else ""
    found = [_FIRST[keys[0]]] if keys[0] in _FIRST and second != "TRANSACTION" else []
    if (keys[0] == "SET" and second not in _PASSING) or "SET_CONFIG" in keys:
        found.append(SETTINGS)
    if keys[0] == "DECLARE" and "HOLD" in keys:
        found.append(CURSORS)
    if any(key in keys for key in _LOCKS):
        found.append(LOCKS)
    if _makes_passing(keys):
        found.append(TABLES)
    return found


def _makes_passing(keys: Sequence[str]) -> bool:
    """``CREATE TEMP TABLE``, ``SELECT … INTO TEMP t``, ``CREATE TABLE pg_temp.t``; not a column called ``temp``."""
    before = ("CREATE", "REPLACE", "LOCAL", "GLOBAL", "INTO")
    return any(b in ("TEMP", "TEMPORARY") and a in before for a, b in pairwise(keys)) or (
        keys[0] == "CREATE" and "PG_TEMP" in keys
    )
