"""Queries as they were bound: a program sends the same text again and again."""

from __future__ import annotations

import re
from collections.abc import Callable

from sqlml_dialect import Span

from sqlml.binder.text import Sql
from sqlml.kept_texts import KeptTexts

_CONSTANT = re.compile(r"\s*select\b(?>[\s\d,.+*/%?$-]|'[^']*'|\b(?:true|false|null)\b|\bas\s+\w+)*+", re.IGNORECASE)
"""A query of constants and values alone, as pools of connections ask one to see whether it is alive.  Each character is looked at
once: nothing is tried in another way.
"""


class BoundTexts:
    """Those of one connection.  ``moment`` tells whether anything has changed that a text may stand on: it is equal as long as
    nothing has.
    """

    def __init__(self, moment: Callable[[], object]) -> None:
        self._moment = moment
        self._at: object = None
        self.constant: KeptTexts[Sql] = KeptTexts()  # no change can touch them: they name nothing
        self.others: KeptTexts[tuple[Sql, bool]] = KeptTexts()  # as bound at the moment ``_at``, and whether with casts

    def get(self, source: str, span: Span, casts: bool) -> Sql | None:
        """None where the text is to be bound, anew where something has changed, or where columns must be cast and were not."""
        found = self.constant.get((source, span))
        if found is not None:
            return found
        moment = self._moment()
        if moment != self._at:
            self.others.forget()
            self._at = moment
        kept = self.others.get((source, span))
        return kept[0] if kept is not None and (kept[1] or not casts) else None

    def put(self, source: str, span: Span, sql: Sql, casts: bool) -> None:
        """Keep what was bound since ``get`` gave nothing."""
        if is_constant(source[slice(*span)]):
            self.constant.put((source, span), source, sql)
            return
        calls = not all(piece.verbatim for piece in sql.pieces)
        self.others.put((source, span), source, (sql, casts or not calls))


def is_constant(text: str) -> bool:
    """Whether a query names nothing: no table, no column, no function."""
    return _CONSTANT.fullmatch(text) is not None
