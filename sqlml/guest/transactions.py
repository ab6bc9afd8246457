"""Whether a transaction is open in the server, told from what was sent: for the words when the server has gone."""

from __future__ import annotations

import enum
import re

from sqlml_dialect.tokens import scan, split_statements

_MENTIONED = re.compile(r"\b(?:begin|start|commit|end|rollback|abort)\b", re.IGNORECASE)
_BEGINS = frozenset({"BEGIN", "START"})
_COMMITS = frozenset({"COMMIT", "END"})
_UNDOES = frozenset({"ROLLBACK", "ABORT"})


class Open(enum.Enum):
    """What would be lost."""

    NOTHING = ""
    TRANSACTION = ", and with it the open transaction: nothing that it did is kept"
    COMMIT = " before it answered COMMIT: look whether the transaction was kept"


def open_during(text: str, before: Open) -> Open:
    """What may be open while a text of statements runs."""
    firsts = _firsts(text)
    if before is Open.TRANSACTION or any(first in _BEGINS for first in firsts):
        return Open.COMMIT if any(first in _COMMITS for first in firsts) else Open.TRANSACTION
    return Open.NOTHING


def open_after(text: str, before: Open, *, failed: bool) -> Open:
    """What is open after it.  Of a text that failed nobody knows how far it came: what it has begun may be open."""
    found = before
    for first in _firsts(text):
        if first in _BEGINS:
            found = Open.TRANSACTION
        elif first in _COMMITS | _UNDOES and not failed:
            found = Open.NOTHING
    return found


def _firsts(text: str) -> list[str]:
    """The first word of each statement, but for ROLLBACK ENDPOINT, which is a statement of its own."""
    if not _MENTIONED.search(text):
        return []
    words = [[token.key for token in scan(text[piece.start : piece.end])][:2] for piece in split_statements(text)]
    return [found[0] for found in words if found and found != ["ROLLBACK", "ENDPOINT"]]
